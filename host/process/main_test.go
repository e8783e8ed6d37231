//go:build unix

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/sdk"
	wire "github.com/tocsinhq/tocsin/sdk/process"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// TestMain runs the tests, or one of the programs below: the tests start this very file with one of their names as its first
// argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if program, ok := programs()[os.Args[1]]; ok {
			program()
			return
		}
	}
	goleak.VerifyTestMain(m)
}

func programs() map[string]func() {
	return map[string]func(){
		"plugin": servePlugin,
		"empty":  func() { wire.Serve(wire.ServeOptions{Start: func() (wire.Service, error) { return empty{}, nil }}) },
		"refuses": func() {
			wire.Serve(wire.ServeOptions{Start: func() (wire.Service, error) { return nil, errors.New("no\nway") }})
		},
		"silent":  func() { <-time.After(time.Hour) },
		"rubbish": func() { os.Stdout.WriteString("hello, I am no plugin\n"); <-time.After(time.Hour) },
		"endless": func() {
			for {
				os.Stdout.WriteString("aaaaaaaaaaaaaaaaaaaaaaaa")
			}
		},
		"elsewhere": func() { os.Stdout.WriteString("1|1|unix|/var/run/docker.sock|grpc\n"); <-time.After(time.Hour) },
		"tcp":       func() { os.Stdout.WriteString("1|1|tcp|127.0.0.1:80|grpc\n"); <-time.After(time.Hour) },
		"netrpc": func() {
			os.Stdout.WriteString("1|1|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/x|netrpc\n")
			<-time.After(time.Hour)
		},
		"version": func() {
			os.Stdout.WriteString("1|2|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/x|grpc\n")
			<-time.After(time.Hour)
		},
		"nobody": func() {
			os.Stdout.WriteString("1|1|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/x|grpc\n")
			<-time.After(time.Hour)
		},
		"exits":       func() { fmt.Fprintln(os.Stderr, "the first line\nI do not want to"); os.Exit(3) },
		"announces":   func() { fmt.Fprintln(os.Stderr, "here"); <-time.After(time.Hour) },
		"grandparent": serveMiddle,
	}
}

// servePlugin answers what the target asks for.
func servePlugin() {
	wire.ServePlugin(sdk.Plugin{
		Check: func(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
			word, rest, _ := strings.Cut(req.Target, " ")
			switch word {
			case "environment":
				text, err := json.Marshal(os.Environ())
				return sdk.Result{Status: sdk.Up, State: string(text)}, err
			case "wait":
				<-ctx.Done()
				return sdk.Result{}, ctx.Err()
			case "hang":
				fmt.Fprintln(os.Stderr, "hanging")
				<-time.After(time.Hour)
			case "panic":
				panic(rest)
			case "exit":
				fmt.Fprintln(os.NewFile(2, "stderr"), rest)
				os.Exit(7)
			case "large":
				return sdk.Result{State: strings.Repeat("x", wire.MaxMessage)}, nil
			case "child": // one that holds on to our descriptors
				cmd := exec.Command("/bin/sleep", "3600")
				cmd.Stdout, cmd.Stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
				cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: rest == "away"}
				if err := cmd.Start(); err != nil {
					return sdk.Result{}, err
				}
				return sdk.Result{Status: sdk.Up, State: fmt.Sprint(cmd.Process.Pid)}, nil
			case "print":
				fmt.Fprintln(os.Stdout, "on stdout")
				fmt.Fprint(os.Stderr, rest+"\n")
				fmt.Fprintln(os.NewFile(2, "stderr"), "directly")
			case "hang-up":
				for fd := 3; fd < 100; fd++ {
					syscall.Shutdown(fd, syscall.SHUT_RDWR)
				}
				<-time.After(time.Hour)
			case "burn":
				for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
				}
			}
			return sdk.Result{Status: sdk.Up, Message: req.Target, Latency: time.Millisecond}, nil
		},
	})
}

// empty answers at once.
type empty struct{}

func (empty) Check(context.Context, *proto.CheckRequest) (*proto.CheckResponse, error) {
	return &proto.CheckResponse{Status: proto.Status_STATUS_UP}, nil
}

func (empty) Notify(context.Context, *proto.NotifyRequest) (*proto.NotifyResponse, error) {
	return &proto.NotifyResponse{}, nil
}

// serveMiddle starts a plugin as the server does, tells its number and waits to be killed.
func serveMiddle() {
	p, err := Start(context.Background(), Options{
		Spawner: NewSpawner(), Command: []string{os.Args[0], os.Args[2]}, SocketDir: os.Args[3],
	})
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, p.Pid())
	<-time.After(time.Hour)
}
