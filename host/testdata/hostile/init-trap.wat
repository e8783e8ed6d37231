;; Crashes while it starts.
(module
  (memory (export "memory") 1)
  (func (export "_initialize") unreachable)

  (func (export "check")
    nop))
