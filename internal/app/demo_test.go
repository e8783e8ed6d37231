package app

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
)

// TestDemo starts the demo twice in the same folder. The second start adds nothing and knows the token.
func TestDemo(t *testing.T) {
	set := settings(t, map[string]string{"demo": "true", "listen": closedPort(t)})
	for round := range 2 {
		in := startWith(t, Options{Settings: set, bundled: t.TempDir()})
		for _, name := range []string{"own health page", "own port", "localhost by DNS", "heartbeat"} {
			in.until(name+" is up", func() bool { return in.states()[name] == "up" })
		}
		if got := in.states(); len(got) != 6 {
			t.Errorf("round %d: monitors %v", round, got)
		}
		if !strings.Contains(in.stdout.String(), "TOCSIN_TOKEN="+testToken) {
			t.Errorf("round %d: no token in:\n%s", round, in.stdout)
		}
		in.stop()
		if says := strings.Count(in.log.String(), "there are no archives; make plugins builds them"); says != 1-round {
			t.Errorf("round %d: it says %d times that there are no plugins\n%s", round, says, in.log)
		}
		set.AdminToken = ""
	}
}

// TestDemoPlugins starts the demo with plugins of this repository as make plugins builds them.
func TestDemoPlugins(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "bash", "../../scripts/plugins.sh", "-o", dir, "graphql-health", "sms-gateway").CombinedOutput(); err != nil {
		t.Fatalf("build the plugins: %v\n%s", err, out)
	}
	set := settings(t, map[string]string{"demo": "true", "listen": closedPort(t)})
	in := startWith(t, Options{Settings: set, bundled: dir})
	in.until("the plugin's monitor is up", func() bool { return in.states()[graphQLName] == "up" })
	var channels struct {
		Items []struct{ ID, Name, Provider string }
	}
	in.until("there is a channel of a plugin", func() bool {
		in.call(http.MethodGet, "/api/v1/channels", testToken, nil, &channels)
		return len(channels.Items) == 2
	})
	for _, c := range channels.Items {
		if c.Name == smsName {
			in.call(http.MethodPost, "/api/v1/channels/"+c.ID+"/test", testToken, nil, &struct{}{})
		}
	}
	if log := in.log.String(); !strings.Contains(log, `msg="the demo's receiver got an SMS" to=+15550100`) || strings.Contains(log, smsPassword) {
		t.Errorf("no message arrived, or its password is in the log:\n%s", log)
	}
	var flaky struct{ Items []struct{ Channels []string } }
	in.until("the flaky page tells both channels", func() bool {
		in.call(http.MethodGet, "/api/v1/monitors?q=flaky", testToken, nil, &flaky)
		return len(flaky.Items) == 1 && len(flaky.Items[0].Channels) == 2
	})
	in.stop()

	in = startWith(t, Options{Settings: set, bundled: dir})
	defer in.stop()
	in.until("the plugin's monitor is up again", func() bool { return in.states()[graphQLName] == "up" })
	if got := in.states(); len(got) != 7 {
		t.Errorf("after a restart there are the monitors %v", got)
	}
}

func TestSMS(t *testing.T) {
	t.Parallel()
	in := &buffer{}
	s := &server{Options: Options{Stderr: in}}
	s.openLog()
	for name, tt := range map[string]struct {
		password, form string
		want           int
	}{
		"sent":           {smsPassword, "to=1&text=DOWN", http.StatusNoContent},
		"wrong password": {"guessed", "to=1&text=DOWN", http.StatusUnauthorized},
		"no text":        {smsPassword, "to=1", http.StatusBadRequest},
		"no form":        {smsPassword, "%zz", http.StatusBadRequest},
		"too long":       {smsPassword, "to=1&text=" + url.QueryEscape(strings.Repeat("x", 100<<10)), http.StatusBadRequest},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, smsPath, strings.NewReader(tt.form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(smsUser, tt.password)
		answer := httptest.NewRecorder()
		s.demoHandler(http.NotFoundHandler()).ServeHTTP(answer, r)
		if answer.Code != tt.want {
			t.Errorf("%s: %d, want %d", name, answer.Code, tt.want)
		}
	}
	if got := strings.Count(in.String(), "got an SMS"); got != 1 {
		t.Errorf("%d messages were logged:\n%s", got, in)
	}
}

func TestAnswersPing(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]bool{"+PONG\r\n": true, "-NOAUTH Authentication required.\r\n": false, "": false} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil && line == "PING\r\n" {
				_, _ = conn.Write([]byte(answer))
			}
		}()
		if got := answersPing(t.Context(), l.Addr().String()); got != want {
			t.Errorf("%q: %v, want %v", answer, got, want)
		}
		l.Close()
		<-done
	}
	if answersPing(t.Context(), closedPort(t)) {
		t.Error("a port where nobody listens answers")
	}
}
