package config

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tocsin.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Table() {
		if s.Key == "" || s.Doc == "" || strings.ToUpper(s.Env) != s.Env {
			t.Errorf("%+v: key, doc or variable is missing", s)
		}
		for _, name := range []string{s.Key, s.Env, "--" + s.Flag} {
			if name != "--" && seen[name] {
				t.Errorf("%s stands for two settings", name)
			}
			seen[name] = true
		}
		for _, text := range []string{s.Default, s.tag.Get("demo")} {
			var into Settings
			if err := s.set(&into, s.words(text)); text != "" && err != nil {
				t.Errorf("%s: default %q: %v", s.Key, text, err)
			}
		}
		if s.Type == "duration" {
			for _, bound := range []string{"min", "max"} {
				if d, err := ParseDuration(s.tag.Get(bound)); err != nil || d <= 0 {
					t.Errorf("%s: %s %q is no length", s.Key, bound, s.tag.Get(bound))
				}
			}
		}
		if s.Type == "number" && s.tag.Get("max") == "" {
			t.Errorf("%s has no bound", s.Key)
		}
	}
}

func TestDefaults(t *testing.T) {
	got, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Data: "tocsin-data", Listen: ":8080", LogLevel: slog.LevelInfo, LogFormat: "text",
		KeepSamples: 90 * day, KeepHourly: 730 * day, KeepEvents: 100_000, KeepLogLines: 10_000, KeepOutbox: 7 * day,
		PruneEvery: 10 * time.Minute, DrainTimeout: 15 * time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.DSN() != filepath.Join("tocsin-data", "tocsin.db") {
		t.Errorf("DSN %q", got.DSN())
	}
}

// TestExample loads the file that docs/operations.md shows.
func TestExample(t *testing.T) {
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/operations.md shows no file")
	}
	got, err := Load(Sources{File: write(t, example)})
	if err != nil {
		t.Fatal(err)
	}
	if got.KeepSamples != 180*day || got.KindLimits["icmp"] != 200 || got.LogFormat != "json" {
		t.Errorf("the example is read as %+v", got)
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "listen: :1\ndata: file\nlog: {level: warn}\nchecks:\n  allow_addresses:\n    - 169.254.0.0/16\n    - fe80::/10\n  kind_limits: {http: 9, tcp: 8}\n")
	got, err := Load(Sources{
		Environ: []string{"TOCSIN_LISTEN=:2", "TOCSIN_CONFIG=" + file, "TOCSIN_DATA=env", "PATH=/bin", "TOCSIN_URL=x", "TOCSIN_TOKEN=y", "TOCSIN_PORT=tcp://10.0.0.1:80", "TOCSIN_PORT_80_TCP_ADDR=10.0.0.1", "TOCSIN_SERVICE_HOST=10.0.0.1"},
		Flags:   map[string]string{"listen": ":3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Listen != ":3" || got.Data != "env" || got.LogLevel != slog.LevelWarn {
		t.Errorf("flag, environment, file: %q %q %v", got.Listen, got.Data, got.LogLevel)
	}
	allow := []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}
	if diff := cmp.Diff(allow, got.CheckAllow, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"http": 9, "tcp": 8}, got.KindLimits); diff != "" {
		t.Error(diff)
	}
}

func TestDemo(t *testing.T) {
	got, err := Load(Sources{Environ: []string{"TOCSIN_DATA=mine"}, Flags: map[string]string{"demo": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Listen != "127.0.0.1:8080" || got.Data != "mine" {
		t.Errorf("listen %q, data %q", got.Listen, got.Data)
	}
}

// TestBad reads every file of testdata/bad; what is told of it stands beside it.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files, error %v", len(files), err)
	}
	for _, file := range files {
		_, err := Load(Sources{File: file})
		var faults Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: error %v, want faults", file, err)
			continue
		}
		golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		for _, secret := range []string{"c2VjcmV0", "hush"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: a secret is told: %v", file, err)
			}
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (write it with -update):\n%s", path, diff)
	}
}

// TestAllFaultsAtOnce gives every source something wrong.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Load(Sources{
		File:    write(t, "workers: -1\n"),
		Environ: []string{"TOCSIN_LISEN=:1", "TOCSIN_LOG_FORMAT=xml", "TOCSIN_ADMIN_TOKEN=short-secret"},
		Flags:   map[string]string{"public-url": "ftp://x", "retention-hourly": "1d", "admin-listen": "here:65536"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"tocsin.yaml:1:10: workers: must be a whole number from 0 to 1000000 (got \"-1\")\n    workers: -1\n             ^",
		"TOCSIN_LISEN: no setting has this name; did you mean TOCSIN_LISTEN?",
		`TOCSIN_LOG_FORMAT: log.format: must be text or json (got "xml")`,
		"--public-url: public_url: must begin with http:// or https://",
		"--retention-hourly: retention.hourly: must be at least retention.samples (90d)",
		"--admin-listen: admin_listen: must have a port from 0 to 65535",
		"TOCSIN_ADMIN_TOKEN: admin_token: must have at least 16 characters",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "short-secret") {
		t.Errorf("a secret is told: %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	for name, path := range map[string]string{
		"missing": filepath.Join(t.TempDir(), "none.yaml"),
		"folder":  t.TempDir(),
		"large":   write(t, strings.Repeat("# large\n", maxFile/8+1)),
	} {
		_, err := Load(Sources{File: path, Flags: map[string]string{"listen": "nowhere"}})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 2 || faults[0].Where != path {
			t.Errorf("%s: error %v is no fault of the file beside the flag's", name, err)
		}
	}
}

// TestTwice sees that a key which stands twice hides no fault of either value.
func TestTwice(t *testing.T) {
	for text, want := range map[string][]string{
		"listen: nowhere\nlisten: :99999\n": {":1:9: listen: must be host:port", ":2:1: listen: is set twice", ":2:9: listen: must have a port"},
		"listen: :1\nlisten: :99999\n":      {":2:1: listen: is set twice", ":2:9: listen: must have a port"},
		"listen: nowhere\nlisten: :1\n":     {":1:9: listen: must be host:port", ":2:1: listen: is set twice"},
		"workers: x\nworkers: -1\n":         {":1:10: workers: must be a whole number", ":2:1: workers: is set twice", ":2:10: workers: must be a whole number"},
		"listen: :1\nlisten: [a]\n":         {":2:1: listen: is set twice", ":2:9: listen: must be one value"},
		// What the second one would mean together with the rest of the file counts.
		"retention: {samples: 10d, hourly: 20d, hourly: 30d}\n": {":1:40: retention.hourly: is set twice"},
		"retention: {samples: 10d, hourly: 20d, hourly: 5d}\n":  {":1:40: retention.hourly: is set twice", ":1:48: retention.hourly: must be at least"},
	} {
		_, err := Load(Sources{File: write(t, text)})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != len(want) {
			t.Errorf("%q: got %v, want %d faults", text, err, len(want))
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q: no %q in:\n%v", text, part, err)
			}
		}
	}
	// A flag that is right does not take back what is wrong in the file, and one that is wrong is told beside it.
	_, err := Load(Sources{File: write(t, "log: {format: xml}\nworkers: -1\n"), Flags: map[string]string{"log-format": "json", "workers": "x"}})
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 3 {
		t.Errorf("got %v", err)
	}
}

// TestKinds sees that a limit for a kind that is none is told where it stands.
func TestKinds(t *testing.T) {
	kinds := []string{"dns", "http", "icmp"}
	_, err := Load(Sources{File: write(t, "checks:\n  kind_limits: {ICMP: 200, http: 1}\n"), Kinds: kinds})
	want := `tocsin.yaml:2:16: checks.kind_limits: names the kind "ICMP", which is unknown; did you mean icmp?`
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	_, err = Load(Sources{Environ: []string{"TOCSIN_CHECKS_KIND_LIMITS=smoke_test=1"}, Kinds: kinds})
	want = `TOCSIN_CHECKS_KIND_LIMITS: checks.kind_limits: names the kind "smoke_test", which is unknown; known are dns, http, icmp`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	if got, err := Load(Sources{Flags: map[string]string{"checks-kind-limits": "http=1,icmp=2"}, Kinds: kinds}); err != nil || got.KindLimits["icmp"] != 2 {
		t.Errorf("got %v, %v", got.KindLimits, err)
	}
	if got, err := Load(Sources{Flags: map[string]string{"checks-kind-limits": "a-plugin=1"}, Kinds: kinds}); err != nil || got.KindLimits["a-plugin"] != 1 {
		t.Errorf("a name that a plugin may have: %v, %v", got.KindLimits, err)
	}
	if _, err := Load(Sources{Flags: map[string]string{"checks-kind-limits": "SMOKE=1"}}); err != nil {
		t.Errorf("without the kinds: %v", err)
	}
}

func TestSecretKey(t *testing.T) {
	for text, want := range map[string]string{
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=":  "",
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA":   "",
		" __-_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ": "",
		"AAAA":          "TOCSIN_SECRET_KEY: secret_key: must be 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64",
		"hush, not b64": "TOCSIN_SECRET_KEY: secret_key: must be 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64",
	} {
		_, err := Load(Sources{Environ: []string{"TOCSIN_SECRET_KEY=" + text}})
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestDeepNesting reads files that would make the parser take all memory.
func TestDeepNesting(t *testing.T) {
	var indented strings.Builder
	for i := range 300 {
		indented.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	for name, text := range map[string]string{
		"sequences": strings.Repeat("[", 60000),
		"lines":     strings.Repeat("[\n", 30000),
		"mappings":  strings.Repeat("{a: ", 15000),
		"dashes":    strings.Repeat("- ", 499),
		"indented":  indented.String(),
	} {
		if _, err := Load(Sources{File: write(t, text)}); err == nil {
			t.Errorf("%s: no fault", name)
		}
	}
}

func TestSecretIsHidden(t *testing.T) {
	s := Settings{AdminToken: "tcs_0123456789"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("settings", "all", s, "token", s.AdminToken)
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), log.String()} {
		if strings.Contains(text, "0123456789") {
			t.Errorf("the secret is in %s", text)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "90d": 90 * day, "2y": 730 * day, "1w": week, "250ms": 250 * time.Millisecond, "1d12h": 36 * time.Hour,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "1", "s", "-1s", "+1s", "1.5h", "1s1m", "1s1s", "1 s", "1S", "1us", "1mo", "300y", "99999999999999999999s", "290y99999999h", "1dd", "١s"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestDurationRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(290*year/time.Millisecond)).Draw(t, "ms")) * time.Millisecond
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%v is written %s and read %v, %v", d, FormatDuration(d), got, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"0", "1h30m", "90d", "1y2w3d4h5m6s7ms", "99999999999999999999s", "1ss"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q is %v", text, d)
		}
		if again, err := ParseDuration(FormatDuration(d)); err != nil || again != d {
			t.Fatalf("%q is %v, then %v, %v", text, d, again, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("data: x\nlog:\n  level: debug\ntrusted_proxies: [10.0.0.0/8]\n"))
	f.Add([]byte(strings.Repeat("[", 1000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLoader(nil)
		l.file("x.yaml", data)
		_ = l.faults.Error()
		for _, fault := range l.faults {
			if fault.Message == "" || !strings.HasPrefix(fault.Where, "x.yaml") {
				t.Fatalf("fault without a place or a word: %+v", fault)
			}
		}
	})
}

const (
	docBegin = "<!-- settings: made by `make generate`, do not edit -->\n"
	docEnd   = "<!-- settings end -->\n"
)

// TestOperationsDoc holds the settings table of docs/operations.md to the code; -update writes it.
func TestOperationsDoc(t *testing.T) {
	const path = "../../docs/operations.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), docBegin)
	_, tail, ended := strings.Cut(rest, docEnd)
	if !ok || !ended {
		t.Fatalf("%s has lost the marks of its settings table", path)
	}
	golden(t, path, head+docBegin+Markdown()+docEnd+tail)
}
