// Package process is the contract of a plugin that is a process of its own: what such a process serves, and how the messages
// on the wire become the values of package sdk and back. The server's half of the connection is package host/process.
//
// An author's whole program is:
//
//	func main() { process.ServePlugin(sdk.Plugin{Check: check}) }
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// Version is the version of the contract, as go-plugin negotiates it.
const Version = 1

// MaxMessage bounds one message on the wire, in bytes, in both directions.
const MaxMessage = 2 << 20

// Window is what one side may send before the other has read it: a whole message, so that none waits for leave to go on.
const Window = MaxMessage + 64<<10

// name of the one plugin in the set that go-plugin asks for.
const name = "plugin"

// Handshake is how a process knows that Tocsin started it. It is no secret.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{MagicCookieKey: "TOCSIN_PLUGIN", MagicCookieValue: "tocsin.plugin.v1"}
}

// Plugins is the set of plugins by version, for go-plugin's VersionedPlugins. A server of plugins gives start, which is
// called once the socket listens; who calls plugins gives nil.
func Plugins(start func() (Service, error)) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{Version: {name: &wire{start: start}}}
}

// wire registers the service with gRPC.
type wire struct {
	plugin.NetRPCUnsupportedPlugin
	start func() (Service, error)
}

var _ plugin.GRPCPlugin = (*wire)(nil)

// GRPCServer implements plugin.GRPCPlugin.
func (w *wire) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if w.start == nil {
		return errors.New("there is nothing to serve")
	}
	service, err := w.start()
	if err != nil {
		return err
	}
	proto.RegisterPluginServer(s, &server{service: service})
	return nil
}

// GRPCClient implements plugin.GRPCPlugin.
func (w *wire) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return proto.NewPluginClient(c), nil
}

// Service answers calls, from many goroutines at once. Its context ends when the caller gives up. An error is a fault of the
// service, not of what it was asked; ErrNotProvided of package sdk says that it does not answer this call.
type Service interface {
	Check(ctx context.Context, req *proto.CheckRequest) (*proto.CheckResponse, error)
	Notify(ctx context.Context, req *proto.NotifyRequest) (*proto.NotifyResponse, error)
}

type server struct {
	proto.UnimplementedPluginServer
	service Service
}

// Check implements proto.PluginServer.
func (s *server) Check(ctx context.Context, req *proto.CheckRequest) (*proto.CheckResponse, error) {
	resp, err := s.service.Check(ctx, req)
	return resp, statusOf(err)
}

// Checks implements proto.PluginServer. The stream's one goroutine answers all that comes on it.
func (s *server) Checks(stream grpc.BidiStreamingServer[proto.CheckRequest, proto.CheckResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp, err := s.service.Check(stream.Context(), req)
		if err != nil {
			return statusOf(err)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// Notify implements proto.PluginServer.
func (s *server) Notify(ctx context.Context, req *proto.NotifyRequest) (*proto.NotifyResponse, error) {
	resp, err := s.service.Notify(ctx, req)
	return resp, statusOf(err)
}

// ServeOptions says what a process serves.
type ServeOptions struct {
	// Start makes the service. It is called once the socket listens and before the host is told so, and may take as long as the
	// host's start timeout lets it. Its error ends the process.
	Start func() (Service, error)
	// Log gets what go-plugin has to say, one line each. Nil discards it.
	Log io.Writer
}

// Serve serves until the host closes the connection or ends, and then returns. When it cannot serve, it writes one line that
// says why to standard error and ends the process with status 1. While it serves, what is written to os.Stdout and os.Stderr
// goes to the host as log lines.
func Serve(o ServeOptions) {
	stderr := os.Stderr // go-plugin puts others in its place
	if err := serve(o); err != nil {
		fmt.Fprintln(stderr, oneLine(err))
		os.Exit(1)
	}
}

func serve(o ServeOptions) error {
	cookie := Handshake()
	if os.Getenv(cookie.MagicCookieKey) != cookie.MagicCookieValue {
		return errors.New("this program is a plugin of Tocsin; install it with `tocsin plugin install`, which runs it")
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	failed, started := error(nil), false
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: cookie,
		VersionedPlugins: Plugins(func() (Service, error) {
			service, err := o.Start()
			failed, started = err, err == nil
			return service, err
		}),
		GRPCServer: newServer,
		Logger:     hclog.New(&hclog.LoggerOptions{Output: o.Log, Level: hclog.Warn, DisableTime: true}),
	})
	switch {
	case failed != nil:
		return failed
	case !started:
		return errors.New("cannot listen for the server that started this plugin")
	}
	return nil
}

// newServer makes a server that stops when the stream that carries standard output ends: the host opens it first and closes
// it last, so its end means that the host is gone.
func newServer(opts []grpc.ServerOption) *grpc.Server {
	var s *grpc.Server
	opts = append(opts,
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
		grpc.StaticStreamWindowSize(Window), grpc.StaticConnWindowSize(Window),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			err := handle(srv, stream)
			if strings.HasSuffix(info.FullMethod, "/StreamStdio") {
				go s.Stop()
			}
			return err
		}))
	s = grpc.NewServer(opts...)
	return s
}

// ServePlugin serves an author's functions; see Serve.
func ServePlugin(p sdk.Plugin) {
	Serve(ServeOptions{Start: func() (Service, error) {
		if p.Check == nil && p.Notify == nil {
			return nil, errors.New("the plugin answers no call: neither Check nor Notify is set")
		}
		return author{p}, nil
	}})
}
