// Package monitor holds the nouns that the engine, the store and the faces share. It holds no behaviour beyond reading and
// writing its own values.
package monitor

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

// Errors that callers of the store and the services test for with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrConflict  = errors.New("conflict")  // a unique name is taken, or a thing is still in use
	ErrStale     = errors.New("stale")     // the revision that was to be changed is no longer the newest
	ErrClosed    = errors.New("closed")    // the store or the engine has been closed
	ErrUncertain = errors.New("uncertain") // the caller's context ended while its write was being committed
)

// Bounds of a monitor's numbers, the same for every face.
const (
	MinInterval   = time.Second
	MaxInterval   = 24 * time.Hour
	MinTimeout    = 10 * time.Millisecond
	MaxRetries    = 100
	MaxName       = 200  // characters
	MaxTarget     = 2000 // characters
	MaxLabels     = 50
	MaxLabelKey   = 63   // characters
	MaxLabelValue = 200  // characters
	MaxAsserts    = 50   // each of assert and degrade
	MaxAssert     = 2000 // characters
	MaxChannels   = 50
)

// Monitor is what is watched, how and how often: the spec a user writes. The engine never writes to it.
type Monitor struct {
	ID       string // ULID
	Series   uint32 // the number its samples are stored under, given by the store, never reused; 1 to 16,777,215
	Revision int64  // 1 when created, one more at each change

	Name          string // unique
	Kind          string
	Target        string
	Interval      time.Duration     // MinInterval to MaxInterval
	Timeout       time.Duration     // MinTimeout to Interval
	Retries       int               // 0 to MaxRetries: further results that must agree before up turns to down
	RetryInterval time.Duration     // between those results; 1 s to Interval
	Recoveries    int               // 0 to MaxRetries: further results that must agree before down turns to up
	Config        json.RawMessage   // the kind's own; holds secrets; a JSON object, never nil once stored
	Assert        []string          // expressions; one that is false makes the result down
	Degrade       []string          // expressions; one that is false makes the result degraded
	Channels      []string          // ids of the channels that are told
	Labels        map[string]string //
	Paused        bool

	CreatedAt, UpdatedAt time.Time
}

// Hold is how long a sample stands for the time after it when no other follows: twice the interval and the timeout.
// After it there is no data.
func (m *Monitor) Hold() time.Duration { return 2*m.Interval + m.Timeout }

// Condition is a monitor's confirmed condition: one of the four statuses, or pending, paused, maintenance. The numbers of
// the first four are those of sdk.Status; all are stored and never change.
type Condition uint8

// The conditions.
const (
	Unknown     Condition = Condition(sdk.Unknown)
	Up          Condition = Condition(sdk.Up)
	Degraded    Condition = Condition(sdk.Degraded)
	Down        Condition = Condition(sdk.Down)
	Pending     Condition = 4 // no result has been confirmed yet
	Paused      Condition = 5
	Maintenance Condition = 6
)

// Conditions lists every condition in the order of its number.
func Conditions() []Condition {
	return []Condition{Unknown, Up, Degraded, Down, Pending, Paused, Maintenance}
}

// String returns the condition in lower case.
func (c Condition) String() string {
	switch c {
	case Pending:
		return "pending"
	case Paused:
		return "paused"
	case Maintenance:
		return "maintenance"
	default:
		return sdk.Status(c).String()
	}
}

// ParseCondition returns the condition that String wrote, and false for any other text.
func ParseCondition(text string) (Condition, bool) {
	for _, c := range Conditions() {
		if c.String() == text {
			return c, true
		}
	}
	return Unknown, false
}

// State is where a monitor stands: its confirmed condition, and what the judge counts on the way to the next. The zero
// value with Condition Pending is a monitor that has had no result.
type State struct {
	MonitorID string
	Condition Condition
	Since     time.Time // when the condition began

	Incident      string    // id of the open incident; empty when there is none, and so is what follows
	IncidentSince time.Time // when it began
	IncidentCause string    // the message of the result that began it
	Beat          time.Time // of the newest beat when the state was recorded; zero: none, or the monitor waits for none
	Told          []string  // ids of the channels that were told of it, and will be told of its end

	// Bad and Fail are confirmed: at least degraded, and down. They outlive unknown, pause and pending.
	Bad, Fail bool
	// Known is set once a result has been confirmed; until then the monitor is pending.
	Known bool

	// What the judge counts. It is not stored: it starts from zero after a restart and after a change of what is checked or of
	// how many results must agree.
	BadRun, FailRun     int       // results in a row at least degraded (down); negative: in a row better than that
	BadSince, FailSince time.Time // the first of a positive run
	Unknowns            int       // unknown results in a row
}

// Sample is a result as stored, for one monitor at one time.
type Sample struct {
	Series    uint32
	Tick      Tick
	Status    sdk.Status
	Condition Condition     // what the monitor's condition was once this result had been judged
	Code      uint16        // see sdk.Result
	Latency   time.Duration // whole µs, 0 to about 305 hours (40 bits)
	Message   string
}

// Tick is a time in steps of 10 ms since 2020-01-01 UTC. Ticks of one series are strictly increasing.
type Tick uint64

// TickLength is one step of a Tick.
const TickLength = 10 * time.Millisecond

// MaxTick is the last tick that a sample can be stored under, in the year 2194.
const MaxTick Tick = 1<<39 - 1

const tickEpochMS = 1577836800000 // 2020-01-01T00:00:00Z

// TickOf returns the tick that t falls into; a time before 2020 is tick 0 and one after MaxTick is MaxTick.
func TickOf(t time.Time) Tick {
	ms := t.UnixMilli() - tickEpochMS
	if ms < 0 {
		return 0
	}
	return min(Tick(ms/10), MaxTick)
}

// Time returns the time at which the tick begins, in UTC.
func (t Tick) Time() time.Time { return time.UnixMilli(int64(t)*10 + tickEpochMS).UTC() }

// Opaque is what the checker of a monitor wants to be given again at the next check: its own state, which nobody else reads.
// It may hold secrets, so it is in no answer of the API and in no line of the log.
type Opaque struct {
	Series uint32
	// Of is the fingerprint of what was checked. A state is given back only to checks of the same.
	Of    [32]byte
	State string `json:"-"` // at most sdk.MaxState bytes of any kind; empty: there is none
}

// Incident is a confirmed outage of one monitor.
type Incident struct {
	ID          string // ULID
	MonitorID   string
	MonitorName string    // as it was when the incident began
	Cause       string    // the message of the result that began it
	StartedAt   time.Time // of the first failing sample
	EndedAt     time.Time // zero while it lasts
}

// Event is something worth telling, in a monitor's timeline.
type Event struct {
	ID         string // ULID
	MonitorID  string
	IncidentID string // empty when it belongs to none
	Kind       sdk.Transition
	Audience   sdk.Transition // what a channel must ask for to be told: Kind, or the transition that this one ends; not stored
	From, To   Condition
	At         time.Time
	Message    string
	Payload    sdk.Notification // what providers get; complete, so that it outlives the monitor
}

// Transition is everything that changes when a monitor's state does. The store writes it in one transaction.
type Transition struct {
	State    State
	Incident *Incident // created, or ended when its id is there already; nil when there is none
	Event    *Event    // nil when nothing is worth telling
	Channels []string  // ids of the channels that are told of the event: one outbox row each
	Recount  *Recount  // nil when no stored sample changes
}

// Recount corrects samples that were stored before the condition that began with them was confirmed: those of Series with
// From <= tick < Before get Condition. Time counted from them moves in the hour's and day's roll-ups as well.
type Recount struct {
	Series       uint32
	From, Before Tick
	Condition    Condition
}

// Channel is a configured place to send notifications.
type Channel struct {
	ID       string // ULID
	Revision int64
	Name     string // unique
	Provider string
	Config   json.RawMessage // the provider's own; holds secrets
	Filter   Filter
	Disabled bool

	CreatedAt, UpdatedAt time.Time
}

// Filter says which events a channel takes. Its zero value takes down, up and expiring of every monitor that names the
// channel, and a test always.
type Filter struct {
	Transitions []sdk.Transition  `json:"transitions,omitempty"` // empty: down, up, expiring
	Labels      map[string]string `json:"labels,omitempty"`      // every one must be the monitor's; empty: all monitors
}

// Takes reports whether an event of a monitor with these labels passes.
func (f Filter) Takes(e *Event, labels map[string]string) bool {
	if e.Kind == sdk.Test {
		return true
	}
	for k, v := range f.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	if len(f.Transitions) == 0 {
		return e.Audience == sdk.WentDown || e.Audience == sdk.WentUp || e.Audience == sdk.Expiring
	}
	return slices.Contains(f.Transitions, e.Audience)
}

// Notification is one event on its way to one channel; it waits in the outbox until delivered.
type Notification struct {
	ID        int64
	EventID   string
	MonitorID string
	ChannelID string
	Attempts  int       // made so far
	CreatedAt time.Time // 24 h later it is given up
	DueAt     time.Time // not attempted before
	Payload   sdk.Notification
}

// Attempt is what came of one try to deliver a notification.
type Attempt struct {
	NotificationID int64
	At             time.Time
	Outcome        Outcome
	Error          string    // empty when it was sent
	RetryAt        time.Time // with Retry: when to try again
}

// Outcome says what becomes of a notification after an attempt.
type Outcome uint8

// The outcomes. Their numbers are stored and never change.
const (
	OutcomePending Outcome = 0 // no attempt has been recorded
	Sent           Outcome = 1
	Retry          Outcome = 2
	GivenUp        Outcome = 3 // permanent error, or 24 h are over
)

// Health is how a channel has fared.
type Health struct {
	ChannelID     string
	LastSuccessAt time.Time // zero: never
	LastErrorAt   time.Time // zero: never
	LastError     string
	Streak        int // failures in a row; 0 after a success
}

// LogLine is one line of the server's own log.
type LogLine struct {
	ID      int64 // increasing
	At      time.Time
	Level   string // DEBUG, INFO, WARN, ERROR
	Message string
	Attrs   string // JSON object of the line's attributes, secrets already masked
}

// Role is what a token may do.
type Role string

// The roles: an admin may do everything, an editor writes monitors and channels, a viewer reads.
const (
	Admin  Role = "admin"
	Editor Role = "editor"
	Viewer Role = "viewer"
)

// Token is an API token. Only its hash is kept.
type Token struct {
	ID         string // ULID
	Name       string // unique
	Role       Role
	Hash       []byte // SHA-256 of the token
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time // zero: never; at most a minute late
}
