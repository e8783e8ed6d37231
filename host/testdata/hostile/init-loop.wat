;; Loops without end while it starts.
(module
  (memory (export "memory") 1)
  (func (export "_initialize") (loop $again (br $again)))

  (func (export "check")
    nop))
