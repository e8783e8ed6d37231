;; Answers with a million lists within each other.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "{\22status\22:\22up\22,\22more\22:\00")

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
    (local $left i32)
    (call $say (i32.const 32))
    (memory.fill (i32.const 64) (i32.const 91) (i32.const 50000))
    (local.set $left (i32.const 20))
    (loop $more
      (call $say (i32.const 64))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))))
