;; Crashes.
(module
  (memory (export "memory") 1)
  (func (export "check")
    unreachable))
