//go:build linux

// Command escapee is a native program in the guest's place, as if WebAssembly had failed. It starts with the very code of the
// runner, and behind the wall it tries what no plugin may, and says what came of it. Before the words of the server it takes
// arguments that only it understands: without=LAYER,… leaves layers of the sandbox out, lie=WHAT makes it a runner that lies.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/confine"
	"github.com/tocsinhq/tocsin/host/wasm/runner"
	"github.com/tocsinhq/tocsin/sdk/process"
	"github.com/tocsinhq/tocsin/sdk/proto"
	"golang.org/x/sys/unix"
)

func main() {
	args, variant, lie := os.Args[1:], runner.Variant{}, ""
	for ; len(args) > 0; args = args[1:] {
		name, value, _ := strings.Cut(args[0], "=")
		if name == "without" {
			variant.Without = strings.Split(value, ",")
		} else if name == "lie" {
			lie = value
		} else {
			break
		}
	}
	if len(args) > 0 && args[0] == runner.CompileWord && lie == "compiler" {
		for { // and it is stopped when its time is over
			fmt.Println(strings.Repeat("\x1b[31mred ", 8<<10))
		}
	}
	if len(args) > 0 && args[0] == runner.RunWord {
		switch lie {
		case "handshake":
			fmt.Println("1|1|tcp|127.0.0.1:1|grpc")
			hang()
		case "version":
			fmt.Println("1|99|unix|/run/plugin|grpc")
			hang()
		case "silence":
			hang()
		}
	}
	variant.Prepare = func(runner.Setup) (runner.Load, error) {
		runtimes := runtimeFiles()
		return func(client *broker.Client, seal func() error) (process.Service, error) {
			if lie == "first" { // nobody lies before the wall is up; this is to see that it would not help
				if err := client.Tell(runner.Hello{Ready: true}); err != nil {
					return nil, err
				}
			}
			if err := seal(); err != nil {
				return nil, err
			}
			if lie == "layers" {
				return nil, errors.Join(errors.New("it lied"), client.Tell(runner.Hello{Sandbox: pretend(), Ready: true}))
			}
			return &escapee{client, runtimes}, nil
		}, nil
	}
	code, ok := runner.ChildAs(args, variant)
	if !ok {
		fmt.Fprintln(os.Stderr, "this program only runs for tests")
		code = 2
	}
	os.Exit(code)
}

// hang waits for longer than any test.
func hang() { <-time.After(time.Hour) }

// pretend is a report in which everything holds.
func pretend() confine.Report {
	r := confine.Report{System: "linux"}
	for _, name := range []string{
		confine.LayerProcess, confine.LayerPrivileges, confine.LayerLimits, confine.LayerNetwork, confine.LayerLandlock, confine.LayerSeccomp,
		confine.LayerSealed, confine.LayerNoSockets, confine.LayerNoFiles, confine.LayerNoPrograms, confine.LayerNoSignals,
	} {
		r.Layers = append(r.Layers, confine.Layer{Name: name, Holds: true, Detail: "pretended"})
	}
	return r
}

// escapee answers calls as what its configuration says.
type escapee struct {
	client   *broker.Client
	runtimes map[int]bool // descriptors of Go's runtime
}

var _ process.Service = (*escapee)(nil)

// job is what the test wants: the configuration of a check.
type job struct {
	Do        string
	Harmless  bool     // leave out what would do harm if it succeeded
	Server    int      // pid
	Neighbour int      // pid of another runner
	Files     []string // of the server and of others
	Folders   []string
	Sockets   []string // Unix sockets
	Other     string   // HOST:PORT that is not granted
	Hosts     []string // accesses that are not granted
	Frame     []byte   // for the broker
	Times     int
	Secret    string
}

// attempts are what was tried, each with what came of it: "success: ", "refused: " or "failed: " before its name, and after it
// why it failed when it was not refused.
type attempts []string

// try makes an attempt. It was refused when the error says no, rather than that there is nothing.
func (l *attempts) try(name string, f func() error) {
	err := f()
	var answer *broker.Error
	switch {
	case err == nil:
		name = "success: " + name
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOSYS),
		errors.As(err, &answer) && (answer.Kind == broker.Denied || answer.Kind == broker.Invalid):
		name = "refused: " + name
	default:
		name = "failed: " + name + ": " + err.Error()
	}
	*l = append(*l, name)
}

// Notify implements process.Service.
func (e *escapee) Notify(ctx context.Context, in *proto.NotifyRequest) (*proto.NotifyResponse, error) {
	_, err := e.Check(ctx, &proto.CheckRequest{Call: in.GetCall(), Config: in.GetConfig()})
	return &proto.NotifyResponse{}, err
}

// Check implements process.Service.
func (e *escapee) Check(ctx context.Context, in *proto.CheckRequest) (*proto.CheckResponse, error) {
	var j job
	if err := json.Unmarshal(in.GetConfig(), &j); err != nil {
		return nil, err
	}
	up := &proto.CheckResponse{Status: proto.Status_STATUS_UP, Message: j.Do}
	var list attempts
	switch j.Do {
	case "":
	case "hold": // a granted connection, until the other side ends it
		conn, err := e.dial(ctx, in, "tcp")
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		for buffer := make([]byte, 1); err == nil; {
			_, err = conn.Read(buffer)
		}
	case "attack":
		e.passed(ctx, in, j, &list)
		e.ask(ctx, in, j, &list)
		sockets(j, &list)
		files(j, &list)
		processes(j, &list)
		inventory(e.runtimes, &list)
		if !j.Harmless {
			sweep(&list)
		}
	case "flood":
		// What the answer is does not matter here, only that none is a connection.
		for i := range j.Times {
			if conn, err := e.dialTo(ctx, in.GetCall(), "tcp", j.Other); err == nil {
				conn.Close()
				list.try(fmt.Sprint("request ", i), func() error { return nil })
			}
		}
	case "frame":
		if err := raw(j.Frame); err != nil {
			return nil, err
		}
		<-time.After(time.Minute) // the server ends this before
	case "forge":
		for range 2 {
			if err := e.client.Tell(runner.Hello{Sandbox: pretend(), Ready: true}); err != nil {
				return nil, err
			}
		}
		<-time.After(time.Minute)
	case "unplug":
		if err := unix.Shutdown(brokerSocket(), unix.SHUT_RDWR); err != nil {
			return nil, err
		}
		<-time.After(time.Minute)
	case "die":
		// As a crash may write what it was given, past what go-plugin puts in the place of os.Stderr.
		if _, err := unix.Write(2, []byte("fatal: "+j.Secret+"\n")); err != nil {
			return nil, err
		}
		os.Exit(7)
	case "slow":
		<-time.After(time.Duration(j.Times) * time.Millisecond)
	case "stuck":
		hang()
	case "huge":
		up.Message = strings.Repeat("x", 3<<20)
	case "odd":
		up.Status, up.LatencyUs = 77, -1
	case "boast":
		up.Report = &proto.Report{BytesRead: 1 << 63, BytesWritten: 1 << 63}
	default:
		return nil, fmt.Errorf("do what? %q", j.Do)
	}
	if list == nil {
		return up, nil
	}
	up.Report = &proto.Report{}
	for some := range slices.Chunk(list, 20) { // a log has room for a thousand lines
		text, err := json.Marshal(some)
		if err != nil {
			return nil, err
		}
		up.Report.Log = append(up.Report.Log, &proto.LogLine{Text: string(text)})
	}
	return up, nil
}
