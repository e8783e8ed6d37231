package check

import (
	"context"
	"errors"
	"time"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	builtin(func(e *env) Kind {
		k := Define("push", "Waits for beats: the watched thing calls /push/TOKEN itself, a job at its end for example. It is down when no beat has come for the "+
			"monitor's interval and the grace time. Until the first beat it is pending, however long that takes, and raises no alarm: "+
			"nothing may have been set up yet. Send one beat by hand to see that the address works. The latency is what the beat says in ping.",
			"nightly-backup", pushConfig{Grace: monitor.Duration(5 * time.Second)},
			func(target string, c pushConfig) (Checker, error) {
				var faults monitor.Faults
				if sdk.CleanText(target, maxLabel) != target {
					faults.Add("target", shownTarget(target), "must be at most %d characters long, without control characters", maxLabel)
				}
				if !validToken(c.Token) {
					faults.Add("token", nil, "must be 16 to 128 characters out of letters, digits, - and _")
				}
				if err := faults.Err(); err != nil {
					return nil, err
				}
				return &push{token: c.Token, grace: time.Duration(c.Grace)}, nil
			})
		k.variables = []Variable{
			{"latency", "duration", "What the beat said in ping.", "latency < 30s"},
			{"message", "text", "What the beat said in msg.", `not (message contains "warning")`},
		}
		return k
	})
}

// maxLabel is the longest target of a push monitor, in bytes. The target is only a name for people; it may be empty.
const maxLabel = 2000

type pushConfig struct {
	Token string           `json:"token,omitempty" doc:"Secret part of the address that beats are sent to: 16 to 128 letters, digits, - and _. The server makes one up when it is missing." secret:"true" generate:"true" maxlen:"128"`
	Grace monitor.Duration `json:"grace" doc:"How much later than the interval a beat may come. The default covers a clock that drifts and a slow network; a job whose run time varies needs more." min:"0s" max:"168h"`
}

// push is the Passive of one monitor.
type push struct {
	token string
	grace time.Duration
	rules *rules
}

var _ Passive = (*push)(nil)

func (p *push) setRules(r *rules) { p.rules = r }

// Check fails: a heartbeat is not asked for.
func (p *push) Check(ctx context.Context, _ sdk.CheckRequest) (sdk.Result, error) {
	if err := ctx.Err(); err != nil {
		return sdk.Result{}, err
	}
	return sdk.Result{}, errors.New("a push monitor makes no check of its own; it waits for beats")
}

// Token returns the secret part of the address.
func (p *push) Token() string { return p.token }

// Grace returns how long after the interval a beat may come.
func (p *push) Grace() time.Duration { return p.grace }

// Missed returns the result for a beat that did not come. Its text is the same until the next beat.
func (p *push) Missed(since, _ time.Time) sdk.Result {
	if since.IsZero() {
		return sdk.Result{Status: sdk.Down, Message: "no beat came"}
	}
	return sdk.Result{Status: sdk.Down, Message: "no beat since " + since.UTC().Format("2006-01-02 15:04:05 UTC")}
}

// Beat applies the monitor's expressions to a beat that came.
func (p *push) Beat(result sdk.Result) sdk.Result {
	result.Message = sdk.CleanText(result.Message, maxMessage)
	if p.rules == nil || result.Status != sdk.Up && result.Status != sdk.Degraded {
		return result
	}
	s := seen{Result: result, need: p.rules.need}
	p.rules.apply(&s)
	s.Message = sdk.CleanText(s.Message, maxMessage)
	return s.Result
}

// validToken reports whether a token is URL-safe and long enough not to be guessed.
func validToken(token string) bool {
	if len(token) < 16 || len(token) > 128 {
		return false
	}
	for i := range len(token) {
		c := token[i]
		if !isDigit(c) && c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
