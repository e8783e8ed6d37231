;; Reads beyond its memory.
(module
  (memory (export "memory") 1)
  (func (export "check")
    (drop (i32.load (i32.const -8)))))
