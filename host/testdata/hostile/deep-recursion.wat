;; Recurses until the stack is full.
(module
  (memory (export "memory") 1)
  (func $down (param $n i32) (result i32)
    (i32.add (local.get $n) (call $down (i32.add (local.get $n) (i32.const 1)))))

  (func (export "check")
    (drop (call $down (i32.const 0)))))
