//go:build unix

package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
	"github.com/tocsinhq/tocsin/host/reach"
)

// childWord makes this test binary a runner's stand-in: see TestInheritedByProcess.
const childWord = "broker-child"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == childWord {
		if err := child(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child is a process that has nothing but the inherited socket: it says hello, dials, and sends what it reads.
func child(address string) error {
	conn, err := Inherit(os.NewFile(3, "broker"))
	if err != nil {
		return err
	}
	client := NewClient(conn)
	ended := make(chan error, 1)
	go func() { ended <- client.Run() }()
	if err := client.Tell("hello"); err != nil {
		return err
	}
	access, err := reach.ParseAccess("tcp", address)
	if err != nil {
		return err
	}
	for range 3 {
		d, err := client.For(1).Dial(context.Background(), access)
		if err != nil {
			return err
		}
		line, err := bufio.NewReader(d.Conn).ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := io.WriteString(d.Conn, strings.ToUpper(line)); err != nil {
			return err
		}
		d.Conn.Close()
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("standard input: %w", err)
	}
	conn.Close()
	return <-ended
}

// settings is the policy that the server's settings make.
func settings(allow ...string) netpolicy.Policy {
	p := netpolicy.Policy{Setting: "plugins.allow_addresses"}
	for _, a := range allow {
		p.Allow = append(p.Allow, netip.MustParsePrefix(a))
	}
	return p
}

func grantOf(t testing.TB, text string) reach.Grant {
	t.Helper()
	var g reach.Grant
	for _, p := range strings.Fields(text) {
		parsed, err := reach.ParsePermission(p)
		if err != nil {
			t.Fatal(err)
		}
		g.Permissions = append(g.Permissions, parsed)
	}
	return g
}

func accessOf(t testing.TB, text string) reach.Access {
	t.Helper()
	scheme, address, _ := strings.Cut(text, "://")
	access, err := reach.ParseAccess(scheme, address)
	if err != nil {
		t.Fatal(err)
	}
	return access
}

func hostOf(t testing.TB, text string) reach.Host {
	t.Helper()
	host, err := reach.ParseHost(text)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// oneCall answers for call 1: the monitor's target is granted in every scheme.
func oneCall(t testing.TB, target string) func(uint64) (Call, bool) {
	t.Helper()
	grant := grantOf(t, "tcp://{target} udp://{target} dns://{target} icmp://{target} https://{target} http://{target}")
	return func(id uint64) (Call, bool) {
		return Call{Grant: grant, Fill: reach.Call{Target: target}, Deadline: time.Now().Add(10 * time.Second)}, id == 1
	}
}

// ends is a server and a client in this process, connected.
type ends struct {
	*Client
	net    Network  // of call 1
	server *Conn    // to be closed as if the server had gone
	runner *Conn    // to be closed as if the runner had gone
	served chan any // what Serve returned
	ran    chan any // what Run returned
}

// connected starts both ends. They are closed and waited for when the test ends.
func connected(t testing.TB, s *Server) *ends {
	t.Helper()
	server, runner := connPair(t)
	e := &ends{Client: NewClient(runner), server: server, runner: runner, served: make(chan any, 2), ran: make(chan any, 2)}
	e.net = e.For(1)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { e.served <- s.Serve(ctx, server) })
	work.Go(func() { e.ran <- e.Run() })
	t.Cleanup(func() {
		cancel()
		runner.Close()
		work.Wait()
	})
	return e
}

func connPair(t testing.TB) (server, runner *Conn) {
	t.Helper()
	server, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if runner, err = Inherit(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		runner.Close()
	})
	return server, runner
}

// echoing listens on loopback and sends back what it gets, until the test ends. The channel gets a value for every connection
// that has ended.
func echoing(t testing.TB) (address string, ended chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{}, 1<<20)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}) // by splice it would keep pipes open
				conn.Close()
				ended <- struct{}{}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		work.Wait()
	})
	return ln.Addr().String(), ended
}

// descriptors counts the open ones of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	dir, err := os.Open("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// timed gives a context that ends before the test binary would.
func timed(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
