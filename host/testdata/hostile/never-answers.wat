;; Reads its request and says nothing.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Reads the descriptor $fd to $at until its end, at most 16 KiB, and puts a NUL behind it. The result is the error
  ;; number of WASI.
  (func $read_all (param $fd i32) (param $at i32) (result i32)
    (local $end i32) (local $errno i32)
    (local.set $end (i32.add (local.get $at) (i32.const 16384)))
    (block $done
      (loop $more
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (i32.store (i32.const 0) (local.get $at))
        (i32.store (i32.const 4) (i32.sub (local.get $end) (local.get $at)))
        (i32.store (i32.const 8) (i32.const 0))
        (local.set $errno (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $done (i32.or (local.get $errno) (i32.eqz (i32.load (i32.const 8)))))
        (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
        (br $more)))
    (i32.store8 (local.get $at) (i32.const 0))
    (local.get $errno))

  (func (export "check")
    (drop (call $read_all (i32.const 0) (i32.const 16384)))))
