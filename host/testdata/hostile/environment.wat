;; Looks for an environment, for more arguments than its name, and for a socket to accept from.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{\22status\22:\22up\22,\22message\22:\22REACHED: there is an environment\22}\00")
  (data (i32.const 128) "{\22status\22:\22up\22,\22message\22:\22REACHED: there are arguments\22}\00")
  (data (i32.const 192) "{\22status\22:\22up\22,\22message\22:\22REACHED: there is a socket\22}\00")
  (data (i32.const 256) "{\22status\22:\22unknown\22,\22message\22:\22there is no environment\22}\00")

  ;; Writes the text at $at, which ends with a NUL, to standard output.
  (func $say (param $at i32)
    (local $end i32)
    (local.set $end (local.get $at))
    (block $found
      (loop $next
        (br_if $found (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (local.get $end) (local.get $at)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func (export "check")
    (local $fd i32)
    (drop (call $environ_sizes_get (i32.const 12) (i32.const 16)))
    (if (i32.load (i32.const 12)) (then (call $say (i32.const 64)) (return)))
    (drop (call $args_sizes_get (i32.const 12) (i32.const 16)))
    (if (i32.gt_u (i32.load (i32.const 12)) (i32.const 1)) (then (call $say (i32.const 128)) (return)))
    (loop $next
      (if (i32.eqz (call $sock_accept (local.get $fd) (i32.const 0) (i32.const 12))) (then (call $say (i32.const 192)) (return)))
      (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $fd) (i32.const 64))))
    (call $say (i32.const 256))))
