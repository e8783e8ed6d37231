// Command redis is a plugin of Tocsin that checks a Redis server: PING, its role, its memory and its replication. It is
// written with the package sdk and runs in the sandbox.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	sdk.Register(sdk.Plugin{Check: check})
	if err := warm(); err != nil {
		fmt.Fprintln(os.Stderr, "E! "+err.Error())
	}
}

func main() { sdk.Main() }

// config is what a monitor's configuration may say; the manifest has its schema.
type config struct {
	Username   string            `json:"username"`
	Password   string            `json:"password"`
	TLS        bool              `json:"tls"`
	ServerName string            `json:"tls_server_name"`
	Insecure   bool              `json:"tls_insecure"`
	ExpectRole string            `json:"expect_role"` // master or replica; empty: either
	Warn       map[string]string `json:"warn"`        // ranges by the names of metrics
	Crit       map[string]string `json:"crit"`
}

// check implements the call. The state is the server's run id.
func check(_ context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	var c config
	if err := sdk.Config(req.Config, &c); err != nil {
		return sdk.Result{}, err
	}
	if err := c.validate(); err != nil {
		return sdk.Result{}, err
	}
	start := time.Now()
	stream, err := c.dial(req.Target)
	if err != nil {
		return outcome(err, req.State)
	}
	defer stream.Close()
	return c.examine(stream, start, req.State)
}

// warm makes one check without a network. Every call begins with the memory as it was after init, so what the packages that a
// check uses work out once, such as how to read a config, they need not work out again.
func warm() error {
	var c config
	if err := sdk.Config([]byte(`{"username":"0","password":"0","expect_role":"master","warn":{"keys":"0"}}`), &c); err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	const text = "redis_version:0\r\nrole:master\r\nused_memory:1\r\nmaxmemory:1\r\ndb0:keys=1\r\n"
	_, err := c.examine(&recording{strings.NewReader(fmt.Sprintf("+OK\r\n+PONG\r\n$%d\r\n%s\r\n", len(text), text))}, time.Now(), "0")
	return err
}

// recording is a connection whose other side says what it says whatever it is told.
type recording struct{ io.Reader }

func (recording) Write(p []byte) (int, error) { return len(p), nil }

func (c config) validate() error {
	if c.Username != "" && c.Password == "" {
		return errors.New("config: username: needs a password beside it")
	}
	if c.ExpectRole != "" && c.ExpectRole != "master" && c.ExpectRole != "replica" {
		return fmt.Errorf("config: expect_role: must be master or replica, is %q", c.ExpectRole)
	}
	if !c.TLS && (c.ServerName != "" || c.Insecure) {
		return errors.New("config: tls_server_name and tls_insecure need tls")
	}
	for field, ranges := range map[string]map[string]string{"warn": c.Warn, "crit": c.Crit} {
		for name, text := range ranges {
			if !slices.Contains(metricNames[:], name) {
				return fmt.Errorf("config: %s: there is no metric %q; there are %s", field, name, strings.Join(metricNames[:], ", "))
			}
			if _, err := sdk.ParseRange(text); err != nil {
				return fmt.Errorf("config: %s.%s: %w", field, name, err)
			}
		}
	}
	return nil
}

// dial connects to the server.
func (c config) dial(target string) (io.ReadWriteCloser, error) {
	if !c.TLS {
		return sdk.Dial("tcp", target)
	}
	var options []string
	if c.ServerName != "" {
		options = append(options, "servername="+sdk.PathEscape(c.ServerName))
	}
	if c.Insecure {
		options = append(options, "insecure=1")
	}
	path := "/net/tls/" + sdk.PathEscape(target)
	if len(options) > 0 {
		path += "?" + strings.Join(options, "&")
	}
	return sdk.Open(path)
}

// examine talks to the server on a connection that was begun at start.
func (c config) examine(conn io.ReadWriter, start time.Time, state string) (sdk.Result, error) {
	r := bufio.NewReader(conn)
	if c.Password != "" {
		auth := []string{"AUTH", c.Password}
		if c.Username != "" {
			auth = []string{"AUTH", c.Username, c.Password}
		}
		answer, err := ask(conn, r, auth)
		if err != nil {
			return outcome(err, state)
		}
		if answer.kind == errorReply {
			return sdk.Result{}, fmt.Errorf("the server does not accept the user name and password: %s", answer.text)
		}
	}
	// Both questions leave together; the answers come one after the other.
	pong, err := ask(conn, r, []string{"PING"}, []string{"INFO"})
	if err != nil {
		return outcome(err, state)
	}
	latency := time.Since(start)
	if pong.kind == errorReply && needsLogin(pong.text) {
		return sdk.Result{}, fmt.Errorf("the server wants a user name and password: %s", pong.text)
	}
	if pong.kind == errorReply || pong.text != "PONG" {
		return sdk.Result{Status: sdk.Down, Message: "PING was answered with " + pong.shown(), Latency: latency, State: state}, nil
	}
	answer, err := readReply(r)
	if err != nil {
		return outcome(err, state)
	}
	if answer.kind != bulkReply {
		return c.withoutInfo(answer, latency, state)
	}
	result := c.judge(parseInfo(answer.text), state)
	result.Latency = latency
	return result, nil
}

// withoutInfo judges a server that answers PING and keeps the rest to itself.
func (c config) withoutInfo(answer reply, latency time.Duration, state string) (sdk.Result, error) {
	if c.ExpectRole != "" {
		return sdk.Result{}, fmt.Errorf("the role is not known, as INFO was answered with %s", answer.shown())
	}
	return sdk.Result{Status: sdk.Up, Message: "PONG; INFO was answered with " + answer.shown(), Latency: latency, State: state}, nil
}

// needsLogin reports whether an error is about who asks. NOPERM is what a user gets that may not use PING.
func needsLogin(text string) bool {
	code, _, _ := strings.Cut(text, " ")
	return code == "NOAUTH" || code == "NOPERM" || code == "WRONGPASS"
}

// outcome divides what the server did from what kept the check from being made: nobody is to be woken because a name server
// is slow or a permission is missing.
func outcome(err error, state string) (sdk.Result, error) {
	down := func(message string) (sdk.Result, error) {
		return sdk.Result{Status: sdk.Down, Message: message, State: state}, nil
	}
	var (
		failure  *sdk.NetError
		protocol *protocolError
	)
	switch {
	case errors.As(err, &protocol):
		return down(protocol.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return down("the server closed the connection")
	case !errors.As(err, &failure):
		return sdk.Result{}, err
	}
	var theirs bool
	switch failure.Kind {
	case sdk.NetRefused, sdk.NetClosed, sdk.NetTLS:
		theirs = true
	case sdk.NetTimeout: // of the server, unless the time went by before its address was known
		theirs = !strings.Contains(failure.Message, "look up ")
	case sdk.NetDNS:
		theirs = strings.Contains(failure.Message, "no such host")
	case sdk.NetFailed:
		theirs = strings.Contains(failure.Message, "no route to host")
	}
	if theirs {
		return down(failure.Message)
	}
	return sdk.Result{}, err
}
