//go:build wasip1

// Goguest is a guest for the tests: it answers with what it remembers of earlier calls, which should be nothing.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"
)

type answer struct {
	Calls  int    `json:"calls"`
	Seen   int    `json:"seen"`
	Target string `json:"target"`
	Sleep  bool   `json:"slept,omitempty"`
	Open   string `json:"open,omitempty"`
	Read   string `json:"read,omitempty"`
}

type request struct {
	Target string `json:"target"`
	Sleep  int    `json:"sleep_ms"`
	Open   string `json:"open"`
	Grow   int    `json:"grow"`
	Panic  bool   `json:"panic"`
	Exit   *int   `json:"exit"`
}

var (
	calls int
	seen  = map[string]bool{}
	kept  [][]byte
)

func init() {
	// As the SDK does: without it every call would pay for collections of its own.
	debug.SetGCPercent(-1)
	kept = append(kept, make([]byte, 4<<20))[:0]
	// What the packages for JSON work out about a type once is then part of the snapshot, not of every call.
	var r request
	if err := json.Unmarshal([]byte(`{"target":"","exit":null}`), &r); err != nil {
		panic(err)
	}
	if err := json.NewEncoder(io.Discard).Encode(answer{Open: fmt.Sprint(r.Target, 1)}); err != nil {
		panic(err)
	}
}

func main() {}

//go:wasmexport check
func check() {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	var req request
	if err := json.Unmarshal(in, &req); err != nil {
		panic(err)
	}
	calls++
	seen[fmt.Sprint(req.Target, len(seen))] = true
	a := answer{Calls: calls, Seen: len(seen), Target: req.Target}
	fmt.Fprintln(os.Stderr, "W! careful")
	if req.Panic {
		panic("as asked")
	}
	if req.Sleep > 0 {
		<-time.After(time.Duration(req.Sleep) * time.Millisecond)
		a.Sleep = true
	}
	if req.Grow > 0 {
		kept = append(kept, make([]byte, req.Grow))
	}
	if req.Open != "" {
		f, err := os.OpenFile(req.Open, os.O_RDWR, 0)
		if err != nil {
			a.Open = err.Error()
		} else {
			b, _ := io.ReadAll(f)
			a.Read = string(b)
			f.Close()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		panic(err)
	}
	if req.Exit != nil {
		os.Exit(*req.Exit)
	}
}
