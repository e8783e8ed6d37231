// Sdkguest is a plugin as an author writes it with the Go SDK. It does what its target asks for.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

func init() {
	sdk.Register(sdk.Plugin{Check: check, Notify: notify})
	// What package json learns about a type here, no call has to.
	if err := sdk.Config([]byte(`{"greeting":""}`), &config{}); err != nil {
		panic(err)
	}
}

func main() { sdk.Main() }

type config struct {
	Greeting string `json:"greeting"`
}

func check(ctx context.Context, req sdk.CheckRequest) (sdk.Result, error) {
	c := config{Greeting: "hello"}
	if err := sdk.Config(req.Config, &c); err != nil {
		return sdk.Result{}, err
	}
	result := sdk.Result{
		Status: sdk.Up, Message: c.Greeting + " " + req.Target, Latency: 1500 * time.Microsecond, State: req.State + "x",
		Metrics: []sdk.Metric{{Name: "length", Value: float64(len(req.Target)), Unit: "1", Warn: "100"}},
	}
	word, rest, _ := strings.Cut(req.Target, " ")
	switch word {
	case "error":
		return result, errors.New(rest)
	case "panic":
		panic(rest)
	case "log":
		fmt.Fprintln(os.Stderr, "W! "+rest)
	case "wait":
		<-ctx.Done()
		return result, ctx.Err()
	case "random":
		b := make([]byte, 8)
		if _, err := rand.Read(b); err != nil {
			return result, err
		}
		result.Message = hex.EncodeToString(b)
	case "allocate": // this many KiB, 1 at a time, of which none is kept
		n, err := strconv.Atoi(rest)
		if err != nil {
			return result, err
		}
		for range n {
			garbage = make([]byte, 1<<10)
		}
	case "panic-elsewhere":
		go func() { panic(rest) }()
		<-ctx.Done()
	case "exit":
		os.Exit(3)
	case "network":
		return network(rest)
	}
	return result, nil
}

var garbage []byte

// network does what its words say: each is an operation with an address.
func network(words string) (sdk.Result, error) {
	op, address, _ := strings.Cut(words, " ")
	var said []byte
	switch op {
	case "tcp", "tls", "udp":
		conn, err := sdk.Dial(op, address)
		if err != nil {
			return sdk.Result{}, err
		}
		defer conn.Close()
		if said, err = talk(conn); err != nil {
			return sdk.Result{}, err
		}
	case "starttls":
		address, name, _ := strings.Cut(address, " ")
		plain, err := sdk.Dial("tcp", address)
		if err != nil {
			return sdk.Result{}, err
		}
		defer plain.Close()
		if said, err = talk(plain); err != nil {
			return sdk.Result{}, err
		}
		secret, err := plain.StartTLS(name)
		if err != nil {
			return sdk.Result{}, err
		}
		defer secret.Close()
		more, err := talk(secret)
		if err != nil {
			return sdk.Result{}, err
		}
		said = append(said, more...)
	case "http":
		resp, err := sdk.Do(sdk.HTTPRequest{Method: "POST", URL: address, Body: []byte("\xffx"), Headers: map[string][]string{"X-A": {"b"}}})
		if err != nil {
			return sdk.Result{}, err
		}
		said = fmt.Appendf(nil, "%d %s %q", resp.Status, resp.Header("x-b"), resp.Body)
	case "dns":
		answer, err := sdk.LookupDNS("MX", address)
		if err != nil {
			return sdk.Result{}, err
		}
		said = fmt.Appendf(nil, "%s %v", answer.RCode, answer.Answers)
	case "ping":
		echo, err := sdk.Ping(address)
		if err != nil {
			return sdk.Result{}, err
		}
		said = fmt.Appendf(nil, "%v", echo)
	case "cert":
		chain, err := sdk.FetchCertificates(address)
		if err != nil {
			return sdk.Result{}, err
		}
		said = fmt.Appendf(nil, "%v %v", chain.Verified, chain.Chain[0].DNSNames)
	}
	return sdk.Result{Status: sdk.Up, Message: string(said)}, nil
}

// talk writes a word and reads the answer.
func talk(conn *sdk.Stream) ([]byte, error) {
	if _, err := conn.Write([]byte("ping ")); err != nil {
		return nil, err
	}
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	return answer[:n], err
}

func notify(_ context.Context, req sdk.NotifyRequest) error {
	if req.Notification.Text == "refuse" {
		return sdk.RetryAfter(errors.New("not now"), 2*time.Second)
	}
	return nil
}
