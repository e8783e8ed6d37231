;; Calls through an entry of a table that is empty.
(module
  (memory (export "memory") 1)
  (type $t (func))
  (table 1 funcref)

  (func (export "check")
    (call_indirect (type $t) (i32.const 0))))
