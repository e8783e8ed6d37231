package check

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tocsinhq/tocsin/sdk"
)

// Late makes checkers that follow a registry in which kinds come and go. A checker of a kind that is not built in uses the
// kind that the registry has at each check. While there is none, or it refuses the monitor, every check ends with an error
// that says so, which the engine records as unknown.
type Late struct{ registry *Registry }

// NewLate returns what makes such checkers. To learn what is wrong with a monitor that is being written, ask the registry.
func NewLate(r *Registry) *Late { return &Late{registry: r} }

// New makes the checker of a monitor. The error is that of Registry.New; only built-in kinds have one.
func (l *Late) New(s Spec) (Checker, error) {
	if l.registry.Builtin(s.Kind) {
		return l.registry.New(s)
	}
	return &following{registry: l.registry, spec: s}, nil
}

// following is the Checker of a monitor whose kind may come and go.
type following struct {
	registry *Registry
	spec     Spec

	mu      sync.Mutex
	of      *Kind // what the checker was made by
	checker Checker
}

var _ SelfTimed = (*following)(nil)

// KeepsTime marks it as SelfTimed: it gives a deadline to checkers that are not.
func (*following) KeepsTime() {}

// Check makes one check with the kind that there is now.
func (f *following) Check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	checker, err := f.now()
	if err != nil {
		return sdk.Result{}, fmt.Errorf("monitor cannot be checked: %w", err)
	}
	if _, ok := checker.(SelfTimed); !ok && req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	return checker.Check(ctx, req)
}

// now returns the checker of the kind that there is. One that could not be made is tried again: why not may have passed.
func (f *following) now() (Checker, error) {
	kind := f.registry.find(f.spec.Kind)
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind != nil && kind == f.of {
		return f.checker, nil
	}
	f.of, f.checker = nil, nil
	if kind == nil {
		return nil, fmt.Errorf("there is no kind %s; install the plugin of that name, or choose another kind", sdk.CleanText(f.spec.Kind, 100))
	}
	checker, err := f.registry.make(kind, f.spec)
	if err != nil {
		return nil, err
	}
	if _, ok := checker.(Passive); ok {
		return nil, errors.New("its kind waits for beats, which only a built-in kind can")
	}
	f.of, f.checker = kind, checker
	return checker, nil
}
