;; Sleeps for half of the time that its request gives it, then answers.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{\22status\22:\22up\22,\22message\22:\22fine, after half of the time\22}\00")
  (data (i32.const 128) "\22timeout_ms\22:\00")

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

  ;; Sleeps for $ns nanoseconds of the monotonic clock. Memory from 200 to 280 is used.
  (func $sleep (param $ns i64)
    (i64.store (i32.const 200) (i64.const 0))
    (i32.store (i32.const 208) (i32.const 0)) ;; a clock
    (i32.store (i32.const 216) (i32.const 1)) ;; the monotonic one
    (i64.store (i32.const 224) (local.get $ns))
    (i64.store (i32.const 232) (i64.const 0))
    (i32.store (i32.const 240) (i32.const 0)) ;; from now on
    (drop (call $poll_oneoff (i32.const 200) (i32.const 248) (i32.const 1) (i32.const 280))))

  ;; Reads the digits at $at as a number.
  (func $number (param $at i32) (result i64)
    (local $n i64) (local $digit i32)
    (block $end
      (loop $next
        (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (br_if $end (i32.gt_u (local.get $digit) (i32.const 9)))
        (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (local.get $n))

  (func (export "check")
    (drop (call $read_all (i32.const 0) (i32.const 16384)))
    (call $sleep (i64.mul (call $number (call $behind (i32.const 16384) (i32.const 128))) (i64.const 500000)))
    (call $say (i32.const 64))))
