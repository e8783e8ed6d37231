package check

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	builtin(func(e *env) Kind {
		return define(e, "icmp", "Sends ICMP echo requests (ping) and waits for the replies. The latency is the mean round trip. It needs the right to send them: "+
			"either the process's group is in the sysctl net.ipv4.ping_group_range, or the program has the capability cap_net_raw.",
			"192.0.2.7", icmpConfig{Count: 3, Interval: monitor.Duration(200 * time.Millisecond), MaxLoss: 80, Size: 56, family: family{"any"}},
			append(connectionVariables(),
				Variable{"metrics.loss", "number", "Share of the requests that got no reply, in percent.", "metrics.loss == 0"},
				Variable{"metrics.rtt_min", "number", "Shortest round trip in milliseconds; 0 without a reply.", "metrics.rtt_min < 20"},
				Variable{"metrics.rtt_avg", "number", "Mean round trip in milliseconds.", "metrics.rtt_avg < 50"},
				Variable{"metrics.rtt_max", "number", "Longest round trip in milliseconds.", "metrics.rtt_max < 100"}),
			func(target string, c icmpConfig, faults *monitor.Faults) prober { return newICMP(e, target, c, faults) })
	})
}

type icmpConfig struct {
	Count    int              `json:"count" doc:"How many echo requests are sent." min:"1" max:"100"`
	Interval monitor.Duration `json:"interval" doc:"Time between two requests." min:"10ms" max:"10s"`
	MaxLoss  int              `json:"max_loss" doc:"Share of requests without a reply that is still up, in percent. No reply at all is always down." min:"0" max:"99"`
	Size     int              `json:"size" doc:"Bytes of payload in a request." min:"16" max:"65000"`
	family
}

type icmpCheck struct {
	env      *env
	host     string
	addr     netip.Addr // valid: no resolver is asked
	network  string     // ip, ip4 or ip6
	count    int
	interval time.Duration
	maxLoss  int
	size     int
}

func newICMP(e *env, target string, c icmpConfig, faults *monitor.Faults) *icmpCheck {
	i := &icmpCheck{
		env: e, network: c.network("ip"), count: c.Count, interval: time.Duration(c.Interval), maxLoss: c.MaxLoss, size: c.Size,
	}
	err := checkText(target)
	if err == nil {
		i.host, i.addr, err = parseHost(target)
	}
	if err != nil {
		faults.Add("target", shownTarget(target), "%v", err)
	}
	c.fits(i.addr, faults)
	return i
}

func (i *icmpCheck) probe(ctx context.Context, req sdk.CheckRequest, s *seen) error {
	addr, err := i.resolve(ctx, &s.Timing)
	if err != nil {
		return err
	}
	s.Address = addr.String()
	if err := i.env.policy.Check(addr); err != nil {
		return err
	}
	socket, err := i.env.icmp.socket(addr.Is6())
	if err != nil {
		return &ownFault{err: err}
	}
	round, err := i.round(ctx, socket, addr)
	if err != nil {
		return err
	}
	s.Latency = round.mean()
	s.Timing.FirstByte = s.Latency
	loss := 100 * float64(i.count-round.replies) / float64(i.count)
	s.Metrics = []sdk.Metric{
		{Name: "loss", Value: math.Round(loss*10) / 10, Unit: "%"},
		{Name: "rtt_min", Value: milliseconds(round.min), Unit: "ms"},
		{Name: "rtt_avg", Value: milliseconds(round.mean()), Unit: "ms"},
		{Name: "rtt_max", Value: milliseconds(round.max), Unit: "ms"},
	}
	switch {
	case round.replies == 0 && round.refusal != "":
		s.down("%s cannot be reached: %s", i.shown(addr), round.refusal)
	case round.replies == 0:
		return &failure{phase: plural(i.count, "echo request"), peer: i.shown(addr), err: os.ErrDeadlineExceeded}
	case loss > float64(i.maxLoss):
		s.down("%.0f %% of %s to %s got no reply, at most %d %% may", loss, plural(i.count, "echo request"), i.shown(addr), i.maxLoss)
	default:
		s.up("reply from " + i.host)
	}
	return nil
}

// shown names the target with its address.
func (i *icmpCheck) shown(addr netip.Addr) string {
	if i.addr.IsValid() {
		return i.host
	}
	return fmt.Sprintf("%s (%s)", i.host, addr)
}

func milliseconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

func (i *icmpCheck) resolve(ctx context.Context, timing *sdk.Timing) (netip.Addr, error) {
	if i.addr.IsValid() {
		return i.addr.Unmap(), nil
	}
	start := time.Now()
	addrs, err := i.env.resolver.LookupNetIP(ctx, i.network, i.host)
	timing.DNS = time.Since(start)
	if err == nil && len(addrs) == 0 {
		err = &net.AddrError{Err: "has no " + familyName(i.network) + " address", Addr: i.host}
	}
	if err != nil {
		return netip.Addr{}, &failure{phase: "resolving", peer: i.host, err: err}
	}
	return addrs[0].Unmap(), nil
}

// round is what came back of one check's requests.
type round struct {
	replies       int
	sum, min, max time.Duration
	refusal       string // what a router said instead
}

func (r *round) mean() time.Duration {
	if r.replies == 0 {
		return 0
	}
	return r.sum / time.Duration(r.replies)
}

func (r *round) add(rtt time.Duration) {
	if r.replies == 0 || rtt < r.min {
		r.min = rtt
	}
	r.max = max(r.max, rtt)
	r.sum += rtt
	r.replies++
}

// round sends the requests and gathers replies until all have come or the time is nearly over: what did come is then still
// told.
func (i *icmpCheck) round(ctx context.Context, socket *echoSocket, addr netip.Addr) (*round, error) {
	replies := make(chan echoReply, i.count)
	sent := make([]time.Time, i.count)
	tokens := make([]echoToken, 0, i.count)
	defer func() { socket.forget(tokens) }()
	var end <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		timer := time.NewTimer(left - min(left/20, 50*time.Millisecond))
		defer timer.Stop()
		end = timer.C
	}
	next := time.NewTimer(0)
	defer next.Stop()
	r := &round{}
	for open := i.count; open > 0; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-end:
			return r, nil
		case <-next.C:
			n := len(tokens)
			token, err := socket.expect(addr, n, replies)
			if err != nil {
				return nil, &ownFault{err: err}
			}
			tokens = append(tokens, token)
			sent[n] = time.Now()
			if err := socket.send(addr, token, n, i.size); err != nil {
				return nil, &failure{phase: "sending an echo request", peer: i.shown(addr), err: err}
			}
			if len(tokens) < i.count {
				next.Reset(i.interval)
			}
		case reply := <-replies:
			open--
			if reply.refusal != "" {
				r.refusal = reply.refusal
				continue
			}
			r.add(reply.at.Sub(sent[reply.index]))
		}
	}
	return r, nil
}
