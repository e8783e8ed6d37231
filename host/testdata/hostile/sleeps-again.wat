;; Sleeps for an hour again and again.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Sleeps for $ns nanoseconds of the monotonic clock. Memory from 200 to 280 is used.
  (func $sleep (param $ns i64)
    (i64.store (i32.const 200) (i64.const 0))
    (i32.store (i32.const 208) (i32.const 0)) ;; a clock
    (i32.store (i32.const 216) (i32.const 1)) ;; the monotonic one
    (i64.store (i32.const 224) (local.get $ns))
    (i64.store (i32.const 232) (i64.const 0))
    (i32.store (i32.const 240) (i32.const 0)) ;; from now on
    (drop (call $poll_oneoff (i32.const 200) (i32.const 248) (i32.const 1) (i32.const 280))))

  (func (export "check")
    (loop $again
      (call $sleep (i64.const 3600000000000))
      (br $again))))
