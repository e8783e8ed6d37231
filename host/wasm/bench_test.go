package wasm

import (
	"context"
	"encoding/json"
	"testing"
)

func request(b *testing.B) []byte {
	b.Helper()
	r, err := json.Marshal(map[string]any{
		"target": "http://example.com/a/b/c", "timeout_ms": 1000,
		"config": map[string]string{"a": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "b": "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"},
	})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkCall measures a call from a clean state, request and response included.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct {
		name  string
		guest func() []byte
	}{
		{"small", func() []byte { return echo("check") }},
		{"small-command", func() []byte { return echo("_start") }},
		{"go", func() []byte { return goGuest(b, "goguest") }},
	} {
		module := c.guest()
		req := request(b)
		run := func(b *testing.B, instances int) {
			m := open(b, module, Options{Instances: instances, Limits: Limits{Memory: 64 << 20}})
			b.ReportAllocs()
			b.SetParallelism(max(instances/2, 1))
			b.ResetTimer()
			one := func() {
				if r, err := m.Call(context.Background(), Call{Name: "check", Request: req}); err != nil || len(r.Response) == 0 {
					b.Fatal(err, string(r.Response))
				}
			}
			if instances == 1 {
				for b.Loop() {
					one()
				}
				return
			}
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					one()
				}
			})
		}
		b.Run(c.name+"/1", func(b *testing.B) { run(b, 1) })
		b.Run(c.name+"/8", func(b *testing.B) { run(b, 8) })
	}
}

// BenchmarkClone measures making one more instance, and BenchmarkStart making it without the snapshot.
func BenchmarkClone(b *testing.B) { instances(b, (*Module).clone) }

// BenchmarkStart measures instantiating and _initialize.
func BenchmarkStart(b *testing.B) { instances(b, (*Module).start) }

func instances(b *testing.B, one func(*Module, context.Context) (*instance, error)) {
	for name, module := range map[string][]byte{"small": echo("check"), "go": goGuest(b, "goguest")} {
		b.Run(name, func(b *testing.B) {
			m := open(b, module, Options{Limits: Limits{Memory: 64 << 20}})
			for b.Loop() {
				i, err := one(m, context.Background())
				if err != nil {
					b.Fatal(err)
				}
				i.close(context.Background())
			}
		})
	}
}
