;; Has code that runs before anybody calls it.
(module
  (memory (export "memory") 1)
  (func $begin (loop $again (br $again)))
  (start $begin)

  (func (export "check")
    nop))
