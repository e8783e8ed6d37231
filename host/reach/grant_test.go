package reach

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tocsinhq/tocsin/engine/netpolicy"
)

// settings is the policy that the server's settings make.
func settings(allow ...string) netpolicy.Policy {
	p := netpolicy.Policy{Setting: "plugins.allow_addresses"}
	for _, a := range allow {
		p.Allow = append(p.Allow, netip.MustParsePrefix(a))
	}
	return p
}

func addresses(t testing.TB, text string) []netip.Addr {
	t.Helper()
	var addrs []netip.Addr
	for _, a := range strings.Fields(text) {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

func grantOf(t testing.TB, text string) Grant {
	t.Helper()
	var g Grant
	for _, p := range strings.Fields(text) {
		parsed, err := ParsePermission(p)
		if err != nil {
			t.Fatal(err)
		}
		g.Permissions = append(g.Permissions, parsed)
	}
	return g
}

func accessOf(asked string) (Access, error) {
	scheme, address, _ := strings.Cut(asked, "://")
	if scheme == "http" || scheme == "https" || scheme == "gopher" || scheme == "file" || scheme == "ws" {
		return ParseURL(asked)
	}
	return ParseAccess(scheme, address)
}

// TestAllowed is the table of verdicts. An access that is followed by others is a redirect: each hop is decided by itself.
func TestAllowed(t *testing.T) {
	t.Parallel()
	const yes = ""
	for i, tt := range []struct {
		granted  string
		target   string
		config   string
		asked    string
		resolved string
		want     string // part of the refusal; "" is allowed
	}{
		// Nothing by default.
		{"", "h:1", "", "tcp://h:1", "8.8.8.8", "not granted: tcp://h:1; the plugin was granted nothing"},
		// The target, and nothing beside it.
		{"tcp://{target}", "redis.example.com:6379", "", "tcp://redis.example.com:6379", "8.8.8.8", yes},
		{"tcp://{target}", "redis.example.com:6379", "", "tcp://redis.example.com:6380", "8.8.8.8", "tcp://redis.example.com:6380; the plugin was granted tcp://{target} (redis.example.com:6379)"},
		{"tcp://{target}", "redis.example.com:6379", "", "tcp://evil.example.com:6379", "8.8.8.8", "the plugin was granted tcp://{target} (redis.example.com:6379)"},
		{"tcp://{target}", "redis.example.com:6379", "", "udp://redis.example.com:6379", "8.8.8.8", "not granted"},
		{"tcp://{target}", "redis.example.com:6379", "", "tls://redis.example.com:6379", "8.8.8.8", "not granted"},
		{"tcp://{target}", "redis.example.com:6379", "", "dns://redis.example.com", "", "not granted"},
		{"tcp://{target}", "redis.example.com", "", "tcp://redis.example.com:6379", "8.8.8.8", "tcp://{target} (it has no port)"},
		{"tcp://{target}", "", "", "tcp://h:1", "8.8.8.8", "tcp://{target} (there is no target)"},
		{"tcp://{target}:22", "redis.example.com:6379", "", "tcp://redis.example.com:22", "8.8.8.8", yes},
		{"tcp://{target}:22", "redis.example.com:6379", "", "tcp://redis.example.com:6379", "8.8.8.8", "not granted"},
		{"tcp://{target}", "redis://cache.example.com:6379/0", "", "tcp://cache.example.com:6379", "8.8.8.8", yes},
		{"tls://{target}", "https://example.com/path", "", "tls://example.com:443", "8.8.8.8", yes},
		{"tls://{target}", "example.com", "", "cert://example.com:443", "8.8.8.8", yes},
		{"cert://{target}", "example.com", "", "tls://example.com:443", "8.8.8.8", "not granted"},
		{"icmp://{target}", "example.com:80", "", "icmp://example.com", "8.8.8.8", yes},
		{"dns://{target}", "example.com", "", "dns://example.com", "", yes},
		{"dns://{target}", "example.com", "", "dns://www.example.com", "", "not granted"},
		// URLs are read by the scheme.
		{"https://{target}", "https://example.com/health?x=1", "", "https://example.com/other", "8.8.8.8", yes},
		{"https://{target}", "https://example.com:8443/", "", "https://example.com:8443/", "8.8.8.8", yes},
		{"https://{target}", "https://example.com:8443/", "", "https://example.com/", "8.8.8.8", "not granted"},
		{"https://{target}", "https://example.com/", "", "http://example.com/", "8.8.8.8", "not granted: http://example.com:80"},
		{"http://{target}", "https://example.com/", "", "http://example.com/", "8.8.8.8", "http://{target} (its URL is https)"},
		{"https://{target}", "https://user:pw@example.com/", "", "https://example.com/", "8.8.8.8", "a user name before @ is not allowed"},
		{"https://{target}", "https://example.com/", "", "https://example.com@evil.example/", "8.8.8.8", "a user name before @ is not allowed"},
		{"https://{target}", "https://example.com/", "", `https://evil.example\@example.com/`, "8.8.8.8", "URL"},
		{"https://{target}", "https://example.com/", "", "https://evil.example#@example.com/", "8.8.8.8", "not granted"},
		{"https://{target}", "https://example.com/", "", "gopher://example.com/", "8.8.8.8", `scheme "gopher" is neither http nor https`},
		{"https://{target}", "https://example.com/", "", "file:///etc/passwd", "", "host is missing"},
		{"tcp://{target}", "h:1", "", "unix:///run/docker.sock", "", `scheme "unix" is none of`},
		// Configuration.
		{"https://{config.url}", "", `{"url":"https://hooks.example.com/secret"}`, "https://hooks.example.com/x", "8.8.8.8", yes},
		{"https://{config.url}", "", `{}`, "https://hooks.example.com/x", "8.8.8.8", "https://{config.url} (it is not set)"},
		{"https://{config.url}", "", `{"url":5}`, "https://hooks.example.com/x", "8.8.8.8", "neither a string nor a list"},
		{"tcp://{config.servers}", "", `{"servers":["a.example:1","b.example:2"]}`, "tcp://b.example:2", "8.8.8.8", yes},
		{"tcp://{config.servers}", "", `{"servers":["a.example:1","b.example:2"]}`, "tcp://b.example:1", "8.8.8.8", "not granted"},
		// Names, wildcards, case, dots, international names.
		{"https://api.example.com", "", "", "https://API.Example.COM./", "8.8.8.8", yes},
		{"https://api.example.com.", "", "", "https://api.example.com/", "8.8.8.8", yes},
		{"https://*.example.com", "", "", "https://a.b.example.com/", "8.8.8.8", yes},
		{"https://*.example.com", "", "", "https://example.com/", "8.8.8.8", "not granted"},
		{"https://*.example.com", "", "", "https://evilexample.com/", "8.8.8.8", "not granted"},
		{"https://bücher.example", "", "", "https://xn--bcher-kva.example/", "8.8.8.8", yes},
		{"https://{target}", "https://BÜCHER.example", "", "https://bücher.example/", "8.8.8.8", yes},
		{"https://example.com", "", "", "https://ехample.com/", "8.8.8.8", "not granted: https://xn--"}, // two Cyrillic letters
		// Ports.
		{"tcp://db.example.com:80,443,8000-8100", "", "", "tcp://db.example.com:8050", "8.8.8.8", yes},
		{"tcp://db.example.com:80,443,8000-8100", "", "", "tcp://db.example.com:8101", "8.8.8.8", "not granted"},
		{"tcp://db.example.com:*", "", "", "tcp://db.example.com:65535", "8.8.8.8", yes},
		{"tcp://db.example.com:*", "", "", "tcp://db.example.com:0", "", "no port from 1 to 65535"},
		{"tcp://db.example.com:*", "", "", "tcp://db.example.com:65536", "", "no port from 1 to 65535"},
		{"tcp://db.example.com:*", "", "", "tcp://db.example.com", "", "the port is missing"},
		{"https://api.example.com", "", "", "https://api.example.com:444/", "8.8.8.8", "not granted"},
		// Addresses, whatever they are written as.
		{"tcp://8.8.8.8:53", "", "", "tcp://8.8.8.8:53", "8.8.8.8", yes},
		{"tcp://8.8.8.8:53", "", "", "tcp://[::ffff:8.8.8.8]:53", "8.8.8.8", yes},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://2130706433:80", "127.0.0.1", "no address in its usual form"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://0177.0.0.1:80", "127.0.0.1", "no address in its usual form"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://0x7f.1:80", "127.0.0.1", "no address in its usual form"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://0x7F000001:80", "127.0.0.1", "no address in its usual form"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://127.1:80", "127.0.0.1", "no address in its usual form"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://１２７.0.0.1:80", "127.0.0.1", "no address in its usual form"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://127.0.0.1.:80", "127.0.0.1", "127.0.0.1 is a loopback address"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://example.com:80", "8.8.8.8", "not granted"}, // a network holds no names
		{"tcp://0.0.0.0/0:80", "", "", "tcp://[::ffff:10.0.0.1]:80", "10.0.0.1", "10.0.0.1 is a private address"},
		{"tcp://[::/0]:80", "", "", "tcp://[64:ff9b::a00:1]:80", "64:ff9b::a00:1", "64:ff9b::a00:1 is a private address"},
		{"tcp://[::/0]:80", "", "", "tcp://[64:ff9b::808:808]:80", "64:ff9b::808:808", yes},
		{"tcp://[::/0]:80", "", "", "tcp://[64:ff9b:1::a00:1]:80", "64:ff9b:1::a00:1", "local translator"},
		{"tcp://[::/0]:80", "", "", "tcp://[2002:a00:1::1]:80", "2002:a00:1::1", "a private address"},
		{"tcp://[::/0]:80", "", "", "tcp://[2001::1]:80", "2001::1", "a Teredo address"},
		{"tcp://[::/0]:80", "", "", "tcp://[::1]:80", "::1", "a loopback address"},
		{"tcp://[::/0]:80", "", "", "tcp://[::a00:1]:80", "::a00:1", "a private address"},
		{"tcp://[::/0]:80", "", "", "tcp://[fc00::1]:80", "fc00::1", "a private address"},
		{"tcp://[::/0]:80", "", "", "tcp://8.8.8.8:80", "8.8.8.8", "not granted"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://100.64.0.1:80", "100.64.0.1", "a carrier's shared address"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://192.0.0.8:80", "192.0.0.8", "a protocol assignment"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://198.19.0.1:80", "198.19.0.1", "a benchmarking address"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://172.31.0.1:80", "172.31.0.1", "a private address"},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://172.32.0.1:80", "172.32.0.1", yes},
		{"tcp://0.0.0.0/0:80", "", "", "tcp://192.168.0.1:80", "192.168.0.1", "a private address"},
		// What the operator entered may be private, what the manifest names may not.
		{"tcp://{target}", "10.0.0.7:6379", "", "tcp://10.0.0.7:6379", "10.0.0.7", yes},
		{"tcp://{target}", "localhost:6379", "", "tcp://localhost:6379", "127.0.0.1 ::1", yes},
		{"tcp://{target}", "[::1]:6379", "", "tcp://[::1]:6379", "::1", yes},
		{"tcp://{target}", "::1", "", "tcp://[::1]:6379", "::1", "it has no port"},
		{"tcp://{target}", "db.internal:5432", "", "tcp://db.internal:5432", "10.0.0.7", yes},
		{"tcp://{config.host}", "", `{"host":"db.internal:5432"}`, "tcp://db.internal:5432", "192.168.1.5", yes},
		{"tcp://localhost:6379", "", "", "tcp://localhost:6379", "127.0.0.1", "127.0.0.1 is a loopback address, and the manifest names it; grant it with --allow-private"},
		{"tcp://10.0.0.0/8:80", "", "", "tcp://10.1.2.3:80", "10.1.2.3", "--allow-private"},
		{"tcp://db.example.com:80 tcp://{target}", "db.example.com:80", "", "tcp://db.example.com:80", "10.0.0.1", yes},
		// Rebinding: only the addresses that are allowed are dialled, and never another one than was named.
		{"https://api.example.com", "", "", "https://api.example.com/", "169.254.169.254", "plugins.allow_addresses"},
		{"https://api.example.com", "", "", "https://api.example.com/", "127.0.0.1 10.0.0.1", "127.0.0.1 is a loopback address"},
		{"https://api.example.com", "", "", "https://api.example.com/", "", "the name has no address"},
		{"tcp://{target}", "8.8.8.8:53", "", "tcp://8.8.8.8:53", "8.8.4.4", "8.8.4.4 is another address"},
		// What needs the server's settings, whoever entered it.
		{"http://{target}", "http://169.254.169.254/latest", "", "http://169.254.169.254/latest", "169.254.169.254", "plugins.allow_addresses"},
		{"http://{target}", "http://metadata.example/", "", "http://metadata.example/", "::ffff:169.254.169.254", "plugins.allow_addresses"},
		{"http://{target}", "http://metadata.example/", "", "http://metadata.example/", "64:ff9b::a9fe:a9fe", "plugins.allow_addresses"},
		{"http://{target}", "http://[fd00:ec2::254]/", "", "http://[fd00:ec2::254]/", "fd00:ec2::254", "plugins.allow_addresses"},
		{"tcp://{target}", "[fe80::1%eth0]:80", "", "tcp://[fe80::1%eth0]:80", "fe80::1%eth0", "plugins.allow_addresses"},
		{"udp://{target}", "224.0.0.1:5353", "", "udp://224.0.0.1:5353", "224.0.0.1", "plugins.allow_addresses"},
		{"udp://{target}", "255.255.255.255:67", "", "udp://255.255.255.255:67", "255.255.255.255", "plugins.allow_addresses"},
		{"tcp://{target}", "0.0.0.0:80", "", "tcp://0.0.0.0:80", "0.0.0.0", "plugins.allow_addresses"},
		{"tcp://{target}", "0.1.2.3:80", "", "tcp://0.1.2.3:80", "0.1.2.3", "plugins.allow_addresses"},
		{"tcp://{target}", "[::]:80", "", "tcp://[::]:80", "::", "plugins.allow_addresses"},
	} {
		name := fmt.Sprintf("%d: %s with target %q, config %s: %s at %s", i, tt.granted, tt.target, tt.config, tt.asked, tt.resolved)
		access, err := accessOf(tt.asked)
		if err == nil {
			_, err = grantOf(t, tt.granted).Allowed(Call{Target: tt.target, Config: json.RawMessage(tt.config)}, access, addresses(t, tt.resolved), settings())
		}
		if tt.want == yes && err != nil || tt.want != yes && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s\n got %v\nwant %q", name, err, tt.want)
		}
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	g := grantOf(t, "https://{target} https://*.example.com")
	call := Call{Target: "https://shop.example.com/"}
	for _, hop := range []struct{ url, resolved, want string }{
		{"https://shop.example.com/", "10.0.0.1", ""},
		{"https://login.example.com/", "8.8.8.8", ""},
		{"https://login.example.com/", "10.0.0.1", "--allow-private"},
		{"http://shop.example.com/", "10.0.0.1", "not granted: http://shop.example.com:80"},
		{"https://evil.example/", "8.8.8.8", "not granted: https://evil.example:443; the plugin was granted https://{target} (shop.example.com:443), https://*.example.com"},
		{"https://169.254.169.254/", "169.254.169.254", "not granted"},
	} {
		access, err := ParseURL(hop.url)
		if err == nil {
			_, err = g.Allowed(call, access, addresses(t, hop.resolved), settings())
		}
		if hop.want == "" && err != nil || hop.want != "" && (!errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), hop.want)) {
			t.Errorf("redirect to %s at %s: %v, want %q", hop.url, hop.resolved, err, hop.want)
		}
	}
}

func TestAllowPrivateAndSettings(t *testing.T) {
	t.Parallel()
	g := grantOf(t, "tcp://10.0.0.0/8:80 tcp://169.254.0.0/16:80 tcp://localhost:80")
	g.AllowPrivate = true
	policy := settings("169.254.1.0/24")
	for asked, want := range map[string]string{
		"10.0.0.1": "", "localhost": "", "169.254.1.1": "", "169.254.169.254": "plugins.allow_addresses",
	} {
		access, err := ParseAccess("tcp", asked+":80")
		if err != nil {
			t.Fatal(err)
		}
		resolved := asked
		if asked == "localhost" {
			resolved = "127.0.0.1"
		}
		_, err = g.Allowed(Call{}, access, addresses(t, resolved), policy)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", asked, err, want)
		}
	}
	access := Access{"tcp", Host{Name: "localhost"}, 80}
	if err := (Verdict{}).Check(netip.MustParseAddr("8.8.8.8")); !errors.Is(err, ErrDenied) {
		t.Errorf("the zero verdict says %v", err)
	}
	v, err := g.Decide(Call{}, access, settings())
	if err != nil {
		t.Fatal(err)
	}
	usable, err := v.Usable(addresses(t, "169.254.169.254 127.0.0.1 ::ffff:169.254.169.254 ::1"))
	if diff := cmp.Diff([]string{"127.0.0.1", "::1"}, texts(usable)); err != nil || diff != "" {
		t.Errorf("usable addresses: %v %s", err, diff)
	}
}

func texts[T fmt.Stringer](list []T) []string {
	var all []string
	for _, v := range list {
		all = append(all, v.String())
	}
	return all
}

func TestRefusalHidesSecrets(t *testing.T) {
	t.Parallel()
	g := grantOf(t, "https://{config.url} tcp://{config.url}")
	access, err := ParseURL("https://evil.example/")
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"https://hooks.example.com/CANARY", "https://u:CANARY@x.example/", "x.example/CANARY", "https://x:CANARY/", "https://[CANARY/", "u:CANARY@x:1", "https://x/%zzCANARY"} {
		config, err := json.Marshal(map[string]string{"url": value})
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.Decide(Call{Config: config}, access, settings())
		if !errors.Is(err, ErrDenied) || strings.Contains(strings.ToLower(err.Error()), "canary") {
			t.Errorf("%s: %v", value, err)
		}
	}
	if _, err := ParseURL("https://x:y@z/CANARY"); err == nil || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("ParseURL: %v", err)
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ granted, asked, missing string }{
		{"", "", ""},
		{"tcp://{target}", "tcp://{target}", ""},
		{"tcp://{target}", "tcp://{target}:22", "tcp://{target}:22"},
		{"tcp://{target}:1-100", "tcp://{target}:22", ""},
		{"tcp://{target}", "udp://{target} tcp://{config.a}", "udp://{target} tcp://{config.a}"},
		{"tls://a.example", "cert://a.example tls://a.example:443", ""},
		{"cert://a.example", "tls://a.example", "tls://a.example"},
		{"tcp://a.example:1-100", "tcp://a.example:1,50-100 tcp://a.example:100-101", "tcp://a.example:100-101"},
		{"dns://*.example.com", "dns://a.b.example.com dns://*.b.example.com dns://example.com", "dns://example.com"},
		{"tcp://10.0.0.0/8:80", "tcp://10.1.0.0/16:80 tcp://10.0.0.1:80 tcp://0.0.0.0/0:80", "tcp://0.0.0.0/0:80"},
	} {
		missing := grantOf(t, tt.granted).Missing(grantOf(t, tt.asked).Permissions)
		if got := strings.Join(texts(missing), " "); got != tt.missing {
			t.Errorf("of %q granted %q misses %q, want %q", tt.asked, tt.granted, got, tt.missing)
		}
	}
}

// FuzzFill fills placeholders with what operators enter. What a permission stands for is allowed and nothing beside it, and an
// error does not show a configured value.
func FuzzFill(f *testing.F) {
	for _, seed := range []struct{ permission, before, after string }{
		{"tcp://{target}", "db.example:5432", ""},
		{"https://{target}", "https://Shop.Example/path?q=", "#x"},
		{"http://{target}:*", "[fd00::1%eth0]:80", ""},
		{"tls://{config.f}:443", "[::ffff:10.0.0.1]", ""},
		{"icmp://{config.f}", "10.0.0.1", ""},
		{"dns://{config.f}", "bücher.example", ":53"},
		{"dns://{target}", "10.0.0.1", ""},
		{"udp://{config.f}", "https://u:", "@host/"},
		{"tcp://{config.f}:1-9", `"],"f":["a`, "\\"},
	} {
		f.Add(seed.permission, seed.before, seed.after)
	}
	other, err := ParseHost("other.test")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, before, after string) {
		p, err := ParsePermission(text)
		if err != nil || !p.filled() {
			return
		}
		for _, value := range []string{before + after, before + "hush" + after} {
			config, err := json.Marshal(map[string][]string{p.ConfigField: {value}})
			if err != nil {
				t.Fatal(err)
			}
			call := Call{Target: value, Config: config}
			places, err := p.fill(call)
			if err != nil {
				if p.ConfigField != "" && strings.Contains(err.Error(), "hush") && !strings.Contains(text, "hush") {
					t.Errorf("%s: the error shows %q: %v", text, value, err)
				}
				continue
			}
			grant := Grant{Permissions: []Permission{p}}
			for _, at := range places {
				if p.Scheme == "dns" && at.host.Name == "" {
					continue // nobody can ask for that
				}
				access := Access{Scheme: p.Scheme, Host: at.host}
				if at.ports != nil {
					access.Port = at.ports[0].Low
				}
				if _, err := grant.Decide(call, access, settings()); err != nil {
					t.Errorf("%s with %q: %v", text, value, err)
				}
				_, address, _ := strings.Cut(access.String(), "://")
				if again, err := ParseAccess(p.Scheme, address); err != nil || again != access {
					t.Errorf("%s with %q is %s, read as %s, %v", text, value, access, again, err)
				}
				access.Host = other
				if _, err := grant.Decide(call, access, settings()); err == nil && at.host != other {
					t.Errorf("%s with %q allows %s", text, value, access)
				}
			}
		}
	})
}
