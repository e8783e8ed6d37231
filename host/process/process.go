// Package process runs plugins that are processes of their own, the runner of sandboxed ones among them: it starts them over
// go-plugin with nothing but what it is told to hand over, calls them, and makes sure that they end. What their answers mean
// is package sdk/process's business, when to start and to kill is package host's.
package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsinhq/tocsin/sdk"
	wire "github.com/tocsinhq/tocsin/sdk/process"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// ErrEnded is the error of a call whose process has ended. The error that wraps it says how, and what it wrote last.
var ErrEnded = errors.New("the plugin's process has ended")

// DefaultStartTimeout is how long a process has to begin to serve.
const DefaultStartTimeout = 10 * time.Second

// Options says how a process is started.
type Options struct {
	// Spawner starts it. It must outlive the process.
	Spawner *Spawner
	// Command is the file, with its absolute path, and the arguments.
	Command []string
	// SHA256 is what the file's digest must be, in hexadecimal; empty is any. The file must lie where only the server can write,
	// since it is read before it is executed.
	SHA256 string
	// Env is the whole environment besides what go-plugin needs. Nothing of the server's own is added.
	Env []string
	// Files are inherited as descriptors 3 and up. They stay the caller's, who may close them when Start has returned.
	Files []*os.File
	// SocketDir is the folder for sockets, absolute, with mode 0700. It is the working directory too. Each process has a folder
	// in it while it runs.
	SocketDir string
	// Configure is called with the command before it is started. It may change SysProcAttr.
	Configure func(*exec.Cmd)
	// MTLS makes both sides prove who they are. The folder of the socket keeps others away without it; where there are no such
	// sockets, it is always on.
	MTLS bool
	// Stderr gets the lines that the process writes, each in one Write with its end, at most 4 KiB. Nil drops them.
	Stderr io.Writer
	// Log gets what go-plugin tells, at level debug. Nil drops it.
	Log *slog.Logger
	// StartTimeout is how long the process has to begin to serve. Zero is DefaultStartTimeout.
	StartTimeout time.Duration
}

func (o Options) check() error {
	switch {
	case o.Spawner == nil:
		return errors.New("there is no spawner")
	case len(o.Command) == 0 || !filepath.IsAbs(o.Command[0]):
		return fmt.Errorf("the program must have an absolute path, is %q", o.Command)
	case !filepath.IsAbs(o.SocketDir):
		return fmt.Errorf("the folder of sockets must have an absolute path, is %q", o.SocketDir)
	case len(o.SocketDir) > maxSocketDir:
		return fmt.Errorf("the folder of sockets %s has a name of %d bytes; at most %d leave room for a socket's", o.SocketDir, len(o.SocketDir), maxSocketDir)
	}
	if o.SHA256 == "" {
		return nil
	}
	digest, err := digestOf(o.Command[0])
	if err == nil && digest != strings.ToLower(o.SHA256) {
		err = fmt.Errorf("the SHA-256 of %s is %s, want %s", o.Command[0], digest, o.SHA256)
	}
	return err
}

func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Process is a plugin's process that serves. Its methods may be called from many goroutines.
type Process struct {
	child   *child
	conn    *grpc.ClientConn
	client  proto.PluginClient
	streams streams
	done    chan struct{}
	err     error // set before done is closed
	cpu     atomic.Int64
}

// Start starts a process and returns once it serves. When ctx ends earlier, or the process does not serve within
// StartTimeout, or ends, it is killed, nothing of it is left, and the error says what it wrote last.
func Start(ctx context.Context, o Options) (*Process, error) {
	fail := func(err error) (*Process, error) { return nil, fmt.Errorf("start the plugin's process: %w", err) }
	if err := o.check(); err != nil {
		return fail(err)
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = DefaultStartTimeout
	}
	late := fmt.Errorf("it did not begin to serve within %s", o.StartTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, o.StartTimeout, late)
	defer cancel()
	c := &child{o: o, lines: &sink{to: o.Stderr}, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	config := &plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake(),
		VersionedPlugins: wire.Plugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		RunnerFunc:       c.runner,
		SkipHostEnv:      true,
		AutoMTLS:         o.MTLS || !unixSockets,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: o.SocketDir},
		StartTimeout:     o.StartTimeout + time.Second, // ours comes first
		Logger:           logTo(o.Log),
	}
	// Of the client only Start is used. Its Kill waits for two seconds before it kills, and Client leaves a connection behind
	// when the process ends while it connects; see connect.go and child.go for what stands in their place.
	addr, err := plugin.NewClient(config).Start()
	if err != nil {
		return fail(c.abandon(ctx, err))
	}
	conn, err := dial(addr, config.TLSConfig)
	if err != nil {
		return fail(c.abandon(ctx, err))
	}
	life, end := context.WithCancel(context.Background())
	connected := context.AfterFunc(ctx, end)
	stream, err := stdio(life, conn)
	if err == nil && (!connected() || !stop()) {
		err = context.Cause(ctx)
	}
	if err != nil {
		end()
		conn.Close() //nolint:errcheck // nothing was sent
		return fail(c.abandon(ctx, fmt.Errorf("connect to %s: %w", addr, err)))
	}
	p := &Process{child: c, conn: conn, client: proto.NewPluginClient(conn), done: make(chan struct{})}
	received := make(chan struct{})
	go func() {
		defer close(received)
		out, errs := &splitter{to: c.lines}, &splitter{to: c.lines}
		err := receive(stream, out, errs)
		out.flush()
		errs.flush()
		if status.Code(err) == codes.Unavailable {
			p.hungUp()
		}
	}()
	go p.watch(end, received)
	return p, nil
}

// hungUp ends a process that broke the connection and lives on: nobody can call it any more.
func (p *Process) hungUp() {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-p.child.done:
	case <-timer.C:
		p.Kill()
	}
}

// watch lets go of everything once the process has ended.
func (p *Process) watch(end context.CancelFunc, received <-chan struct{}) {
	<-p.child.done
	p.conn.Close() //nolint:errcheck // the other side is gone
	end()
	<-received
	p.child.lines.close()
	p.err = p.child.fate()
	if err := p.child.remove(); err != nil && p.child.o.Log != nil {
		p.child.o.Log.Warn("a plugin's folder for its socket was not removed", "error", err)
	}
	close(p.done)
}

// abandon kills a process that could not be started, waits until nothing of it is left, and says why.
func (c *child) abandon(ctx context.Context, err error) error {
	c.kill()
	c.mu.Lock()
	started := c.cmd != nil
	c.mu.Unlock()
	if !started {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return errors.Join(err, c.remove())
	}
	<-c.done
	c.lines.close()
	printed := c.stdout.text()
	switch cause := context.Cause(ctx); {
	case cause != nil:
		err = cause
	case !c.wasKilled():
		err = c.fate()
	case printed != "" && strings.Count(printed, "|") < 3:
		err = fmt.Errorf("it printed %q, which is no handshake of go-plugin", printed)
	default:
		err = errors.New(sdk.CleanText(err.Error(), sdk.MaxMessage))
	}
	if line := c.lines.lastLine(); line != "" && !errors.Is(err, ErrEnded) {
		err = fmt.Errorf("%w; it wrote: %s", err, line)
	}
	return errors.Join(err, c.remove())
}

// fate says how the process ended and what it wrote last.
func (c *child) fate() error {
	err := fmt.Errorf("%w: %w", ErrEnded, c.state)
	if line := c.lines.lastLine(); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// wasKilled reports whether the process ended because we killed it, rather than before.
func (c *child) wasKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed && !c.cmd.ProcessState.Exited()
}

// logTo gives go-plugin a logger whose lines go to log.
func logTo(log *slog.Logger) hclog.Logger {
	if log == nil || !log.Enabled(context.Background(), slog.LevelDebug) {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Output: logWriter{log}, Level: hclog.Debug, DisableTime: true})
}

// logWriter logs each Write, which is one line.
type logWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("go-plugin", "line", sdk.CleanText(strings.TrimSpace(string(p)), sdk.MaxMessage))
	return len(p), nil
}

// Check makes one check. Errors are ErrEnded, those of the context, sdk.ErrNotProvided, and one of the process's own.
func (p *Process) Check(ctx context.Context, req *proto.CheckRequest) (*proto.CheckResponse, error) {
	resp, err := p.streams.check(ctx, p.client, req)
	if err != nil {
		return nil, p.fault(ctx, err)
	}
	return resp, nil
}

// Notify delivers one notification. Errors are as those of Check.
func (p *Process) Notify(ctx context.Context, req *proto.NotifyRequest) (*proto.NotifyResponse, error) {
	resp, err := p.client.Notify(ctx, req)
	if err != nil {
		return nil, p.fault(ctx, err)
	}
	return resp, nil
}

// settle is how long a call whose connection broke waits to hear how the process ended.
const settle = time.Second

// fault makes the error of a call out of gRPC's.
func (p *Process) fault(ctx context.Context, err error) error {
	s := status.Convert(err)
	if cause := ctx.Err(); cause != nil && (s.Code() == codes.Canceled || s.Code() == codes.DeadlineExceeded) {
		return fmt.Errorf("call the plugin: %w", cause)
	}
	switch s.Code() {
	case codes.Unavailable, codes.Canceled:
		timer := time.NewTimer(settle)
		defer timer.Stop()
		select {
		case <-p.done:
			return p.err
		case <-ctx.Done():
			return fmt.Errorf("call the plugin: %w", ctx.Err())
		case <-timer.C:
		}
		return fmt.Errorf("call the plugin: its process broke the connection: %s", sdk.CleanText(s.Message(), sdk.MaxMessage))
	case codes.DeadlineExceeded:
		return fmt.Errorf("call the plugin: %w", context.DeadlineExceeded)
	case codes.Unimplemented:
		return fmt.Errorf("call the plugin: %w", sdk.ErrNotProvided)
	case codes.ResourceExhausted:
		return fmt.Errorf("call the plugin: a request or an answer is too large: %s", sdk.CleanText(s.Message(), sdk.MaxMessage))
	}
	return fmt.Errorf("call the plugin: %s", sdk.CleanText(s.Message(), sdk.MaxMessage))
}

// Pid returns the number of the process, which belongs to it until Done is closed.
func (p *Process) Pid() int { return p.child.cmd.Process.Pid }

// Done is closed when the process has ended, was reaped, and nothing of it is left.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended, as an error that wraps ErrEnded; nil before Done is closed.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Kill ends the process and what it started at once. It returns before they are gone; Done tells when they are. Calls under
// way fail with ErrEnded.
func (p *Process) Kill() { p.child.kill() }

// Close asks the process to end and kills it when it has not by the time that ctx ends. It returns when nothing of it is
// left; the error says that it had to be killed. Calls under way fail.
func (p *Process) Close(ctx context.Context) error {
	// The answer does not matter, and seldom comes: the process closes the connection.
	_ = shutdown(ctx, p.conn)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	p.Kill()
	<-p.done
	return fmt.Errorf("end the plugin's process: it was killed, since it did not end by itself: %w", ctx.Err())
}

// CPU returns the processor time that the process has used, and its children that it waited for. It is still known after
// the end. Where the system does not tell before, it is 0 until then.
func (p *Process) CPU() time.Duration {
	select {
	case <-p.child.done:
		state := p.child.cmd.ProcessState
		return state.UserTime() + state.SystemTime()
	default:
	}
	if used, err := cpuOf(p.Pid()); err == nil {
		p.cpu.Store(int64(used))
	}
	return time.Duration(p.cpu.Load())
}

// Memory returns the bytes of memory that the process alone keeps; what it shares with files, such as its program, is not
// counted. 0 when it has ended, and where the system does not tell.
func (p *Process) Memory() uint64 {
	used, err := memoryOf(p.Pid())
	if err != nil {
		return 0
	}
	return used
}
