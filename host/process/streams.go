package process

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsinhq/tocsin/sdk/proto"
)

// streams makes checks over streams that are kept: a message on one costs half as much as a call of its own. Each has one
// check under way at a time. The zero value is ready.
type streams struct {
	mu   sync.Mutex
	idle []*checks
	none bool // the process has no streams; every check is a call of its own
}

// checks is one stream.
type checks struct {
	grpc.BidiStreamingClient[proto.CheckRequest, proto.CheckResponse]
	end context.CancelFunc
}

// check makes a check. A stream that failed, or whose check was cancelled, is ended and not used again.
func (s *streams) check(ctx context.Context, client proto.PluginClient, req *proto.CheckRequest) (*proto.CheckResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	c, none, err := s.take(ctx, client)
	if err != nil {
		return nil, err
	}
	if none {
		return client.Check(ctx, req)
	}
	stop := context.AfterFunc(ctx, c.end)
	resp, err := c.ask(req)
	if cancelled := !stop(); err != nil || cancelled {
		c.end()
		if status.Code(err) == codes.Unimplemented && !cancelled {
			return s.without(ctx, client, req)
		}
		return resp, err
	}
	s.mu.Lock()
	s.idle = append(s.idle, c)
	s.mu.Unlock()
	return resp, nil
}

// take gives an idle stream, or a new one.
func (s *streams) take(ctx context.Context, client proto.PluginClient) (c *checks, none bool, err error) {
	s.mu.Lock()
	none = s.none
	if n := len(s.idle); n > 0 {
		c, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	if c != nil || none {
		return c, none, nil
	}
	// The stream outlives this check. It ends with the connection at the latest.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stream, err := client.Checks(life)
	if err != nil {
		end()
		return nil, false, err
	}
	return &checks{stream, end}, false, nil
}

// without makes the check of a process that turned out to have no streams.
func (s *streams) without(ctx context.Context, client proto.PluginClient, req *proto.CheckRequest) (*proto.CheckResponse, error) {
	s.mu.Lock()
	s.none = true
	s.mu.Unlock()
	return client.Check(ctx, req)
}

func (c *checks) ask(req *proto.CheckRequest) (*proto.CheckResponse, error) {
	// When sending fails with io.EOF the stream has ended, and receiving tells why.
	if err := c.Send(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return c.Recv()
}
