package host

import (
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk"
)

func BenchmarkZZ(b *testing.B) {
	p, _ := buildBundled(b, "redis")
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	port, _ := redisServer(b)
	for name, f := range map[string]func(){
		"badconfig": func() { p.check(b, sdk.CheckRequest{Target: addr, Config: json.RawMessage(`{"x":1}`)}) },
		"refused":   func() { p.check(b, sdk.CheckRequest{Target: addr}) },
		"up":        func() { p.check(b, sdk.CheckRequest{Target: "127.0.0.1:" + port}) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
		})
	}
	s, _ := buildBundled(b, "sms-gateway")
	b.Run("sms-badconfig", func(b *testing.B) {
		for b.Loop() {
			s.call(b, "notify", sdk.NotifyRequest{Config: json.RawMessage(`{}`)}, reach.Call{}, time.Second)
		}
	})
}
