;; Loops without end.
(module
  (memory (export "memory") 1)
  (func (export "check")
    (loop $again (br $again))))
