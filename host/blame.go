package host

import (
	"errors"
	"fmt"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// strikes are the kills that one monitor's calls caused.
type strikes struct {
	name  string
	times []time.Time // within blameFor
	back  backoff     // of the runner of its own
}

const (
	blameFor        = 10 * time.Minute // how long a kill counts
	strikesToApart  = 2                // kills within that time after which a monitor's calls run in a runner of their own
	guiltyToDisable = 3                // monitors with kills within that time after which the plugin is disabled
	userFor         = time.Hour        // how long a monitor that calls no more counts as a user of the plugin
)

// killed notes that a runner had to be ended, and because of which call; nil: nobody knows which of several. From then on
// no call goes to it. What it returns tells of that, and may take its time.
func (p *plugin) killed(c *child, cause error, k *call) (say func()) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(now)
	p.drop(c)
	if k == nil {
		p.failed.fail(now, cause, 1)
		return func() { p.host.log.Error("a plugin was stopped", "plugin", p.name, "cause", cause) }
	}
	s := p.apart[k.monitor]
	if s == nil {
		s = &strikes{}
		p.apart[k.monitor] = s
	}
	s.name = k.name
	s.times = append(s.times, now)
	if len(s.times) >= strikesToApart {
		s.back.fail(now, cause, 0)
	}
	count := len(s.times)
	reason := ""
	if p.hopeless(now) && !p.record.Disabled && !p.trial {
		reason = sdk.CleanText(fmt.Sprintf("it was stopped again and again, last because a call for the monitor %q %s; look at its log, then enable it again",
			k.name, cause), maxText)
		p.record.Disabled, p.record.DisabledReason = true, reason // at once, whether or not it can be stored
	}
	return func() {
		p.host.log.Error("a plugin was stopped", "plugin", p.name, "monitor", k.name, "cause", cause, "times", count)
		if reason != "" {
			p.host.disableBadly(p, reason)
		}
	}
}

// forget drops kills and users that lie too far back. The caller holds mu.
func (p *plugin) forget(now time.Time) {
	for id, s := range p.apart {
		for len(s.times) > 0 && now.Sub(s.times[0]) > blameFor {
			s.times = s.times[1:]
		}
		if wait, _ := s.back.wait(now); len(s.times) == 0 && wait == 0 {
			delete(p.apart, id)
		}
	}
	for id, at := range p.users {
		if now.Sub(at) > userFor {
			delete(p.users, id)
		}
	}
}

// hopeless reports whether the plugin is to be disabled: several monitors caused kills lately, or each one that uses it did
// so again and again. The caller holds mu.
func (p *plugin) hopeless(now time.Time) bool {
	guilty, again := 0, 0
	for _, s := range p.apart {
		recent := 0
		for _, at := range s.times {
			if now.Sub(at) <= blameFor {
				recent++
			}
		}
		if recent > 0 {
			guilty++
		}
		if recent >= strikesToApart {
			again++
		}
	}
	return guilty >= guiltyToDisable || again > 0 && again >= len(p.users)
}

// setApart reports whether the calls of a monitor run in a runner of their own. The caller holds mu.
func (p *plugin) setApart(id string) bool {
	s := p.apart[id]
	return s != nil && len(s.times) >= strikesToApart
}

// runnerFor gives the runner for a monitor's next call, and starts it when there is none. It does not wait for it. The error
// says why there is none now.
func (p *plugin) runnerFor(id string) (*child, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if condition, why := p.condition(); condition != monitor.PluginReady {
		return nil, fmt.Errorf("plugin %s is %s: %s", p.name, condition, why)
	}
	now := time.Now()
	if p.host.ctx.Err() != nil {
		return nil, errStopping
	}
	if p.setApart(id) {
		if c := p.private[id]; c != nil {
			return c, nil
		}
		s := p.apart[id]
		if wait, why := s.back.wait(now); wait > 0 {
			return nil, fmt.Errorf("plugin %s runs apart for the monitor %q after it was stopped %d times (%w) and is started again in %s",
				p.name, s.name, len(s.times), why, wait.Round(time.Second))
		}
		c := p.start(id)
		if c == nil {
			return nil, errStopping
		}
		p.private[id] = c
		return c, nil
	}
	if p.shared != nil {
		return p.shared, nil
	}
	if wait, why := p.failed.wait(now); wait > 0 {
		return nil, fmt.Errorf("plugin %s could not be run (%w) and is tried again in %s", p.name, why, max(wait.Round(time.Second), time.Second))
	}
	c := p.start("")
	if c == nil {
		return nil, errStopping
	}
	p.shared = c
	return c, nil
}

// failedStart notes a runner that never was ready. What it returns tells of that, and may take its time.
func (p *plugin) failedStart(c *child, err error) (say func()) {
	quiet := func() {}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(c)
	if cause := c.ending(); errors.Is(cause, errStopping) || errors.Is(cause, errRetired) {
		return quiet // nobody wanted it any more
	}
	if s := p.apart[c.apart]; s != nil {
		s.back.fail(time.Now(), err, 0)
	} else {
		p.failed.fail(time.Now(), err, 0)
	}
	if layers := c.layers(); len(layers) > 0 {
		p.sandbox = layers
	}
	var broken *brokenError
	isBroken := errors.As(err, &broken)
	if isBroken {
		p.broken = err.Error()
	}
	if p.trial {
		return quiet // whoever tries it is told
	}
	return func() {
		p.host.log.Error("a plugin could not be started", "plugin", p.name, "error", err)
		if isBroken {
			p.host.changed(p.name)
		}
	}
}

// watched notes what a runner that is ready told of itself.
func (p *plugin) watched(c *child) {
	layers := c.layers()
	missing := c.missing()
	p.mu.Lock()
	p.sandbox, p.degraded = layers, len(missing) > 0
	p.mu.Unlock()
}

// ended gives up a runner whose process is gone.
func (p *plugin) ended(c *child) {
	p.tally.cpuEnded.Add(int64(c.proc.CPU()))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(c)
}

// idleAfter is how long a runner without calls is kept.
const idleAfter = 5 * time.Minute

// tend looks at the idleness of the runners.
func (p *plugin) tend(now time.Time) {
	p.mu.Lock()
	p.forget(now)
	idle := max(idleAfter, 2*p.longest)
	var gone []*child
	for _, c := range p.children() {
		if c.running() != nil && (c.idleSince(now) > idle || c.apart != "" && !p.setApart(c.apart)) {
			p.drop(c)
			gone = append(gone, c)
		}
	}
	p.mu.Unlock()
	for _, c := range gone {
		c.retire()
	}
}

// drop forgets a runner, so that no more calls go to it. The caller holds mu.
func (p *plugin) drop(c *child) {
	if p.shared == c {
		p.shared = nil
	}
	if p.private[c.apart] == c {
		delete(p.private, c.apart)
	}
}

// idleSince is for how long the runner has had no call; 0 while it has one.
func (c *child) idleSince(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) > 0 {
		return 0
	}
	return now.Sub(c.used)
}
