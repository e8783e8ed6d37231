package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/host"
	"github.com/tocsinhq/tocsin/sdk"
)

// request sends a request with the token of the tests. The caller closes the answer's body.
func (in *instance) request(ctx context.Context, method, path string, body io.Reader) *http.Response {
	in.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, in.URL+path, body)
	if err != nil {
		in.t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Authorization", "Bearer "+testToken)
	req.Header.Set("Content-Type", "application/gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		in.t.Fatal(err)
	}
	return resp
}

// TestPluginEvents: what happens to a plugin is told to whoever reads the server's events.
func TestPluginEvents(t *testing.T) {
	in := start(t, settings(t, nil))
	defer in.stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream := in.request(ctx, http.MethodGet, "/api/v1/events?types=plugin", nil)
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	type event struct{ Name, Condition, Why, Version string }
	next := func(what, condition, why string) {
		t.Helper()
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e event
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatal(err)
			}
			if e.Name != "trap" || e.Condition != condition || !strings.Contains(e.Why, why) || (e.Version == "1.0.0") != (condition != "removed") {
				t.Errorf("%s: got %s", what, data)
			}
			return
		}
		t.Fatalf("%s: the stream ended: %v\n%s", what, lines.Err(), in.log)
	}

	dir := t.TempDir()
	module, err := os.ReadFile("../../host/testdata/hostile/trap-unreachable.wasm")
	if err != nil {
		t.Fatal(err)
	}
	manifest := "api: 1\nname: trap\nversion: 1.0.0\nsummary: a plugin for tests\nprovides: [check]\nruntime: wasm\nentry: check.wasm\n"
	for name, text := range map[string]string{"check.wasm": string(module), sdk.ManifestFile: manifest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	if err := host.Pack(dir, &archive); err != nil {
		t.Fatal(err)
	}
	installed := in.request(ctx, http.MethodPost, "/api/v1/plugins", &archive)
	defer installed.Body.Close()
	if installed.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(installed.Body)
		t.Fatalf("install: %d %s", installed.StatusCode, text)
	}
	const one = "/api/v1/plugins/trap"
	next("installed", "waiting", "grant")
	in.call(http.MethodPost, one+"/grant", testToken, nil, nil)
	next("granted", "ready", "")
	in.call(http.MethodPost, one+"/disable", testToken, map[string]string{"reason": "it is too loud"}, nil)
	next("disabled", "disabled", "it is too loud")
	in.call(http.MethodPost, one+"/enable", testToken, nil, nil)
	next("enabled", "ready", "")
	in.call(http.MethodDelete, one, testToken, nil, nil)
	next("removed", "removed", "")
}
