package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/sdk"
)

func TestReadReply(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]reply{
		"+PONG\r\n":              {'+', "PONG"},
		"+\r\n":                  {'+', ""},
		"-ERR no\r\nrest":        {'-', "ERR no"},
		":-12\r\n":               {':', "-12"},
		"$5\r\na\r\nbc\r\n":      {'$', "a\r\nbc"},
		"$0\r\n\r\n":             {'$', ""},
		"$-1\r\n+PONG\r\n":       {'$', ""},
		"$3\r\na\x00b\r\n+X\r\n": {'$', "a\x00b"},
	} {
		got, err := readReply(bufio.NewReader(strings.NewReader(text)))
		if err != nil || got != want {
			t.Errorf("%q is read as %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                   "EOF",
		"+PON":                               "unexpected EOF",
		"$5\r\nab":                           "unexpected EOF",
		"$5\r\nabcdef\r\n":                   "a text is longer than it says",
		"+PONG\n":                            `it answered "+PONG "`,
		"\r\n":                               `it answered ""`,
		"HTTP/1.1 400 Bad Request\r\n":       `it answered "HTTP/1.1 400 Bad Request"`,
		"*1\r\n$1\r\na\r\n":                  `it answered "*1"`,
		"$1048577\r\n":                       `"1048577" is no length`,
		"$-2\r\n":                            `"-2" is no length`,
		"$99999999999999999999\r\n":          `is no length`,
		":1x\r\n":                            `"1x" is no number`,
		"+" + strings.Repeat("x", 1<<16):     "a line is longer than",
		"SSH-2.0-OpenSSH_9.2p1 \x1b[31m\r\n": `it answered "SSH-2.0-OpenSSH_9.2p1 [31m"`,
	} {
		got, err := readReply(bufio.NewReader(strings.NewReader(text)))
		if err == nil || !strings.Contains(err.Error(), want) || got != (reply{}) {
			t.Errorf("%.40q is read as %+v, %v, want an error with %s", text, got, err, want)
		}
	}
}

const masterInfo = "# Server\r\nredis_version:7.0.15\r\nrun_id:aaaa\r\nuptime_in_seconds:3600\r\n" +
	"# Clients\r\nconnected_clients:3\r\nblocked_clients:0\r\n# Memory\r\nused_memory:750\r\nmaxmemory:1000\r\nmem_fragmentation_ratio:1.5\r\n" +
	"# Persistence\r\nloading:0\r\nrdb_last_bgsave_status:ok\r\naof_last_write_status:ok\r\n" +
	"# Stats\r\ninstantaneous_ops_per_sec:12\r\nevicted_keys:0\r\nkeyspace_hits:30\r\nkeyspace_misses:10\r\n" +
	"# Replication\r\nrole:master\r\nconnected_slaves:2\r\n" +
	"slave0:ip=10.0.0.2,port=6379,state=online,offset=10,lag=1\r\nslave1:ip=10.0.0.3,port=6379,state=online,offset=9,lag=4\r\nslave_repl:lag=99\r\n" +
	"# Keyspace\r\ndb0:keys=5,expires=1,avg_ttl=0\r\ndb3:keys=2,expires=0,avg_ttl=0\r\n"

func TestJudge(t *testing.T) {
	t.Parallel()
	replica := "role:slave\r\nredis_version:6.2.1\r\nrun_id:bbbb\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:2\r\n"
	for _, tt := range []struct {
		name, text, state string
		c                 config
		want              sdk.Result
	}{
		{
			name: "a master", text: masterInfo, c: config{Warn: map[string]string{"memory_percent": "70"}, Crit: map[string]string{"keys": "1:"}},
			want: sdk.Result{Status: sdk.Up, Message: "PONG as master, redis 7.0.15", State: "aaaa", Metrics: []sdk.Metric{
				{Name: "memory_used", Value: 750, Unit: "B"},
				{Name: "memory_max", Value: 1000, Unit: "B"},
				{Name: "memory_percent", Value: 75, Unit: "%", Warn: "70"},
				{Name: "memory_fragmentation_ratio", Value: 1.5, Unit: "1"},
				{Name: "connected_clients", Value: 3, Unit: "1"},
				{Name: "blocked_clients", Unit: "1"},
				{Name: "commands_per_second", Value: 12, Unit: "1"},
				{Name: "evicted_keys", Unit: "1"},
				{Name: "keyspace_hits", Value: 30, Unit: "1"},
				{Name: "keyspace_misses", Value: 10, Unit: "1"},
				{Name: "hit_percent", Value: 75, Unit: "%"},
				{Name: "keys", Value: 7, Unit: "1", Crit: "1:"},
				{Name: "uptime_seconds", Value: 3600, Unit: "s"},
				{Name: "connected_replicas", Value: 2, Unit: "1"},
				{Name: "replication_lag_seconds", Value: 4, Unit: "s"},
			}},
		},
		{
			name: "a replica", text: replica, state: "bbbb", c: config{ExpectRole: "replica"},
			want: sdk.Result{Status: sdk.Up, Message: "PONG as replica, redis 6.2.1", State: "bbbb", Metrics: []sdk.Metric{
				{Name: "keys", Unit: "1"}, {Name: "replication_lag_seconds", Value: 2, Unit: "s"},
			}},
		},
		{
			name: "a replica alone", text: strings.Replace(replica, "status:up", "status:down", 1) + "master_link_down_since_seconds:77\r\n",
			want: sdk.Result{Status: sdk.Degraded, Message: "PONG as replica, redis 6.2.1; the link to its master is down", State: "bbbb", Metrics: []sdk.Metric{
				{Name: "keys", Unit: "1"}, {Name: "replication_lag_seconds", Value: 2, Unit: "s"}, {Name: "link_down_seconds", Value: 77, Unit: "s"},
			}},
		},
		{
			name: "another role", text: replica, c: config{ExpectRole: "master"},
			want: sdk.Result{Status: sdk.Down, Message: "PONG as replica, redis 6.2.1; expected a master", State: "bbbb", Metrics: []sdk.Metric{
				{Name: "keys", Unit: "1"}, {Name: "replication_lag_seconds", Value: 2, Unit: "s"},
			}},
		},
		{
			name: "a restart and a snapshot", text: "server_name:valkey\r\nvalkey_version:8.0.1\r\nredis_version:7.2.4\r\nrole:master\r\nrun_id:cccc\r\nrdb_last_bgsave_status:err\r\nused_memory:nan\r\n", state: "aaaa",
			want: sdk.Result{
				Status: sdk.Degraded, Message: "PONG as master, valkey 8.0.1, restarted since the last check; its last snapshot could not be saved", State: "cccc",
				Metrics: []sdk.Metric{{Name: "keys", Unit: "1"}},
			},
		},
		{
			name: "nothing", text: "no info\r\nat all", state: "aaaa",
			want: sdk.Result{Status: sdk.Up, Message: "PONG, redis", Metrics: []sdk.Metric{{Name: "keys", Unit: "1"}}},
		},
	} {
		got := tt.c.judge(parseInfo(tt.text), tt.state)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
		for _, m := range got.Metrics {
			if !strings.Contains(strings.Join(metricNames[:], " "), m.Name) {
				t.Errorf("%s: metric %s is not in the list", tt.name, m.Name)
			}
		}
	}
}

// scripted is a connection whose other side says all it has to say at once.
type scripted struct {
	said io.Reader
	got  bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)  { return s.said.Read(p) }
func (s *scripted) Write(p []byte) (int, error) { return s.got.Write(p) }

func TestExamine(t *testing.T) {
	t.Parallel()
	const questions = "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nINFO\r\n"
	for _, tt := range []struct {
		name, said string
		c          config
		asked      string
		status     sdk.Status
		message    string
		fault      string
	}{
		{name: "up", said: "+PONG\r\n$14\r\nrole:master\r\nx\r\n", asked: questions, status: sdk.Up, message: "PONG as master, redis"},
		{
			name: "a password", said: "+OK\r\n+PONG\r\n$11\r\nrole:master\r\n", c: config{Password: "p\r\nq"},
			asked: "*2\r\n$4\r\nAUTH\r\n$4\r\np\r\nq\r\n" + questions, status: sdk.Up, message: "PONG as master, redis",
		},
		{
			name: "a user", said: "-WRONGPASS invalid username-password pair or user is disabled.\r\n", c: config{Username: "u", Password: "hidden"},
			asked: "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$6\r\nhidden\r\n", fault: "the server does not accept the user name and password: WRONGPASS invalid username-password pair or user is disabled.",
		},
		{name: "no password", said: "-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n", asked: questions, fault: "the server wants a user name and password: NOAUTH Authentication required."},
		{name: "loading", said: "-LOADING Redis is loading the dataset in memory\r\n", asked: questions, status: sdk.Down, message: `PING was answered with the error "LOADING Redis is loading the dataset in memory"`},
		{name: "full", said: "-ERR max number of clients reached\r\n", asked: questions, status: sdk.Down, message: `PING was answered with the error "ERR max number of clients reached"`},
		{name: "another answer", said: ":1\r\n", asked: questions, status: sdk.Down, message: `PING was answered with "1"`},
		{name: "no INFO", said: "+PONG\r\n-NOPERM this user has no permissions to run the 'info' command\r\n", asked: questions, status: sdk.Up, message: `PONG; INFO was answered with the error "NOPERM this user has no permissions to run the 'info' command"`},
		{name: "no INFO for a role", said: "+PONG\r\n-NOPERM no\r\n", c: config{ExpectRole: "master"}, asked: questions, fault: `the role is not known, as INFO was answered with the error "NOPERM no"`},
		{name: "no protocol", said: "HTTP/1.1 400 Bad Request\r\n\r\n", asked: questions, status: sdk.Down, message: `the server does not speak the protocol of Redis: it answered "HTTP/1.1 400 Bad Request"`},
		{name: "closed", said: "", asked: questions, status: sdk.Down, message: "the server closed the connection"},
		{name: "closed within INFO", said: "+PONG\r\n$100\r\nrole", asked: questions, status: sdk.Down, message: "the server closed the connection"},
	} {
		conn := &scripted{said: strings.NewReader(tt.said)}
		got, err := tt.c.examine(conn, time.Now(), "")
		if got.Status != tt.status || got.Message != tt.message || (err == nil) != (tt.fault == "") || err != nil && err.Error() != tt.fault {
			t.Errorf("%s: %s %q, %v", tt.name, got.Status, got.Message, err)
		}
		if conn.got.String() != tt.asked {
			t.Errorf("%s: asked %q, want %q", tt.name, conn.got.String(), tt.asked)
		}
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	for want, failures := range map[sdk.Status][]*sdk.NetError{
		sdk.Down: {
			{Kind: sdk.NetRefused, Message: "the connection was refused"},
			{Kind: sdk.NetTimeout, Message: "no answer in time"},
			{Kind: sdk.NetTLS, Message: "certificate expired"},
			{Kind: sdk.NetClosed, Message: "closed"},
			{Kind: sdk.NetDNS, Message: "tcp://x:1: look up x: no such host"},
			{Kind: sdk.NetFailed, Message: "connect: no route to host"},
		},
		sdk.Unknown: {
			{Kind: sdk.NetDenied, Message: "not granted"},
			{Kind: sdk.NetTimeout, Message: "tcp://x:1: look up x: timed out"},
			{Kind: sdk.NetDNS, Message: "tcp://x:1: look up x: no DNS server answered in time"},
			{Kind: sdk.NetBusy},
			{Kind: sdk.NetInvalid},
			{Kind: sdk.NetFailed, Message: "connect: network is unreachable"},
		},
	} {
		for _, failure := range failures {
			got, err := outcome(failure, "kept")
			if got.Status != want || (err == nil) != (want == sdk.Down) || err == nil && (got.Message != failure.Message || got.State != "kept") {
				t.Errorf("%+v: %+v, %v, want %s", failure, got, err, want)
			}
		}
	}
	if got, err := outcome(errors.New("something"), ""); err == nil || got.Status != sdk.Unknown {
		t.Errorf("an error of another kind: %+v, %v", got, err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`: "",
		`{"password":"p","username":"u","tls":true,"tls_server_name":"x","tls_insecure":true,"expect_role":"replica","warn":{"keys":"1:"}}`: "",
		`{"usernam":"u"}`:           "usernam",
		`{"username":"u"}`:          "username: needs a password",
		`{"expect_role":"slave"}`:   `expect_role: must be master or replica, is "slave"`,
		`{"tls_insecure":true}`:     "need tls",
		`{"warn":{"kees":"1:"}}`:    `warn: there is no metric "kees"`,
		`{"crit":{"keys":"9:1"}}`:   `crit.keys: range "9:1"`,
		`{"password":"secret" "x"}`: "config",
	} {
		_, err := check(t.Context(), sdk.CheckRequest{Target: "127.0.0.1:1", Config: []byte(text), Timeout: time.Second})
		// There is no /net here, so a good configuration gets as far as to miss it.
		if want == "" {
			want = "only a plugin in the sandbox has it"
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want an error with %q", text, err, want)
		}
	}
}

// TestManifestNamesMetrics holds the manifest's list of metrics to the one here.
func TestManifestNamesMetrics(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile(sdk.ManifestFile)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(manifest)), " ")
	if want := "enum: [" + strings.Join(metricNames[:], ", ") + "]"; strings.Count(text, want) != 2 {
		t.Errorf("the manifest does not have %q twice", want)
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{"+PONG\r\n", "$3\r\nabc\r\n", "$-1\r\n", ":1\r\n", "-ERR\r\n", "$1048576\r\n", "*2\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readReply(bufio.NewReader(bytes.NewReader(data)))
		if err != nil && got != (reply{}) || len(got.text) > len(data) {
			t.Errorf("%q is read as %+v, %v", data, got, err)
		}
	})
}

func FuzzInfo(f *testing.F) {
	f.Add(masterInfo)
	f.Add("role:slave\nmaster_link_status:down\nslave0:lag=NaN\ndb0:keys=1e999\nused_memory:-1\nmaxmemory:1e-300")
	f.Fuzz(func(t *testing.T, text string) {
		result := config{}.judge(parseInfo(text), "")
		if _, err := sdk.Judge(result); err != nil || result.Status == sdk.Unknown {
			t.Errorf("%q: %+v, %v", text, result, err)
		}
	})
}
