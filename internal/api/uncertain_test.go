package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tocsinhq/tocsin/engine/monitor"
)

// After a write of which nobody knows whether it was made, the engine does what the store has.
func TestUncertainWritesAreSettled(t *testing.T) {
	s := start(t)
	var mu sync.Mutex
	hooks := map[string]int{}
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		hooks[r.URL.Path]++
	}))
	defer hook.Close()
	uncertain := func(made bool, method, path, body string) {
		t.Helper()
		s.store.doubt(1, made)
		a := s.must(500, s.do(method, path, body))
		if a.str("type") != "urn:tocsin:problem:uncertain" {
			t.Errorf("%s %s: %s", method, path, a.text)
		}
	}
	const token = "a-token-of-a-job-1234"
	push := func(name string) string {
		return `{"name":"` + name + `","kind":"push","interval":"1h","config":{"token":"` + token + `"}}`
	}
	uncertain(false, "POST", "/api/v1/monitors", push("lost"))
	s.must(404, s.do("GET", "/push/"+token, ""))
	uncertain(true, "POST", "/api/v1/monitors", push("job"))
	s.must(200, s.do("GET", "/push/"+token, ""))

	id := s.must(200, s.do("GET", "/api/v1/monitors?q=job", "")).str("items.0.id")
	uncertain(true, "PATCH", "/api/v1/monitors/"+id, `{"paused":true}`)
	if live, ok := s.eng.Live(id); !ok || live.State.Condition != monitor.Paused {
		t.Errorf("paused: the engine has %v %v", ok, live.State.Condition)
	}
	uncertain(false, "PATCH", "/api/v1/monitors/"+id, `{"paused":false}`)
	if live, ok := s.eng.Live(id); !ok || live.State.Condition != monitor.Paused {
		t.Errorf("not resumed: the engine has %v %v", ok, live.State.Condition)
	}
	uncertain(false, "DELETE", "/api/v1/monitors/"+id, "")
	if _, ok := s.eng.Live(id); !ok {
		t.Error("not deleted: the engine does not have it")
	}
	uncertain(true, "DELETE", "/api/v1/monitors/"+id, "")
	if _, ok := s.eng.Live(id); ok {
		t.Error("deleted: the engine has it still")
	}

	uncertain(true, "POST", "/api/v1/channels", `{"name":"c","provider":"webhook","config":{"url":"`+hook.URL+`/one"}}`)
	id = s.must(200, s.do("GET", "/api/v1/channels", "")).str("items.0.id")
	s.must(200, s.do("POST", "/api/v1/channels/"+id+"/test", ""))
	uncertain(true, "PATCH", "/api/v1/channels/"+id, `{"name":"d","config":{"url":"`+hook.URL+`/two"}}`)
	s.must(200, s.do("POST", "/api/v1/channels/"+id+"/test", ""))
	mu.Lock()
	if hooks["/one"] != 1 || hooks["/two"] != 1 {
		t.Errorf("the hooks got %v", hooks)
	}
	mu.Unlock()
	// The list of names follows, too.
	s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","channels":["d"],"paused":true}`))
	uncertain(true, "DELETE", "/api/v1/monitors/"+s.must(200, s.do("GET", "/api/v1/monitors?q=m", "")).str("items.0.id"), "")
	uncertain(true, "DELETE", "/api/v1/channels/"+id, "")
	if err := s.eng.TestChannel(t.Context(), id); err == nil {
		t.Error("deleted: the engine has the channel still")
	}
	if log := s.must(200, s.do("GET", "/api/v1/log?q=settle", "")); len(log.get("items").([]any)) == 0 {
		t.Errorf("the log does not say what became of it: %s", log.text)
	}
}

// What could not be settled at once is settled later: by the next change, or by the next question whether all is well.
func TestUncertainWritesAreSettledLater(t *testing.T) {
	for name, next := range map[string]func(s *server){
		"change": func(s *server) {
			s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"next","kind":"tcp","target":"127.0.0.1:1","paused":true}`))
		},
		"ready": func(s *server) { s.must(200, s.do("GET", "/readyz", "")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			id := s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"m","kind":"tcp","target":"127.0.0.1:1","paused":true}`)).str("id")
			s.store.doubt(1000, true)
			s.must(500, s.do("DELETE", "/api/v1/monitors/"+id, ""))
			if _, ok := s.eng.Live(id); !ok {
				t.Fatal("the engine knows more than anybody can")
			}
			if a := s.must(503, s.do("GET", "/readyz", "")); !strings.Contains(a.str("parts.store"), "not settled") {
				t.Errorf("ready: %s", a.text)
			}
			s.store.doubt(0, false)
			next(s)
			if _, ok := s.eng.Live(id); ok {
				t.Error("the engine has the deleted monitor still")
			}
			s.must(200, s.do("GET", "/readyz", ""))
		})
	}
}

// Of many that choose the same push token at the same time one gets it.
func TestOnePushTokenOneMonitor(t *testing.T) {
	s := start(t)
	for round := range 5 {
		const many = 16
		token := "a-token-of-a-job-" + strings.Repeat("x", round)
		codes := make(chan int, many)
		begin := make(chan struct{})
		var group sync.WaitGroup
		for i := range many {
			group.Go(func() {
				<-begin
				body := `{"name":"` + token + "-" + string(rune('a'+i)) + `","kind":"push","config":{"token":"` + token + `"}}`
				codes <- s.do("POST", "/api/v1/monitors", body).status
			})
		}
		close(begin)
		group.Wait()
		got := map[int]int{}
		for range many {
			got[<-codes]++
		}
		if got[201] != 1 || got[422] != many-1 {
			t.Fatalf("got %v, want one 201 and the rest 422", got)
		}
	}
	// A change takes part in it, too.
	const token = "another-token-of-a-job"
	var paths []string
	for _, name := range []string{"a", "b", "c", "d"} {
		paths = append(paths, "/api/v1/monitors/"+s.must(201, s.do("POST", "/api/v1/monitors", `{"name":"`+name+`","kind":"push"}`)).str("id"))
	}
	codes := make(chan int, len(paths))
	var group sync.WaitGroup
	for _, path := range paths {
		group.Go(func() { codes <- s.do("PATCH", path, `{"config":{"token":"`+token+`"}}`).status })
	}
	group.Wait()
	got := map[int]int{}
	for range paths {
		got[<-codes]++
	}
	if got[200] != 1 || got[422] != len(paths)-1 {
		t.Fatalf("got %v, want one 200 and the rest 422", got)
	}
}
