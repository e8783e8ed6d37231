;; Wants to begin with 2 GiB of memory.
(module
  (memory (export "memory") 32768)
  (func (export "check")
    nop))
