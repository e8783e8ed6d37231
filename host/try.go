package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/sdk"
)

// Trial is one call of a plugin that is not installed.
type Trial struct {
	Dir          string // the plugin's folder
	Call         string // check or notify; empty: the first that the plugin provides
	Target       string
	Config       json.RawMessage                     // nil is an empty object
	Timeout      time.Duration                       // 0 is the manifest's
	AllowPrivate bool                                // what the manifest names may be loopback or private
	Options      Options                             // of the host that runs it; Dir and Records are not used
	Log          func(level slog.Level, text string) // lines of the plugin
	Trace        func(broker.Trace)                  // every connection that it asked for, with the verdict
}

// Outcome is what came of a Trial.
type Outcome struct {
	Request  json.RawMessage // as the plugin read it
	Response json.RawMessage // of a call that went well, as the server understood it
	Status   sdk.Status      // of a check
	Err      error           // of the call itself
	Took     time.Duration   // of the call, without the start
	Manifest sdk.Manifest
	Sandbox  []monitor.SandboxLayer
}

// Try installs a plugin's folder for the time of one call, grants what it asks for, and makes the call, behind the same walls
// as a server does. The error is about the plugin's files, or about starting it.
func Try(ctx context.Context, t Trial) (out Outcome, err error) {
	contents, err := ReadDir(t.Dir)
	if err != nil {
		return out, err
	}
	dir, err := os.MkdirTemp("", "tocsin-try-")
	if err != nil {
		return out, fmt.Errorf("make a folder for the trial: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o := t.Options
	o.Dir, o.Records = dir, &memory{}
	o.Trace = func(_ string, trace broker.Trace) {
		if t.Trace != nil {
			t.Trace(trace)
		}
	}
	h, err := New(ctx, o)
	if err != nil {
		return out, err
	}
	h.hear = t.Log
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		err = errors.Join(err, h.Close(closing))
	}()
	view, err := h.install(ctx, contents, monitor.PluginInstall{Grant: true, AllowPrivate: t.AllowPrivate, By: "you"})
	if err != nil {
		return out, err
	}
	out.Manifest = view.Manifest
	if t.Call == "" {
		t.Call = view.Manifest.Provides[0]
	}
	if t.Timeout == 0 {
		t.Timeout = time.Duration(view.InForce.Timeout)
	}
	if len(t.Config) == 0 {
		t.Config = json.RawMessage("{}")
	}
	h.Warm(view.Name)
	p, err := h.lookup(view.Name)
	if err != nil {
		return out, err
	}
	if _, err := p.ready(ctx, ""); err != nil {
		return out, err
	}
	began := time.Now()
	if t.Call == "notify" {
		err = t.notify(ctx, h, view.Name, &out)
	} else {
		err = t.check(ctx, h, view.Name, &out)
	}
	out.Took = time.Since(began)
	if after, viewErr := h.Plugin(view.Name); viewErr == nil {
		out.Sandbox = after.Sandbox
	}
	return out, err
}

// ref names the monitor of a trial.
func (t Trial) ref(name string) sdk.Ref {
	return sdk.Ref{ID: "00000000000000000000000000", Name: "trial", Kind: name, Target: t.Target, Labels: map[string]string{}}
}

func (t Trial) check(ctx context.Context, h *Host, name string, out *Outcome) error {
	c, err := h.Checker(name)
	if err != nil {
		return err
	}
	req := sdk.CheckRequest{Monitor: t.ref(name), Target: t.Target, Timeout: t.Timeout, Attempt: 1, Config: t.Config}
	result, err := c.Check(ctx, req)
	out.Err, out.Status = err, result.Status
	req.Timeout = ioDeadline(time.Time{}.Add(req.Timeout), req.Timeout).Sub(time.Time{})
	if out.Request, err = json.Marshal(req); err != nil || out.Err != nil {
		return err
	}
	out.Response, err = json.Marshal(sdk.CheckResponse{Result: result})
	return err
}

func (t Trial) notify(ctx context.Context, h *Host, name string, out *Outcome) error {
	n, err := h.Notifier(name, t.Config)
	if err != nil {
		return err
	}
	note := sdk.Notification{
		ID: "00000000000000000000000000", Transition: sdk.Test, Monitor: t.ref(name), At: time.Now().UTC(),
		Result: sdk.Seen{Status: sdk.Up, Message: "this is a test"}, Text: "A test of the plugin " + name + ".",
	}
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	out.Err = n.Notify(ctx, note)
	if out.Request, err = json.Marshal(sdk.NotifyRequest{Config: t.Config, Notification: note}); err != nil {
		return err
	}
	out.Response, err = json.Marshal(sdk.NotifyResponse{Err: out.Err})
	return err
}

// memory is Records of a host that keeps nothing.
type memory struct {
	mu  sync.Mutex
	all []monitor.Plugin
}

var _ Records = (*memory)(nil)

// Plugins implements Records.
func (m *memory) Plugins(context.Context) ([]monitor.Plugin, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]monitor.Plugin(nil), m.all...), nil
}

// PutPlugin implements Records.
func (m *memory) PutPlugin(_ context.Context, p monitor.Plugin) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.all {
		if m.all[i].Name == p.Name {
			m.all[i] = p
			return nil
		}
	}
	m.all = append(m.all, p)
	return nil
}

// DeletePlugin implements Records.
func (m *memory) DeletePlugin(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.all {
		if m.all[i].Name == name {
			m.all = append(m.all[:i], m.all[i+1:]...)
			return nil
		}
	}
	return fmt.Errorf("plugin %q: %w", name, monitor.ErrNotFound)
}
