package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrNotProvided is the error of a call that a plugin does not answer.
var ErrNotProvided = errors.New("the plugin does not answer this call")

// Plugin is an author's code: one function for each call that the plugin answers, nil for the others. As a Wasm module it is
// given to Register; as a process of its own, to ServePlugin of the package sdk/process.
type Plugin struct {
	// Check makes one check; see Checker for what its results and errors mean.
	Check func(ctx context.Context, req CheckRequest) (Result, error)
	// Notify delivers one notification; see Notifier for what its errors mean.
	Notify func(ctx context.Context, req NotifyRequest) error
}

// PanicError is the error of a call whose code panicked.
type PanicError struct {
	Value any
	Stack []byte // as debug.Stack writes it
}

// Error returns one line.
func (p *PanicError) Error() string { return fmt.Sprintf("the plugin panicked: %v", p.Value) }

// RunCheck calls Check. A panic is returned as *PanicError, a missing function as ErrNotProvided; with an error comes the
// zero Result.
func (p Plugin) RunCheck(ctx context.Context, req CheckRequest) (result Result, err error) {
	if p.Check == nil {
		return Result{}, ErrNotProvided
	}
	defer func() {
		if v := recover(); v != nil {
			result, err = Result{}, &PanicError{v, debug.Stack()}
		}
	}()
	result, err = p.Check(ctx, req)
	if err != nil {
		return Result{}, err
	}
	return result, nil
}

// RunNotify calls Notify. A panic is returned as *PanicError, a missing function as ErrNotProvided.
func (p Plugin) RunNotify(ctx context.Context, req NotifyRequest) (err error) {
	if p.Notify == nil {
		return ErrNotProvided
	}
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{v, debug.Stack()}
		}
	}()
	return p.Notify(ctx, req)
}

// Config reads the configuration that came with a request into a struct. What the configuration does not name keeps its
// value, so defaults may be set before. A field that the struct does not have is an error: it would be a typing error that
// nobody notices.
func Config(config json.RawMessage, into any) error {
	if err := decodeStrict(orEmpty(config), into); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	return nil
}
