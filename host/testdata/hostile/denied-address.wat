;; Opens its own target, which it was granted, but whose name resolves to an address that nobody may reach. The answer is the
;; reason.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "error\00")
  (data (i32.const 110) "\22message\22:\00")
  (data (i32.const 128) "{\22status\22:\22unknown\22,\22message\22:\00")
  (data (i32.const 192) "{\22status\22:\22up\22,\22message\22:\22REACHED: an address that is not allowed\22}\00")
  (data (i32.const 512) "\22target\22:\22\00")
  (data (i32.const 544) "tcp/\00")

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

  ;; Finds the text at $what, which ends with a NUL, in the one at $in. The result is where it ends there; 0: nowhere.
  (func $behind (param $in i32) (param $what i32) (result i32)
    (local $i i32)
    (block $none
      (loop $from
        (br_if $none (i32.eqz (i32.load8_u (local.get $in))))
        (local.set $i (i32.const 0))
        (block $differs
          (loop $same
            (if (i32.eqz (i32.load8_u (i32.add (local.get $what) (local.get $i))))
              (then (return (i32.add (local.get $in) (local.get $i)))))
            (br_if $differs (i32.ne
              (i32.load8_u (i32.add (local.get $what) (local.get $i)))
              (i32.load8_u (i32.add (local.get $in) (local.get $i)))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br $same)))
        (local.set $in (i32.add (local.get $in) (i32.const 1)))
        (br $from)))
    (i32.const 0))

  ;; Answers unknown with the message in /net/error, which is the last field there.
  (func $tell
    (if (call $open (i32.const 3) (i32.const 100)) (then (return)))
    (drop (call $read_all (i32.load (i32.const 12)) (i32.const 32768)))
    (drop (call $fd_close (i32.load (i32.const 12))))
    (call $say (i32.const 128))
    (call $say (call $behind (i32.const 32768) (i32.const 110))))

  ;; Reads the request to 16384 and gives where its target begins, cut with a NUL where it ends.
  (func $target (result i32)
    (local $at i32) (local $end i32)
    (drop (call $read_all (i32.const 0) (i32.const 16384)))
    (local.set $at (call $behind (i32.const 16384) (i32.const 512)))
    (local.set $end (local.get $at))
    (block $found
      (loop $next
        (br_if $found (i32.eq (i32.load8_u (local.get $end)) (i32.const 34)))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.store8 (local.get $end) (i32.const 0))
    (local.get $at))

  ;; Copies the text at $from, with its NUL, to $to and gives where the NUL is.
  (func $append (param $to i32) (param $from i32) (result i32)
    (memory.copy (local.get $to) (local.get $from) (i32.add (call $length (local.get $from)) (i32.const 1)))
    (i32.add (local.get $to) (call $length (local.get $to))))

  (func (export "check")
    (drop (call $append (call $append (i32.const 8192) (i32.const 544)) (call $target)))
    (if (i32.eqz (call $open (i32.const 3) (i32.const 8192))) (then (call $say (i32.const 192)) (return)))
    (call $tell)))
