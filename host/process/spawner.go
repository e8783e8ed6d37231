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
	jobs chan job
	done chan struct{}
	once sync.Once
}

type job struct {
	cmd    *exec.Cmd
	result chan error
}

// NewSpawner starts the thread.
func NewSpawner() *Spawner {
	s := &Spawner{jobs: make(chan job), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *Spawner) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for {
		select {
		case <-s.done:
			return
		case j := <-s.jobs:
			j.result <- j.cmd.Start()
		}
	}
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
