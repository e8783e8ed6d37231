// Command prisoner is a native program in the guest's place, as if WebAssembly had failed. Started as "parent" it plays the
// server, with a secret, and starts itself again as whatever its job says; as that it confines itself and tries things.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/tocsinhq/tocsin/host/confine"
	"golang.org/x/sys/unix"
)

// Job is what the test asks for.
type Job struct {
	Mode     string // of the child
	Policy   confine.Policy
	Prepare  bool     // the parent prepares the child
	Env      []string // of the child
	Dir      string   // with: secret, folder/inside, folder/link → secret, file, writable/, sockets/
	Sockets  string   // a short path for sockets
	Reckless bool     // also what would do harm if it succeeded
	Seal     bool     // the child seals itself
}

// Result is what the child says.
type Result struct {
	Report   confine.Report
	Error    string // of Apply
	Took     time.Duration
	Attempts []Attempt
	Works    []Attempt
	Parent   []Attempt // what the parent saw
	Exit     string    // how the child ended
	Stderr   string
}

// Attempt is something that was tried; an empty error is a success.
type Attempt struct {
	Name, Error string
	Refused     bool // with an error that says no, rather than that there is nothing
}

func try(list *[]Attempt, name string, f func() error) {
	a := Attempt{Name: name}
	if err := f(); err != nil {
		a.Error = err.Error()
		a.Refused = errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
	}
	*list = append(*list, a)
}

func must[T any](v T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	return v
}

func main() {
	var job Job
	if err := json.Unmarshal([]byte(os.Args[2]), &job); err != nil {
		panic(err)
	}
	if os.Args[1] == "parent" {
		parent(job)
		return
	}
	if job.Mode != "inherit" {
		if err := confine.CloseInherited(3, 4); err != nil {
			panic(err)
		}
	}
	r := child(job)
	out := must(json.Marshal(r))
	must(os.Stdout.Write(out))
}

func child(job Job) (r Result) {
	life := os.NewFile(4, "life")
	defer life.Close()
	var serve func()
	if job.Mode == "work" {
		l := must(net.Listen("unix", job.Sockets+"/g"))
		serve = func() { server(l) }
	}
	ready := spin() // threads that are there before
	start := time.Now()
	var err error
	r.Report, err = confine.Apply(job.Policy)
	r.Took = time.Since(start)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	if job.Seal {
		r.Report = confine.Seal(job.Policy, r.Report)
	}
	ready()
	switch job.Mode {
	case "attack", "inherit":
		attack(job, &r.Attempts)
	case "work":
		serve()
		work(job, &r.Works)
	case "compile":
		compile(job, &r.Works, &r.Attempts)
	case "report":
	case "orphan":
		must(unix.Write(3, []byte{1}))
		<-time.After(time.Minute)
	default:
		die(job)
	}
	return r
}

// spin starts threads that are kept by goroutines locked to them until what it returns is called.
func spin() func() {
	done := make(chan struct{})
	for range 8 {
		started := make(chan struct{})
		go func() {
			lock()
			close(started)
			<-done
		}()
		<-started
	}
	return func() { close(done) }
}

func parent(job Job) {
	self := must(os.Executable())
	arg := job
	arg.Policy.Parent = os.Getpid()
	if job.Policy.Parent != 0 {
		arg.Policy.Parent = job.Policy.Parent
	}
	pair := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	ours := os.NewFile(uintptr(pair[0]), "ours")
	lifeR, lifeW, err := os.Pipe()
	must(0, err)
	// Something that the server forgot to close.
	leak := must(unix.Open(job.Dir+"/secret", unix.O_RDONLY, 0))
	must(0, unix.Dup2(leak, 77))
	must(0, unix.Close(leak))
	// What the server has open: for the child to try to reach.
	listeners := []net.Listener{must(net.Listen("tcp", "127.0.0.1:0")), must(net.Listen("unix", job.Sockets+"/s")), must(net.Listen("unix", "@tocsin-confine-test"+fmt.Sprint(os.Getpid())))}
	for _, l := range listeners {
		defer l.Close()
	}
	cmd := exec.Command(self, "child", string(must(json.Marshal(arg))))
	cmd.Env = append([]string{}, job.Env...)
	cmd.ExtraFiles = []*os.File{theirs, lifeR}
	var stderr, stdout limited
	cmd.Stderr, cmd.Stdout = &stderr, &stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if job.Prepare {
		confine.Probe().Prepare(cmd.SysProcAttr)
	}
	must(0, cmd.Start())
	theirs.Close()
	lifeR.Close()
	if job.Mode == "orphan" {
		must(io.ReadFull(ours, make([]byte, 1))) // it is confined
		must(fmt.Fprint(os.Stdout, cmd.Process.Pid))
		must(0, unix.Kill(os.Getpid(), unix.SIGKILL))
	}
	var seen []Attempt
	if job.Mode == "work" {
		use(job, ours, listeners[0], &seen)
	}
	err = cmd.Wait()
	lifeW.Close()
	var r Result
	if json.Unmarshal(stdout.b, &r) != nil {
		r.Stderr = string(stdout.b)
	}
	r.Parent, r.Exit, r.Stderr = seen, cmd.ProcessState.String(), r.Stderr+string(stderr.b)
	must(os.Stdout.Write(must(json.Marshal(r))))
}

// limited keeps the first MiB and more of nothing; a crash of Go can be long.
type limited struct{ b []byte }

func (l *limited) Write(p []byte) (int, error) {
	if room := 1<<20 - len(l.b); room > 0 {
		l.b = append(l.b, p[:min(len(p), room)]...)
	}
	return len(p), nil
}
