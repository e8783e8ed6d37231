package netfs

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	esys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/tocsinhq/tocsin/host/broker"
)

// TestBroker puts the broker between the guest's files and the network, as in a runner.
func TestBroker(t *testing.T) {
	t.Parallel()
	inside, child, err := broker.Pair()
	if err != nil {
		t.Fatal(err)
	}
	outside, err := broker.Inherit(child)
	if err != nil {
		t.Fatal(err)
	}
	n := granting(t, "tcp://a.test:*", "http://a.test:*", "udp://a.test:*")
	deadline := time.Now().Add(20 * time.Second)
	server := broker.NewServer(broker.ServerOptions{
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
		Calls: func(id uint64) (broker.Call, bool) {
			return broker.Call{Grant: n.grant, Deadline: deadline}, id == 1
		},
	})
	client := broker.NewClient(outside)
	ctx, cancel := context.WithCancel(context.Background())
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(ctx, inside) }()
	go func() { ran <- client.Run() }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	f := newFS(t, Options{Network: client.For(1), Deadline: deadline})
	c := open(t, f, "tcp/a.test:"+listen(t, echoTCP))
	write(t, c, "hello")
	if got := read(t, c); got != "hello" {
		t.Errorf("read %q", got)
	}
	r := answered(t, f, `{"url":"http://a.test:`+serveHTTP(t, nil, show)+`/x"}`)
	if r.Status != 200 || !strings.HasPrefix(*r.Body, "GET /x ") || !strings.HasPrefix(r.Remote, "127.0.0.1:") || r.Timing.Connect == 0 {
		t.Errorf("answer %+v", r)
	}
	if _, errno := f.OpenFile("tcp/b.test:80", esys.O_RDWR, 0); errno != esys.EACCES {
		t.Errorf("denied: %v", errno)
	}
	failed(t, f, broker.Denied, "tcp://b.test:80")
	if _, errno := f.OpenFile("tcp/a.test:1", esys.O_RDWR, 0); errno != esys.EIO {
		t.Errorf("refused: %v", errno)
	}
	failed(t, f, broker.Refused)
}
