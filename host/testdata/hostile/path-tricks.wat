;; Tries paths that lead out of /net or mean nothing there, in the directory of the network and in every other descriptor
;; from 0 to 63, then a path with a NUL, one of 60,000 bytes, and what changes a directory. None may work.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "{\22status\22:\22up\22,\22message\22:\22REACHED: a path was opened\22}\00")
  (data (i32.const 128) "{\22status\22:\22up\22,\22message\22:\22REACHED: the directory was changed\22}\00")
  (data (i32.const 192) "{\22status\22:\22unknown\22,\22message\22:\22no path led anywhere\22}\00")
  (data (i32.const 256) "http\00x")
  ;; Texts that end with a NUL; an empty one ends the list.
  (data (i32.const 1024)
    "..\00"
    ".\00"
    "../..\00"
    "../../etc/passwd\00"
    "../etc/passwd\00"
    "/etc/passwd\00"
    "//etc/passwd\00"
    "/\00"
    "/net/../etc/passwd\00"
    "./../../proc/self/environ\00"
    "tcp\00"
    "tcp/\00"
    "tcp//\00"
    "tcp/../../etc/passwd\00"
    "tcp/..%2f..%2fetc%2fpasswd\00"
    "%2e%2e/etc/passwd\00"
    "..\5c..\5cwindows\5cwin.ini\00"
    "C:\5cwindows\5cwin.ini\00"
    "http/\00"
    "http?x=1\00"
    "error/..\00"
    "net/http\00"
    "/net/http\00"
    "file:///etc/passwd\00"
    "unix/run/docker.sock\00"
    "tcp/127.0.0.1\00"
    "tcp/127.0.0.1:0\00"
    "tcp/127.0.0.1:65536\00"
    "tcp/127.0.0.1:80?id=0\00"
    "tcp/127.0.0.1:80?nothing=1\00"
    "tcp/127.0.0.1:80?id=1&id=1\00"
    "tcp/user@127.0.0.1:80\00"
    "tcp/127.0.0.1:80%\00"
    "tls/@9\00"
    "tcp/\0a:80\00"
    "dns/A\00"
    "dns//x\00"
    "icmp/\00"
    "http \00"
    "HTTP\00")

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

  ;; Opens a path of a given length below descriptor 3.
  (func $open_bytes (param $at i32) (param $len i32) (result i32)
    (call $path_open (i32.const 3) (i32.const 0) (local.get $at) (local.get $len)
      (i32.const 0) (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 12)))

  (func (export "check")
    (local $at i32) (local $dir i32)
    (block $others
      (loop $next
        (br_if $others (i32.gt_u (local.get $dir) (i32.const 63)))
        (local.set $at (i32.const 1024))
        (block $end
          (loop $path
            (br_if $end (i32.eqz (i32.load8_u (local.get $at))))
            (if (i32.eqz (call $open (local.get $dir) (local.get $at))) (then (call $say (i32.const 64)) (return)))
            (local.set $at (i32.add (i32.add (local.get $at) (call $length (local.get $at))) (i32.const 1)))
            (br $path)))
        (local.set $dir (i32.add (local.get $dir) (i32.const 1)))
        (br $next)))
    (memory.fill (i32.const 4096) (i32.const 97) (i32.const 60000))
    (if (i32.eqz (call $open_bytes (i32.const 256) (i32.const 6))) (then (call $say (i32.const 64)) (return)))
    (if (i32.eqz (call $open_bytes (i32.const 256) (i32.const 0))) (then (call $say (i32.const 64)) (return)))
    (if (i32.eqz (call $open_bytes (i32.const 4096) (i32.const 60000))) (then (call $say (i32.const 64)) (return)))
    (if (i32.eqz (call $open_bytes (i32.const 4096) (i32.const -1))) (then (call $say (i32.const 64)) (return)))
    (if (i32.eqz (call $path_create_directory (i32.const 3) (i32.const 256) (i32.const 4))) (then (call $say (i32.const 128)) (return)))
    (if (i32.eqz (call $path_unlink_file (i32.const 3) (i32.const 256) (i32.const 4))) (then (call $say (i32.const 128)) (return)))
    (if (i32.eqz (call $path_rename (i32.const 3) (i32.const 256) (i32.const 4) (i32.const 3) (i32.const 4096) (i32.const 4))) (then (call $say (i32.const 128)) (return)))
    (if (i32.eqz (call $path_symlink (i32.const 1024) (i32.const 2) (i32.const 3) (i32.const 4096) (i32.const 4))) (then (call $say (i32.const 128)) (return)))
    (call $say (i32.const 192))))
