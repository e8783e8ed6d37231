package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// visited is what built-in checks look at: a page for each monitor, and a port that answers whoever says its name. It notes
// when each one came.
type visited struct {
	began   time.Time
	page    *httptest.Server
	port    net.Listener
	serving sync.WaitGroup

	mu   sync.Mutex
	came map[string][]time.Duration // since began
}

func newVisited(t *testing.T) *visited {
	t.Helper()
	v := &visited{began: time.Now(), came: map[string][]time.Duration{}}
	v.page = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { v.note(r.URL.Path[1:]) }))
	var err error
	if v.port, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	v.serving.Go(func() {
		for {
			conn, err := v.port.Accept()
			if err != nil {
				return
			}
			v.serving.Go(func() {
				defer conn.Close()
				if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
					v.note(strings.TrimSpace(line))
					_, _ = io.WriteString(conn, "hello\n") // who does not hear it has been noted
				}
			})
		}
	})
	t.Cleanup(func() {
		v.page.Close()
		v.port.Close()
		v.serving.Wait()
	})
	return v
}

func (v *visited) note(name string) {
	now := time.Since(v.began)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.came[name] = append(v.came[name], now)
}

// all reports how many have come at least once.
func (v *visited) all() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.came)
}

// late is one check that came late.
type late struct {
	name string
	at   time.Duration // when it came
	by   time.Duration
}

// punctual is how close together the arrivals are of a check that is on time.
const punctual = 20 * time.Millisecond

// lates lists who came late by more than a bound after from. A check is due an interval after the one before, in the phase in
// which most of them came. Whoever leaves a turn out is an interval late.
func (v *visited) lates(interval, from, bound time.Duration) []late {
	v.mu.Lock()
	defer v.mu.Unlock()
	var found []late
	for name, came := range v.came {
		phase, most := time.Duration(0), 0
		for _, first := range came {
			together := 0
			for _, at := range came {
				if (at-first+1000*interval)%interval <= punctual {
					together++
				}
			}
			if together > most {
				phase, most = first%interval, together
			}
		}
		last := int64(-1)
		for _, at := range came {
			into := at - phase + punctual + interval // not below zero
			turn, by := int64(into/interval), into%interval-punctual
			if last >= 0 {
				by += time.Duration(max(turn-last-1, 0)) * interval
			}
			if last = turn; at > from && by > bound {
				found = append(found, late{name, at, by})
			}
		}
	}
	return found
}

// beside is a process that does nothing but tick. It tells how long this machine kept it from running: what it suffers, every
// other process suffers, whatever a plugin does.
type beside struct {
	began time.Time
	mu    sync.Mutex
	gaps  []gap
}

// gap is a time that the process stood still, at some moment before at.
type gap struct{ at, length time.Duration }

const besideEvery = 100 * time.Millisecond

func newBeside(t *testing.T, began time.Time) *beside {
	t.Helper()
	b := &beside{began: began}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program("ticker"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		ticker, answers := time.NewTicker(besideEvery), bufio.NewReader(out)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
			var us int64
			_, err := io.WriteString(in, "\n")
			if _, readErr := fmt.Fscanln(answers, &us); errors.Join(err, readErr) != nil {
				t.Errorf("the ticker beside: %v", errors.Join(err, readErr))
				return
			}
			b.mu.Lock()
			b.gaps = append(b.gaps, gap{time.Since(b.began), time.Duration(us) * time.Microsecond})
			b.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		close(stop)
		asking.Wait()
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("the ticker beside: %v", err)
		}
	})
	return b
}

// longest is the longest gap that has a part between from and to.
func (b *beside) longest(from, to time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := time.Duration(0)
	for _, g := range b.gaps {
		if g.at >= from && g.at-g.length <= to+2*besideEvery {
			most = max(most, g.length)
		}
	}
	return most
}

// TestLates holds the measure itself to rows of arrivals.
func TestLates(t *testing.T) {
	t.Parallel()
	const second = time.Second
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	v := &visited{came: map[string][]time.Duration{
		"punctual":    {ms(300), ms(1301), ms(2300), ms(3302)},
		"late once":   {ms(300), ms(1300), ms(2450), ms(3300)},
		"late first":  {ms(450), ms(1300), ms(2300), ms(3300)},
		"left out":    {ms(300), ms(1300), ms(3300)},
		"very late":   {ms(300), ms(1300), ms(2900), ms(3300)},
		"late before": {ms(100), ms(1400), ms(2100), ms(3100)},
	}}
	got := map[string]time.Duration{}
	for _, l := range v.lates(second, ms(1500), ms(100)) {
		got[l.name] = l.by
	}
	want := map[string]time.Duration{"late once": ms(150), "left out": second, "very late": ms(600)}
	for name, by := range got {
		if want[name] != by {
			t.Errorf("%s is late by %s, want %s", name, by, want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("late are %v, want %v", got, want)
	}
}
