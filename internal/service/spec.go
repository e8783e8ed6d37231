package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/tocsinhq/tocsin/engine/check"
	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Defaults of what a monitor leaves out.
const (
	DefaultInterval      = time.Minute
	DefaultTimeout       = 10 * time.Second // at most the interval
	DefaultRetryInterval = 20 * time.Second // at most the interval
)

// MonitorInput is what somebody writes to have something watched. A nil duration takes its default: an interval of 60 s, a
// timeout of 10 s but at most the interval, a retry interval of 20 s but at most the interval.
type MonitorInput struct {
	Name          string
	Kind          string
	Target        string
	Interval      *time.Duration
	Timeout       *time.Duration
	Retries       int
	RetryInterval *time.Duration
	Recoveries    int
	Config        json.RawMessage // nil: the kind's defaults
	Assert        []string
	Degrade       []string
	Channels      []string // names
	Labels        map[string]string
	Paused        bool
}

// CheckMonitor returns what is wrong with the input for a new monitor, or with an id for that monitor's next revision. It
// changes nothing. It needs an editor.
func (s *Service) CheckMonitor(ctx context.Context, id string, in MonitorInput) (monitor.Faults, error) {
	if err := Allow(ctx, monitor.Editor); err != nil {
		return nil, err
	}
	var old *monitor.Monitor
	if id != "" {
		m, err := s.opts.Store.Monitor(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("read monitor %s: %w", id, err)
		}
		old = &m
	}
	_, faults, err := s.build(ctx, in, old)
	return faults, err
}

// build makes a monitor of the input, and every fault it has. old is the monitor that it replaces, nil for a new one.
func (s *Service) build(ctx context.Context, in MonitorInput, old *monitor.Monitor) (monitor.Monitor, monitor.Faults, error) {
	m := monitor.Monitor{
		Name: in.Name, Kind: in.Kind, Target: in.Target, Retries: in.Retries, Recoveries: in.Recoveries,
		Assert: nonNil(in.Assert), Degrade: nonNil(in.Degrade), Labels: in.Labels, Paused: in.Paused, Config: in.Config,
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	if len(m.Config) == 0 {
		m.Config = json.RawMessage("{}")
	}
	if old != nil {
		m.ID, m.Series, m.Revision, m.CreatedAt, m.UpdatedAt = old.ID, old.Series, old.Revision, old.CreatedAt, old.UpdatedAt
	}
	m.Interval = orElse(in.Interval, DefaultInterval)
	m.Timeout = orElse(in.Timeout, min(DefaultTimeout, m.Interval))
	m.RetryInterval = orElse(in.RetryInterval, min(DefaultRetryInterval, m.Interval))

	var faults monitor.Faults
	checkName(&faults, m.Name, monitor.MaxName)
	checkText(&faults, "target", m.Target, monitor.MaxTarget)
	checkTimes(&faults, &m)
	checkCount(&faults, "retries", m.Retries)
	checkCount(&faults, "recoveries", m.Recoveries)
	checkExpressions(&faults, "assert", m.Assert)
	checkExpressions(&faults, "degrade", m.Degrade)
	checkLabels(&faults, "labels", m.Labels)
	if err := s.useChannels(ctx, &faults, in.Channels, &m); err != nil {
		return m, nil, err
	}
	if err := s.freeMonitorName(ctx, &faults, &m); err != nil {
		return m, nil, err
	}
	err := s.checkSpec(ctx, &faults, &m, old)
	return m, faults, err
}

// checkSpec asks the registry whether a checker can be made of the monitor.
func (s *Service) checkSpec(ctx context.Context, faults *monitor.Faults, m, old *monitor.Monitor) error {
	secrets := s.masks.kind(m.Kind)
	var was earlier
	if old != nil {
		if old.Kind == m.Kind {
			was.config = old.Config
		} else {
			was.moved = append(was.moved, "the kind")
		}
		if old.Target != m.Target {
			was.moved = append(was.moved, "the target")
		}
	}
	chosen := false
	if _, known := s.opts.Kinds.Kind(m.Kind); known {
		config, more := secrets.restore(m.Config, was)
		*faults = append(*faults, more...)
		if m.Config = config; len(more) > 0 {
			return nil // the registry would call the mask a bad password
		}
		var err error
		if m.Config, chosen, err = secrets.generate(m.Config, was.config); err != nil {
			return err
		}
	}
	checker, err := s.opts.Kinds.New(check.Spec{
		Kind: m.Kind, Target: m.Target, Config: m.Config, Assert: m.Assert, Degrade: m.Degrade, Timeout: m.Timeout,
	})
	var more monitor.Faults
	if err != nil && !errors.As(err, &more) {
		return fmt.Errorf("make a checker of kind %s: %w", m.Kind, err)
	}
	secrets.secretsUnder(more)
	for _, f := range more {
		if !has(*faults, f.Field) { // a target that is too long is not also a bad URL
			*faults = append(*faults, f)
		}
	}
	if passive, ok := checker.(check.Passive); ok && chosen {
		return s.freeToken(ctx, faults, m, passive.Token())
	}
	return nil
}

// choosing serialises the changes that bring a push token of the user's choice, from the look whether it is free to the
// moment the engine has it. It returns what ends it.
func (s *Service) choosing(in *MonitorInput) func() {
	if !s.masks.kind(in.Kind).chooses(in.Config) {
		return func() {}
	}
	s.tokenUse.Lock()
	return s.tokenUse.Unlock
}

// freeToken refuses a push token that another monitor has: its beats would go to one of the two.
func (s *Service) freeToken(ctx context.Context, faults *monitor.Faults, m *monitor.Monitor, token string) error {
	q := monitor.Query{Kind: m.Kind, Limit: 1000}
	for {
		page, err := s.opts.Store.ListMonitors(ctx, q)
		if err != nil {
			return fmt.Errorf("look for the push token: %w", err)
		}
		for i := range page.Items {
			live, ok := s.opts.Engine.Live(page.Items[i].Monitor.ID)
			if ok && live.PushToken == token && page.Items[i].Monitor.ID != m.ID {
				faults.Add("config.token", nil, "another monitor has this token; choose a different one, or leave it out")
				return nil
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return nil
		}
	}
}

// useChannels looks up the names of the monitor's channels.
func (s *Service) useChannels(ctx context.Context, faults *monitor.Faults, names []string, m *monitor.Monitor) error {
	m.Channels = make([]string, 0, len(names))
	if len(names) == 0 {
		return nil
	}
	if len(names) > monitor.MaxChannels {
		faults.Add("channels", nil, "must name at most %d channels", monitor.MaxChannels)
		return nil
	}
	known, err := s.channelsByName(ctx)
	if err != nil {
		return err
	}
	for i, name := range names {
		field := fmt.Sprintf("channels[%d]", i)
		id, ok := known[name]
		switch {
		case !ok:
			faults.Add(field, shown(name), "no channel has this name; %s", listed("there are: ", keys(known), "create one first"))
		case slices.Contains(names[:i], name):
			faults.Add(field, shown(name), "is named twice; leave one out")
		default:
			m.Channels = append(m.Channels, id)
		}
	}
	return nil
}

func (s *Service) freeMonitorName(ctx context.Context, faults *monitor.Faults, m *monitor.Monitor) error {
	if m.Name == "" || has(*faults, "name") {
		return nil
	}
	other, err := s.opts.Store.MonitorByName(ctx, m.Name)
	switch {
	case errors.Is(err, monitor.ErrNotFound):
	case err != nil:
		return fmt.Errorf("look up monitor by name: %w", err)
	case other.ID != m.ID:
		*faults = append(*faults, taken(m.Name, "monitor"))
	}
	return nil
}

func taken(name, what string) monitor.Fault {
	return monitor.Fault{Field: "name", Value: shown(name), Message: "another " + what + " has this name; choose a different one"}
}

func checkTimes(faults *monitor.Faults, m *monitor.Monitor) {
	if m.Interval < monitor.MinInterval || m.Interval > monitor.MaxInterval {
		faults.Add("interval", short(m.Interval), "must be between 1s and 24h")
		return // what follows is measured against it
	}
	if m.Timeout < monitor.MinTimeout || m.Timeout > m.Interval {
		faults.Add("timeout", short(m.Timeout), "must be between 10ms and the interval, %s", short(m.Interval))
	}
	if m.RetryInterval < monitor.MinInterval || m.RetryInterval > m.Interval {
		faults.Add("retry_interval", short(m.RetryInterval), "must be between 1s and the interval, %s", short(m.Interval))
	}
}

func checkCount(faults *monitor.Faults, field string, n int) {
	if n < 0 || n > monitor.MaxRetries {
		faults.Add(field, n, "must be between 0 and %d", monitor.MaxRetries)
	}
}

func checkName(faults *monitor.Faults, name string, limit int) {
	switch {
	case name == "":
		faults.Add("name", nil, "is required: 1 to %d characters", limit)
	case strings.TrimSpace(name) != name:
		faults.Add("name", shown(name), "must not begin or end with white space")
	case isID(name):
		faults.Add("name", name, "has the form of an id, and would be taken for one; choose a different name")
	default:
		checkText(faults, "name", name, limit)
	}
}

// isID reports whether a text could be the id of an object: a ULID, in whatever case.
func isID(text string) bool {
	_, err := ulid.ParseStrict(text)
	return err == nil
}

// checkText refuses text that is too long or that would not stay on its line.
func checkText(faults *monitor.Faults, field, text string, limit int) {
	if n := utf8.RuneCountInString(text); n > limit {
		faults.Add(field, shown(text), "has %d characters, and must have at most %d", n, limit)
		return
	}
	if !plain(text) {
		faults.Add(field, nil, "must be one line without control characters")
	}
}

func plain(text string) bool {
	return utf8.ValidString(text) && sdk.CleanText(text, max(len(text), 1)) == text
}

func checkExpressions(faults *monitor.Faults, field string, list []string) {
	if len(list) > monitor.MaxAsserts {
		faults.Add(field, nil, "must have at most %d expressions", monitor.MaxAsserts)
		return
	}
	for i, e := range list {
		checkText(faults, fmt.Sprintf("%s[%d]", field, i), e, monitor.MaxAssert)
	}
}

func checkLabels(faults *monitor.Faults, field string, labels map[string]string) {
	if len(labels) > monitor.MaxLabels {
		faults.Add(field, nil, "must have at most %d labels", monitor.MaxLabels)
		return
	}
	for _, key := range keys(labels) {
		if !labelKey(key) {
			faults.Add(field, shown(key), "a label's name must have 1 to %d letters, digits, '.', '_', '-' or '/'", monitor.MaxLabelKey)
			continue
		}
		checkText(faults, field+"."+key, labels[key], monitor.MaxLabelValue)
	}
}

func labelKey(key string) bool {
	if key == "" || len(key) > monitor.MaxLabelKey {
		return false
	}
	for _, c := range []byte(key) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == '/':
		default:
			return false
		}
	}
	return true
}

// has reports whether a field, or a part of it, is at fault already.
func has(faults monitor.Faults, field string) bool {
	for _, f := range faults {
		if f.Field == field {
			return true
		}
	}
	return false
}

// shown is how much of a value a fault shows: 100 characters, on one line.
func shown(text string) string {
	clean := sdk.CleanText(text, max(len(text), 1))
	if utf8.RuneCountInString(clean) <= 100 {
		return clean
	}
	return string([]rune(clean)[:100]) + "…"
}

// short writes a duration as people do: 1m, not 1m0s.
func short(d time.Duration) string { return monitor.Duration(d).String() }

func listed(lead string, names []string, none string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return none
	case len(names) > most:
		return fmt.Sprintf("%s%s and %d more", lead, strings.Join(names[:most], ", "), len(names)-most)
	default:
		return lead + strings.Join(names, ", ")
	}
}

func keys[V any](m map[string]V) []string {
	found := make([]string, 0, len(m))
	for k := range m {
		found = append(found, k)
	}
	slices.Sort(found)
	return found
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func orElse(d *time.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return *d
}
