package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A whole plugin for the sandbox is:
//
//	func init() { sdk.Register(sdk.Plugin{Check: check}) }
//	func main() { sdk.Main() }
//
// built with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o plugin.wasm. Without -buildmode=c-shared it is a
// command, which starts anew for every call and is slower. Built for the author's own system it makes one call with a request
// on its standard input: go run . check < request.json.
//
// Every call begins with the memory as it was after all init functions, so what they prepare, such as compiled regular
// expressions, costs nothing later. For the same reason a generator of random numbers that an init function makes, and the
// one in math/rand, give the same numbers in every call; take them from crypto/rand, which asks the system every time.
//
// In the sandbox the garbage collector is off until the plugin has used most of the default memory, since a call is over, and
// all it left behind gone, before a collection would pay. A plugin with a higher limit of memory may call
// debug.SetMemoryLimit in an init function.

// registered is what Register was given. The functions that a module exports have no arguments, so there is no other place
// for it.
var registered Plugin

// Register makes the module answer with the plugin's functions. It is called once, from an init function; a second call,
// and a plugin without any function, panic.
func Register(p Plugin) {
	switch {
	case p.Check == nil && p.Notify == nil:
		panic("sdk.Register: neither Check nor Notify is set")
	case registered.Check != nil || registered.Notify != nil:
		panic("sdk.Register: a module has one plugin, and this is the second")
	}
	registered = p
}

// Main makes the call that the first argument names, check or notify, with the request from standard input and the answer to
// standard output. It ends the process with status 2 when that cannot be done. In a module built with -buildmode=c-shared
// nothing calls main.
func Main() {
	err := errors.New("no plugin is registered; call sdk.Register in an init function")
	if registered.Check != nil || registered.Notify != nil {
		err = registered.main(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "E! "+CleanText(err.Error(), MaxMessage))
		os.Exit(2)
	}
}

func (p Plugin) main(args []string) error {
	if len(args) != 1 || args[0] != "check" && args[0] != "notify" {
		return fmt.Errorf("want one argument, check or notify, got %q; this is a plugin of Tocsin, which runs it", args)
	}
	return p.answer(args[0], os.Stdin, os.Stdout, os.Stderr)
}

// answer makes one call. Whatever the plugin does wrong becomes an answer; the error is of reading or writing.
func (p Plugin) answer(call string, in io.Reader, out, log io.Writer) error {
	request := bytes.NewBuffer(make([]byte, 0, 4<<10))
	if _, err := request.ReadFrom(in); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	response, err := p.respond(call, request.Bytes(), log)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	if _, err = out.Write(response); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func (p Plugin) respond(call string, request []byte, log io.Writer) ([]byte, error) {
	if call == "notify" {
		var req NotifyRequest
		err := req.UnmarshalJSON(request)
		if err != nil {
			err = Permanent(err)
		} else {
			ctx, cancel := withTimeout(req.Timeout)
			defer cancel()
			err = p.RunNotify(ctx, req)
		}
		logPanic(log, err)
		return NotifyResponse{Err: err}.MarshalJSON()
	}
	var req CheckRequest
	err := req.UnmarshalJSON(request)
	var result Result
	if err == nil {
		ctx, cancel := withTimeout(req.Timeout)
		defer cancel()
		result, err = p.RunCheck(ctx, req)
	}
	if err == nil {
		response, err := CheckResponse{Result: result}.MarshalJSON()
		return response, err
	}
	logPanic(log, err)
	return CheckResponse{Result: Result{Message: CleanText(err.Error(), MaxMessage)}}.MarshalJSON()
}

// withTimeout makes the context of a call. Nobody tells a module to stop: it has to look at the clock itself.
func withTimeout(timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), timeout)
}

// logPanic writes where a panic happened, each line with the prefix of an error.
func logPanic(log io.Writer, err error) {
	var p *PanicError
	if !errors.As(err, &p) {
		return
	}
	text := fmt.Appendf(nil, "E! %s\n", p)
	for line := range bytes.Lines(p.Stack) {
		text = append(append(text, "E! "...), line...)
	}
	log.Write(text) //nolint:errcheck // there is nowhere else to tell
}

// sample is a request as a server sends it, to warm up with.
func sample(call string) ([]byte, error) {
	monitor := Ref{ID: "0", Name: "0", Kind: "0", Target: "0", Labels: map[string]string{"0": "0"}}
	if call == "notify" {
		return json.Marshal(NotifyRequest{Config: json.RawMessage("{}"), Timeout: time.Second, Notification: Notification{
			ID: "0", Transition: Test, Monitor: monitor, Incident: &Outage{ID: "0"}, Result: Seen{Status: Up, Message: "0", LatencyUS: 1},
		}})
	}
	return json.Marshal(CheckRequest{Monitor: monitor, Target: "0", Timeout: time.Second, Attempt: 1, State: "0", Config: json.RawMessage("{}")})
}

// warm makes one call of each kind with a plugin that does nothing. What package json works out about a type it works out
// once, and what it and the rest allocate once is then part of every call's beginning.
func warm() error {
	still := Plugin{
		Check: func(context.Context, CheckRequest) (Result, error) {
			return Result{Status: Up, Message: "0", Latency: 1, Metrics: []Metric{{Name: "0", Value: 1.5, Unit: "s"}}, State: "0"}, nil
		},
		Notify: func(context.Context, NotifyRequest) error { return Permanent(errors.New("0")) },
	}
	for _, call := range [...]string{"check", "notify"} {
		request, err := sample(call)
		if err != nil {
			return err
		}
		if err := still.answer(call, bytes.NewReader(request), io.Discard, io.Discard); err != nil {
			return err
		}
	}
	return warmNetwork()
}

// warmNetwork reads and writes what goes through the files below /net.
func warmNetwork() error {
	if _, err := json.Marshal(HTTPRequest{Method: "GET", URL: "0", Headers: map[string][]string{"0": {"0"}}, Body: []byte("0")}); err != nil {
		return err
	}
	const answer = `{"status":200,"proto":"0","headers":{"0":["0"]},"body":"0","remote":"0","timing_us":{"total":1}}`
	var response HTTPResponse
	if err := json.Unmarshal([]byte(answer), &response); err != nil {
		return err
	}
	var failure NetError
	return json.Unmarshal([]byte(`{"op":"0","path":"0","kind":"0","message":"0"}`), &failure)
}
