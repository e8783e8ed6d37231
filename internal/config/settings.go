// Package config holds the server's settings. They come from defaults, a YAML file, the environment and flags, each
// overriding the one before. One table, the tags of Settings, is the source of all four and of the documentation.
package config

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// EnvPrefix begins the name of every environment variable that is a setting.
const EnvPrefix = "TOCSIN_"

// Settings are the server's settings. What Load returns is valid; the zero value is not.
//
// A field's tags are its row in the table: key is its name, default its default and demo its default under --demo, min and
// max bound numbers and durations, oneof lists the values of a text, env:"only" keeps a secret out of files and flags.
type Settings struct {
	Data        string `key:"data" default:"tocsin-data" demo:"tocsin-demo" doc:"folder for the database and the key that seals its secrets; made when missing"`
	Listen      string `key:"listen" default:":8080" demo:"127.0.0.1:8080" doc:"address that the API and heartbeats are served on, as host:port; port 0 takes any free one"`
	AdminListen string `key:"admin_listen" doc:"address of the profiler (pprof), which needs no token: keep it on 127.0.0.1; empty turns it off"`
	PublicURL   string `key:"public_url" doc:"address under which people reach this server, for the links in messages; empty leaves links out"`
	Database    string `key:"database" doc:"SQLite file; empty is tocsin.db in the data folder"`

	LogLevel  slog.Level `key:"log.level" default:"info" doc:"lowest level that is logged: debug, info, warn or error"`
	LogFormat string     `key:"log.format" default:"text" oneof:"text json" doc:"form of a log line: text or json"`

	Workers    int            `key:"workers" default:"0" min:"0" max:"1000000" doc:"checks that may run at once; 0 is 4096"`
	KindLimits map[string]int `key:"checks.kind_limits" min:"1" max:"1000000" doc:"checks of one kind that may run at once, as kind=number, where a plugin's name is a kind too; a kind not named may take half of the workers"`
	CheckAllow []netip.Prefix `key:"checks.allow_addresses" doc:"link-local, multicast and reserved addresses that checks may connect to, as addresses or prefixes; all others always may"`
	AlertAllow []netip.Prefix `key:"alerts.allow_addresses" doc:"the same for the connections that deliver notifications"`

	PluginAllow    []netip.Prefix `key:"plugins.allow_addresses" doc:"the same for the connections that are made for plugins"`
	PluginDegraded bool           `key:"plugins.allow_degraded_sandbox" doc:"run plugins although a required layer of their sandbox is missing on this machine; every start says so"`

	TrustedProxies []netip.Prefix `key:"trusted_proxies" doc:"reverse proxies whose X-Forwarded-For is believed, as addresses or prefixes; empty believes none"`

	KeepSamples  time.Duration `key:"retention.samples" default:"90d" min:"1d" max:"100y" doc:"age up to which single samples are kept"`
	KeepHourly   time.Duration `key:"retention.hourly" default:"2y" min:"1d" max:"100y" doc:"age up to which hourly sums are kept; daily ones stay for ever"`
	KeepEvents   int           `key:"retention.events" default:"100000" min:"1000" max:"1000000000" doc:"newest events, and newest incidents that have ended, kept"`
	KeepLogLines int           `key:"retention.log_lines" default:"10000" min:"100" max:"100000000" doc:"newest log lines kept in the database"`
	KeepOutbox   time.Duration `key:"retention.outbox" default:"7d" min:"1d" max:"10y" doc:"age up to which notifications that were delivered or given up are kept"`
	PruneEvery   time.Duration `key:"retention.prune_every" default:"10m" min:"1s" max:"1d" doc:"time between two rounds of the pruner"`

	DrainTimeout time.Duration `key:"drain_timeout" default:"15s" min:"1s" max:"10m" doc:"time that checks, deliveries and requests under way get to end when the server is stopped"`
	Demo         bool          `key:"demo" doc:"start with monitors that watch this machine, when there are none yet"`

	AdminToken Secret `key:"admin_token" env:"only" doc:"API token of an administrator that the first start sets up, at least 16 characters; else one is made and printed once"`
	SecretKey  Secret `key:"secret_key" env:"only" doc:"key that seals secrets in the database, base64 of 32 bytes; else secret.key in the data folder, made on the first start"`
}

// Secret is text that is not shown: it prints as dots.
type Secret string

// String returns dots, or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "••••"
}

// GoString hides the secret from %#v as well.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// LogValue hides the secret from logs that write JSON.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// DSN is where the store is, in the form it takes.
func (s *Settings) DSN() string {
	if s.Database != "" {
		return s.Database
	}
	return filepath.Join(s.Data, "tocsin.db")
}

// Setting is one row of the table.
type Setting struct {
	Key     string // in the file: log.level is level below log
	Env     string // TOCSIN_LOG_LEVEL
	Flag    string // log-level, without the dashes; empty when the environment is the only source
	Type    string // what a value is: text, number, duration, true|false, list, kind=number …
	Default string // as it would be written; empty is nothing
	Doc     string
	Bool    bool // the flag may stand without a value

	index []int // of the field in Settings
	tag   reflect.StructTag
}

// Table returns every setting in the order of the documentation.
func Table() []Setting {
	var table []Setting
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Settings]()) {
		key := f.Tag.Get("key")
		s := Setting{
			Key:     key,
			Env:     EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
			Flag:    strings.NewReplacer(".", "-", "_", "-").Replace(key),
			Type:    typeName(f.Type),
			Default: f.Tag.Get("default"),
			Doc:     f.Tag.Get("doc"),
			Bool:    f.Type.Kind() == reflect.Bool,
			index:   f.Index,
			tag:     f.Tag,
		}
		if f.Tag.Get("env") == "only" {
			s.Flag = ""
		}
		table = append(table, s)
	}
	return table
}

// Validate returns every fault of the settings that concerns more than the form of one value, as Faults.
func (s *Settings) Validate() error {
	var faults Faults
	add := func(key, format string, args ...any) {
		faults = append(faults, Fault{Key: key, Message: fmt.Sprintf(format, args...)})
	}
	if s.Data == "" {
		add("data", "must name a folder")
	}
	if err := checkAddress(s.Listen); err != nil {
		add("listen", "%v", err)
	}
	if s.AdminListen != "" {
		if err := checkAddress(s.AdminListen); err != nil {
			add("admin_listen", "%v", err)
		} else if s.AdminListen == s.Listen && !strings.HasSuffix(s.Listen, ":0") {
			add("admin_listen", "must differ from listen")
		}
	}
	if s.PublicURL != "" {
		if err := checkURL(s.PublicURL); err != nil {
			add("public_url", "%v", err)
		}
	}
	if strings.Contains(s.Database, "://") {
		add("database", "must be a path or file:path: SQLite is the only database")
	}
	if s.KeepHourly < s.KeepSamples {
		add("retention.hourly", "must be at least retention.samples (%s), so that no range loses its sums before its samples", FormatDuration(s.KeepSamples))
	}
	if t := string(s.AdminToken); t != "" && (len(t) < 16 || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' })) {
		add("admin_token", "must have at least 16 characters, all of them visible ASCII")
	}
	if s.SecretKey != "" && !isKey(string(s.SecretKey)) {
		add("secret_key", "must be 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64")
	}
	return faults.Err()
}

// isKey reports whether a text is a key as the sealer takes it: base64 of either alphabet, padded or not.
func isKey(text string) bool {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	key, err := base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(text))
	return err == nil && len(key) == 32
}

// limitsKey is the key of KindLimits.
const limitsKey = "checks.kind_limits"

// checkAddress accepts host:port with an empty host, a name or an address, and a port from 0 to 65535.
func checkAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("must be host:port, such as 127.0.0.1:8080 or :8080 (got %q)", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("must have a port from 0 to 65535 (got %q)", port)
	}
	return nil
}

// checkURL accepts an absolute http or https address without user, query and fragment.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("must begin with http:// or https:// and name a host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return fmt.Errorf("must have no user, query or fragment")
	}
	return nil
}
