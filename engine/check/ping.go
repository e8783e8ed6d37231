package check

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// pingSize is the payload of an echo request that somebody else asked for, in bytes.
const pingSize = 56

// Ping sends one ICMP echo request over the sockets of the icmp kind and waits for its reply, which it times. The registry's
// address policy counts. Without a reply it returns the context's error.
func (r *Registry) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	if err := r.env.policy.Check(addr); err != nil {
		return 0, err
	}
	socket, err := r.env.icmp.socket(addr.Is6())
	if err != nil {
		return 0, err
	}
	replies := make(chan echoReply, 1)
	token, err := socket.expect(addr, 0, replies)
	if err != nil {
		return 0, err
	}
	defer socket.forget([]echoToken{token})
	sent := time.Now()
	if err := socket.send(addr, token, 0, pingSize); err != nil {
		return 0, fmt.Errorf("send an echo request: %w", err)
	}
	select {
	case reply := <-replies:
		if reply.refusal != "" {
			return 0, fmt.Errorf("no reply: %s", reply.refusal)
		}
		return reply.at.Sub(sent), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
