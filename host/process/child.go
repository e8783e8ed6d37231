package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin/runner"
)

// child is a process, as go-plugin's runner.Runner. go-plugin starts it and reads its handshake. That it is waited for, and
// killed, is our business alone: a goroutine of ours waits from the start, whatever go-plugin does.
type child struct {
	o      Options
	env    []string // what go-plugin adds
	dir    string   // of its socket, made by go-plugin
	cmd    *exec.Cmd
	stdout *firstLine
	lines  *sink
	done   chan struct{} // closed once it has ended and was reaped

	mu     sync.Mutex
	killed bool  // by us
	ended  bool  // it is a zombie or reaped: its number may soon be another's
	state  error // set before done is closed: how it ended
}

var _ runner.Runner = (*child)(nil)

func (c *child) start() error {
	cmd := exec.Command(c.o.Command[0], c.o.Command[1:]...) //nolint:noctx // it outlives the call that starts it
	cmd.Env = append(append([]string{}, c.o.Env...), c.env...)
	cmd.ExtraFiles = c.o.Files
	cmd.Dir = c.o.SocketDir // not the server's own, which is no business of a plugin
	cmd.SysProcAttr = ownGroup()
	if c.o.Configure != nil {
		c.o.Configure(cmd)
	}
	cmd.Stdin = nil // the null device
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		outR.Close()
		outW.Close()
		return err
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = c.o.Spawner.Start(cmd)
	outW.Close()
	errW.Close()
	if err != nil {
		outR.Close()
		errR.Close()
		return err
	}
	c.cmd, c.stdout = cmd, &firstLine{r: outR}
	read := make(chan struct{})
	go func() {
		defer close(read)
		s := &splitter{to: c.lines}
		io.Copy(s, errR) //nolint:errcheck // it ends when the process does, or when wait closes it
		s.flush()
	}()
	go c.wait(outR, errR, read)
	return nil
}

// drain is how long what a process wrote last is waited for. Only a process that left its group and kept the descriptor
// makes it wait that long.
const drain = 200 * time.Millisecond

// wait reaps the process and lets go of what belonged to it.
func (c *child) wait(stdout, stderr *os.File, read <-chan struct{}) {
	err := reap(c.cmd, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended = true
		killGroup(c.cmd.Process) // what it started must not outlive it
	})
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C:
		stderr.Close()
		<-read
	}
	stderr.Close()
	stdout.Close() // go-plugin's reader ends
	c.state = how(c.cmd.ProcessState, err)
	close(c.done)
}

func how(state *os.ProcessState, err error) error {
	if exit := (*exec.ExitError)(nil); err == nil || errors.As(err, &exit) {
		return errors.New(state.String()) // "exit status 1", "signal: killed"
	}
	return err
}

// kill ends the process and all of its group at once. It returns before they are reaped.
func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.killed = true // before it was started this keeps it from being
	if c.cmd != nil {
		killGroup(c.cmd.Process)
	}
}

// remove deletes the folder of the socket.
func (c *child) remove() error {
	if c.dir == "" {
		return nil
	}
	return os.RemoveAll(c.dir)
}

// Start implements runner.Runner.
func (c *child) Start(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed { // the caller gave up before it began
		return context.Canceled
	}
	return c.start()
}

// Diagnose implements runner.Runner.
func (c *child) Diagnose(context.Context) string { return "" }

// Stdout implements runner.Runner.
func (c *child) Stdout() io.ReadCloser { return c.stdout }

// Stderr implements runner.Runner. It is empty: we read it ourselves, since go-plugin takes lines for its own log apart.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements runner.Runner.
func (c *child) Name() string { return filepath.Base(c.o.Command[0]) }

// ID implements runner.Runner.
func (c *child) ID() string {
	if c.cmd == nil {
		return "none"
	}
	return strconv.Itoa(c.cmd.Process.Pid)
}

// Wait implements runner.AttachedRunner.
func (c *child) Wait(context.Context) error {
	<-c.done
	return c.state
}

// Kill implements runner.AttachedRunner.
func (c *child) Kill(context.Context) error {
	c.kill()
	return nil
}

// PluginToHost implements runner.AddrTranslator. The process names the socket that the server is to connect to, so it is
// held to the folder that it was given, or where there are no such sockets, to this system.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	if !unixSockets {
		if network != "tcp" || !strings.HasPrefix(address, "127.0.0.1:") {
			return "", "", fmt.Errorf("it listens on %s %q, not on 127.0.0.1", network, address)
		}
		return network, address, nil
	}
	if network != "unix" || filepath.Dir(address) != c.dir || filepath.Clean(address) != address {
		return "", "", fmt.Errorf("it listens on %s %q, not on a socket in its folder", network, address)
	}
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

func (c *child) runner(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
	c.env, c.dir = cmd.Env, dir
	return c, nil
}
