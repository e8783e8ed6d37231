package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"github.com/tetratelabs/wazero"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func lock() { runtime.LockOSThread() }

func server(l net.Listener) {
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l)
}

// use is the server's side of a child that works.
func use(job Job, pair *os.File, l net.Listener, seen *[]Attempt) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	try(seen, "call over gRPC", func() error {
		c, err := grpc.NewClient("unix://"+job.Sockets+"/g", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			return err
		}
		defer c.Close()
		for range 100 {
			if _, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				return err
			}
		}
		return nil
	})
	try(seen, "pass a connection", func() error {
		out, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer out.Close()
		in, err := l.Accept()
		if err != nil {
			return err
		}
		f, err := out.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Sendmsg(int(pair.Fd()), []byte{1}, unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
			return err
		}
		out.Close()
		f.Close()
		b, err := io.ReadAll(in)
		if err == nil && string(b) != "hello" {
			err = fmt.Errorf("got %q", b)
		}
		in.Write([]byte("bye"))
		in.Close()
		return err
	})
}

// add is (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add) (memory 1)).
var add = []byte("\x00asm\x01\x00\x00\x00\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x07\x01\x03add\x00\x00\x0a\x09\x01\x07\x00\x20\x00\x20\x01\x6a\x0b")

func runModule(cache string) error {
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler()
	if cache != "" {
		c, err := wazero.NewCompilationCacheWithDir(cache)
		if err != nil {
			return err
		}
		config = config.WithCompilationCache(c)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	defer rt.Close(ctx)
	m, err := rt.Instantiate(ctx, add)
	if err != nil {
		return err
	}
	got, err := m.ExportedFunction("add").Call(ctx, 40, 2)
	if err == nil && got[0] != 42 {
		err = fmt.Errorf("got %d", got)
	}
	return err
}

// work does all that a runner does.
func work(job Job, list *[]Attempt) {
	try(list, "goroutines", func() error {
		var wg sync.WaitGroup
		n := make(chan int, 1000)
		for i := range 1000 {
			wg.Go(func() { runtime.Gosched(); n <- i })
		}
		wg.Wait()
		return nil
	})
	try(list, "threads", func() error {
		var wg sync.WaitGroup
		all, open := make(chan struct{}, 64), make(chan struct{})
		for range 64 {
			wg.Go(func() {
				lock() // and never unlocked: the thread ends with the goroutine
				all <- struct{}{}
				<-open
			})
		}
		for range 64 {
			<-all
		}
		close(open)
		wg.Wait()
		return nil
	})
	try(list, "collector and preemption", func() error {
		stop := make(chan struct{})
		for range 2 {
			go func() {
				for i := 0; ; i++ { // only a signal gets the collector in
					if i&0xfffffff == 0 {
						select {
						case <-stop:
							return
						default:
						}
					}
				}
			}()
		}
		var keep [][]byte
		for range 200 {
			keep = append(keep, make([]byte, 256<<10))
			if len(keep) > 40 {
				keep = nil
				runtime.GC()
			}
		}
		close(stop)
		return nil
	})
	try(list, "timers", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		defer cancel()
		<-ctx.Done()
		<-time.After(5 * time.Millisecond)
		return nil
	})
	try(list, "randomness", func() error { b := make([]byte, 4096); _, err := unix.Getrandom(b, 0); return err })
	for _, name := range []string{"file", "folder/inside"} {
		try(list, "read "+name, func() error {
			if _, err := os.Stat(filepath.Join(job.Dir, name)); err != nil {
				return err
			}
			b, err := os.ReadFile(filepath.Join(job.Dir, name))
			if err == nil && string(b) != "allowed" {
				err = fmt.Errorf("got %q", b)
			}
			return err
		})
	}
	try(list, "compile and run", func() error { return runModule("") })
	try(list, "snapshot", snapshot)
	try(list, "passed connection", passed)
	try(list, "pipe of the server", func() error { // it ends when the server does, so here it waits
		life := os.NewFile(4, "life")
		go io.Copy(io.Discard, life)
		runtime.KeepAlive(life)
		return nil
	})
}

func snapshot() error {
	const size = 1 << 20
	region, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	if err := unix.Mprotect(region[:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "x")
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("snap"), 4096); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SEAL|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK); err != nil {
		return err
	}
	if _, err := unix.MmapPtr(int(f.Fd()), 0, unsafe.Pointer(&region[0]), size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED); err != nil {
		return err
	}
	for range 100 {
		if !bytes.Equal(region[4096:4100], []byte("snap")) {
			return errors.New("not reset")
		}
		copy(region[4096:], "xxxx")
		there := make([]byte, size/4096)
		if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&region[0])), size, uintptr(unsafe.Pointer(&there[0]))); e != 0 {
			return e
		}
		if err := unix.Madvise(region[:size], unix.MADV_DONTNEED); err != nil {
			return err
		}
	}
	return unix.Munmap(region)
}

// passed takes a connection from the server and uses it.
func passed() error {
	pair, err := net.FileConn(os.NewFile(3, "broker"))
	if err != nil {
		return err
	}
	defer pair.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := pair.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fds[0]), "conn")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return err
	}
	defer conn.Close()
	tcp := conn.(*net.TCPConn)
	for _, err := range []error{
		conn.SetDeadline(time.Now().Add(time.Minute)), tcp.SetNoDelay(true), tcp.SetLinger(1), tcp.SetKeepAlive(true), tcp.SetKeepAlivePeriod(time.Minute),
	} {
		if err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte("hel")); err != nil {
		return err
	}
	if _, err := (&net.Buffers{[]byte("l"), []byte("o")}).WriteTo(conn); err != nil {
		return err
	}
	if err := tcp.CloseWrite(); err != nil {
		return err
	}
	var got bytes.Buffer
	if _, err := io.Copy(&got, conn); err != nil || got.String() != "bye" {
		return fmt.Errorf("got %q: %w", got.String(), err)
	}
	return nil
}

// compile does what the compiler does, and tries what only it could.
func compile(job Job, works, attempts *[]Attempt) {
	dir := filepath.Join(job.Dir, "writable")
	try(works, "compile into the cache", func() error { return runModule(dir) })
	try(works, "read it from there", func() error { return runModule(dir) })
	try(works, "files", func() error {
		sub := filepath.Join(dir, "a", "b")
		return errors.Join(
			os.MkdirAll(sub, 0o700),
			os.WriteFile(filepath.Join(sub, "x"), []byte("x"), 0o600),
			os.Rename(filepath.Join(sub, "x"), filepath.Join(sub, "y")),
			os.Remove(filepath.Join(sub, "y")),
			os.RemoveAll(filepath.Join(dir, "a")),
		)
	})
	try(works, "read file", func() error { _, err := os.ReadFile(filepath.Join(job.Dir, "file")); return err })
	for _, p := range []string{job.Dir + "/new", job.Dir + "/folder/new", job.Dir + "/file", "/tmp/new-file", "/dev/shm/x", "/dev/null", job.Dir + "/secret"} {
		try(attempts, "write "+p, func() error { return os.WriteFile(p, []byte("x"), 0o600) })
	}
	try(attempts, "rename away", func() error { return os.Rename(dir, job.Dir+"/gone") })
	try(attempts, "rename in", func() error { return os.Rename(job.Dir+"/secret", dir+"/secret") })
	attack(job, attempts)
}
