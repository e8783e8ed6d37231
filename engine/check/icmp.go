package check

import (
	"context"
	"errors"
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
		return define(e, "icmp", "Sends ICMP echo requests (ping) and waits for the replies. The latency is the mean round trip. "+
			"Loss is reckoned over the requests that were sent: one without a reply is lost when half a second was left for it, or half of the timeout where that is shorter. It needs the right to send them: "+
			"either the process's group is in the sysctl net.ipv4.ping_group_range, or the program has the capability cap_net_raw.",
			"192.0.2.7", icmpConfig{Count: 3, Interval: monitor.Duration(200 * time.Millisecond), MaxLoss: 80, Size: 56, family: family{"any"}},
			append(connectionVariables(),
				Variable{"metrics.loss", "number", "Share of the requests that were sent and got no reply, in percent.", "metrics.loss == 0"},
				Variable{"metrics.rtt_min", "number", "Shortest round trip in milliseconds; 0 without a reply.", "metrics.rtt_min < 20"},
				Variable{"metrics.rtt_avg", "number", "Mean round trip in milliseconds.", "metrics.rtt_avg < 50"},
				Variable{"metrics.rtt_max", "number", "Longest round trip in milliseconds.", "metrics.rtt_max < 100"}),
			func(target string, c icmpConfig, faults *monitor.Faults) prober { return newICMP(e, target, c, faults) })
	})
}

type icmpConfig struct {
	Count    int              `json:"count" doc:"How many echo requests are sent. All of them must go out within the timeout: (count - 1) times interval must be less." min:"1" max:"100"`
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

var _ timed = (*icmpCheck)(nil)

func (i *icmpCheck) fitsInto(timeout time.Duration, faults *monitor.Faults) {
	if need := time.Duration(i.count-1) * i.interval; need >= timeout {
		faults.Add("count", i.count, "%s at an interval of %s take %s, which does not fit into the timeout of %s",
			plural(i.count, "request"), human(i.interval), human(need), human(timeout))
	}
}

// maxPatience is how long before the end of a check a request must have gone out for its reply to be missed.
const maxPatience = 500 * time.Millisecond

func (i *icmpCheck) probe(ctx context.Context, req sdk.CheckRequest, s *seen) error {
	start := time.Now()
	timeout := timeoutOf(ctx, req, start)
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
	patience := maxPatience
	if timeout > 0 {
		patience = min(patience, timeout/2)
	}
	round, err := i.round(ctx, socket, addr)
	if err != nil {
		return err
	}
	lost := round.lost(patience)
	judged := round.replies + lost
	if judged == 0 {
		return &ownFault{err: fmt.Errorf("the time was over before %s could answer: %s were left for echo requests", i.shown(addr), human(round.end.Sub(round.start)))}
	}
	s.Latency = round.mean()
	s.Timing.FirstByte = s.Latency
	loss := 100 * float64(lost) / float64(judged)
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
		return &failure{phase: plural(len(round.requests), "echo request"), peer: i.shown(addr), err: os.ErrDeadlineExceeded}
	case loss > float64(i.maxLoss):
		text := fmt.Sprintf("%.0f %% of %s to %s got no reply, at most %d %% may", loss, plural(judged, "echo request"), i.shown(addr), i.maxLoss)
		if sent := len(round.requests); sent < i.count {
			text += fmt.Sprintf("; only %d of %d could be sent in time", sent, i.count)
		}
		if i.env.gapped(start, time.Now(), timeout) {
			return &ownFault{err: tooSlow(text)}
		}
		s.down("%s", text)
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
	start, end    time.Time
	requests      []request // that were sent
	replies       int
	sum, min, max time.Duration
	refusal       string // what a router said instead
}

// request is one echo request.
type request struct {
	sent              time.Time
	answered, refused bool
}

// lost counts the requests that a router refused, or that had the time for a reply and got none.
func (r *round) lost(patience time.Duration) int {
	n := 0
	for i := range r.requests {
		q := &r.requests[i]
		if q.refused || !q.answered && r.end.Sub(q.sent) >= patience {
			n++
		}
	}
	return n
}

func (r *round) mean() time.Duration {
	if r.replies == 0 {
		return 0
	}
	return r.sum / time.Duration(r.replies)
}

func (r *round) add(reply echoReply) {
	q := &r.requests[reply.index]
	if reply.refusal != "" {
		q.refused, r.refusal = true, reply.refusal
		return
	}
	q.answered = true
	rtt := reply.at.Sub(q.sent)
	if r.replies == 0 || rtt < r.min {
		r.min = rtt
	}
	r.max = max(r.max, rtt)
	r.sum += rtt
	r.replies++
}

// finish takes what has come and was not looked at yet.
func (r *round) finish(replies <-chan echoReply) {
	r.end = time.Now()
	for {
		select {
		case reply := <-replies:
			r.add(reply)
		default:
			return
		}
	}
}

// round sends the requests and gathers replies until all have come or the time is nearly over: what did come is then still
// told.
func (i *icmpCheck) round(ctx context.Context, socket *echoSocket, addr netip.Addr) (*round, error) {
	replies := make(chan echoReply, i.count)
	tokens := make([]echoToken, 0, i.count)
	defer func() { socket.forget(tokens) }()
	r := &round{start: time.Now(), requests: make([]request, 0, i.count)}
	var end <-chan time.Time
	if deadline, ok := ctx.Deadline(); ok {
		left := deadline.Sub(r.start)
		timer := time.NewTimer(left - min(left/20, 50*time.Millisecond))
		defer timer.Stop()
		end = timer.C
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for open := i.count; open > 0; {
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, ctx.Err()
			}
			r.finish(replies)
			return r, nil
		case <-end:
			r.finish(replies)
			return r, nil
		case <-next.C:
			n := len(tokens)
			token, err := socket.expect(addr, n, replies)
			if err != nil {
				return nil, &ownFault{err: err}
			}
			tokens = append(tokens, token)
			r.requests = append(r.requests, request{sent: time.Now()})
			if err := socket.send(addr, token, n, i.size); err != nil {
				return nil, &failure{phase: "sending an echo request", peer: i.shown(addr), err: err}
			}
			if len(tokens) < i.count {
				next.Reset(i.interval)
			}
		case reply := <-replies:
			open--
			r.add(reply)
		}
	}
	r.finish(replies)
	return r, nil
}
