;; Opens forty files and closes none. The 33rd must be refused with EAGAIN, which is 6.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "http\00")
  (data (i32.const 80) "{\22status\22:\22up\22,\22message\22:\22REACHED: the 33rd file was opened\22}\00")
  (data (i32.const 160) "{\22status\22:\22unknown\22,\22message\22:\22the 33rd open file was refused\22}\00")
  (data (i32.const 240) "{\22status\22:\22unknown\22,\22message\22:\22an open failed too early\22}\00")

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

  ;; Counts the bytes before the NUL that ends the text at $at.
  (func $length (param $at i32) (result i32)
    (local $n i32)
    (block $found
      (loop $next
        (br_if $found (i32.eqz (i32.load8_u (i32.add (local.get $at) (local.get $n)))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br $next)))
    (local.get $n))

  ;; Opens the path at $at, which ends with a NUL, below the directory $dir, to read and write. The result is the error
  ;; number of WASI; the descriptor is then at 12.
  (func $open (param $dir i32) (param $at i32) (result i32)
    (call $path_open (local.get $dir) (i32.const 0) (local.get $at) (call $length (local.get $at))
      (i32.const 0) (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 12)))

  (func (export "check")
    (local $n i32) (local $errno i32)
    (loop $more
      (local.set $errno (call $open (i32.const 3) (i32.const 64)))
      (if (i32.lt_u (local.get $n) (i32.const 32))
        (then (if (local.get $errno) (then (call $say (i32.const 240)) (return))))
        (else (if (i32.ne (local.get $errno) (i32.const 6)) (then (call $say (i32.const 80)) (return)))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $n) (i32.const 40))))
    (call $say (i32.const 160))))
