;; Wants to begin with a table of a hundred million entries.
(module
  (memory (export "memory") 1)
  (table 100000000 funcref)

  (func (export "check")
    nop))
