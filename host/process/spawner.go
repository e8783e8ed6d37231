package process

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
)

// ErrClosed is the error of a Spawner that was closed.
var ErrClosed = errors.New("the spawner of processes is closed")

// Spawner starts every child from one thread of the system that lives as long as the Spawner does. On Linux a child's
// parent-death signal is sent when the thread that started it ends, and Go ends threads as it likes: a child that was started
// from any goroutine could be killed while its server lives.
type Spawner struct {
	enter func() error // called on the thread before each start; nil is fine
	jobs  chan job
	done  chan struct{}
	once  sync.Once
}

type job struct {
	cmd    *exec.Cmd
	result chan error
}

// NewSpawner starts the thread.
func NewSpawner() *Spawner { return NewSpawnerIn(nil) }

// NewSpawnerIn starts the thread, on which enter is called before each child is started: what it does to the thread, such as
// giving it a namespace of its own, the child inherits. An error of it is that of Start.
func NewSpawnerIn(enter func() error) *Spawner {
	s := &Spawner{enter: enter, jobs: make(chan job), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *Spawner) run() {
	runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
	if !mainThread() {
		s.serve()
		return
	}
	// What is done to this thread the system would show as that of the whole process. While it is held here, a goroutine gets
	// another one.
	moved := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(moved)
		s.serve()
	}()
	<-moved
	runtime.UnlockOSThread()
}

func (s *Spawner) serve() {
	for {
		select {
		case <-s.done:
			return
		case j := <-s.jobs:
			j.result <- s.start(j.cmd)
		}
	}
}

func (s *Spawner) start(cmd *exec.Cmd) error {
	if s.enter != nil {
		if err := s.enter(); err != nil {
			return err
		}
	}
	return cmd.Start()
}

// Start starts the command as cmd.Start does, and returns its error. It is for many goroutines; ErrClosed after Close.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	j := job{cmd: cmd, result: make(chan error, 1)}
	select {
	case <-s.done:
		return ErrClosed
	default:
	}
	select {
	case <-s.done:
		return ErrClosed
	case s.jobs <- j:
		return <-j.result
	}
}

// Close ends the thread, and with it, where children have a parent-death signal, all that still live.
func (s *Spawner) Close() {
	s.once.Do(func() { close(s.done) })
}
