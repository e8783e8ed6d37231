package reach

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tocsinhq/tocsin/sdk"
)

func TestPermissionForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ text, words string }{
		"tcp://{target}":                   {"tcp://{target}", "open TCP connections to the monitor's target, whatever you enter there"},
		"tls://{target}:443":               {"tls://{target}:443", "open TLS connections to and read the certificate of the monitor's target, whatever you enter there, on port 443"},
		"https://{config.url}":             {"https://{config.url}", "send HTTPS requests to the address that you enter as url in its configuration"},
		"https://API.example.com.":         {"https://api.example.com", "send HTTPS requests to api.example.com, on port 443"},
		"http://bücher.example:80,8080":    {"http://xn--bcher-kva.example:80,8080", "send unencrypted HTTP requests to xn--bcher-kva.example, on ports 80 and 8080"},
		"dns://*.example.com":              {"dns://*.example.com", "ask the DNS about every name below example.com"},
		"icmp://8.8.8.8":                   {"icmp://8.8.8.8", "ping 8.8.8.8"},
		"udp://[2001:4860::8888]:53":       {"udp://[2001:4860::8888]:53", "exchange UDP datagrams with 2001:4860::8888, on port 53"},
		"tcp://10.0.0.0/8:443,1-1024,80":   {"tcp://10.0.0.0/8:1-1024", "open TCP connections to every address in 10.0.0.0/8, on ports 1 to 1024 (in a private network: it stays closed unless you allow private addresses)"},
		"tcp://[::ffff:1.1.1.1]:7-8,9,2":   {"tcp://1.1.1.1:2,7-9", "open TCP connections to 1.1.1.1, on ports 2 and 7 to 9"},
		"tcp://0.0.0.0/0:*":                {"tcp://0.0.0.0/0:*", "open TCP connections to every IPv4 address, on every port"},
		"tcp://[fd00::/8]:1-65535":         {"tcp://[fd00::/8]:*", "open TCP connections to every address in fd00::/8, on every port (in a private network: it stays closed unless you allow private addresses)"},
		"cert://localhost":                 {"cert://localhost", "read the certificate of localhost, on port 443 (in a private network: it stays closed unless you allow private addresses)"},
		"tcp://a_b.example:1,3,5-5,70-080": {"tcp://a_b.example:1,3,5,70-80", "open TCP connections to a_b.example, on ports 1, 3, 5 and 70 to 80"},
	} {
		p, err := ParsePermission(text)
		if err != nil || p.String() != want.text || p.Words() != want.words {
			t.Errorf("%s: %v\n got %s: %s\nwant %s: %s", text, err, p, p.Words(), want.text, want.words)
		}
	}
}

func TestPermissionFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                  "must be SCHEME://HOST[:PORTS]",
		"{target}":                          "must be SCHEME://HOST[:PORTS]",
		"TCP://{target}":                    `scheme "TCP" is none of`,
		"unix:///run/docker.sock":           `scheme "unix" is none of`,
		"file:///etc":                       `scheme "file" is none of`,
		"*://{target}":                      `scheme "*" is none of`,
		"tcp://":                            "the host is missing",
		"tcp://:80":                         "the host is missing",
		"tcp://h":                           "tcp needs ports",
		"udp://h":                           "udp needs ports",
		"tcp://h:":                          "the port is missing",
		"tcp://h:0":                         "no port from 1 to 65535",
		"tcp://h:+80":                       "no port from 1 to 65535",
		"tcp://h:1,,2":                      "the port is missing",
		"tcp://h:9-1":                       "the first must not be above the last",
		"tcp://h:1-2-3":                     "no port from 1 to 65535",
		"tcp://h:" + manyPorts():            "more than 32 parts",
		"icmp://h:7":                        "icmp has no ports",
		"dns://h:53":                        "dns has no ports",
		"dns://8.8.8.8":                     "dns is about names",
		"dns://8.0.0.0/8":                   "dns is about names",
		"tcp://*:80":                        "for every address write 0.0.0.0/0",
		"tcp://a.*.example:80":              "* stands for the labels before a name only",
		"tcp://*.*.example:80":              "no host name",
		"tcp://*.10.0.0.1:80":               "not before an address",
		"tcp://u@h:80":                      "a user name before @ is not allowed",
		"https://h/path":                    "a permission has no path",
		"https://h?x":                       "no host name",
		"https://a b":                       "no host name",
		"https://-a.example":                "no host name",
		"https://a..example":                "no host name",
		"https://2130706433":                "no address in its usual form",
		"https://0x7f.1":                    "no address in its usual form",
		"https://0177.0.0.1":                "no address in its usual form",
		"tcp://2001:db8::1:80":              "must be in brackets",
		"tcp://[2001:db8::1:80":             "not closed",
		"tcp://[2001:db8::1]80":             "cannot follow the host",
		"tcp://[fe80::1%eth0]:80":           "no zone",
		"tcp://[10.0.0.1]:80":               "brackets are for IPv6",
		"tcp://[h]:80":                      "brackets are for IPv6",
		"tcp://10.0.0.1/8:80":               "write 10.0.0.0/8",
		"tcp://10.0.0.0/33:80":              "is no network such as",
		"tcp://[10.0.0.0/8]:80":             "an IPv6 network goes in brackets",
		"tcp://[::ffff:0:0/96]:80":          "write the IPv4 network",
		"tcp://{target":                     "not closed",
		"tcp://{Target}:1":                  "neither {target} nor {config.FIELD}",
		"tcp://{config.}":                   "neither {target} nor {config.FIELD}",
		"tcp://{config.a.b}":                "neither {target} nor {config.FIELD}",
		"tcp://{target}.example.com":        "cannot follow the host",
		"tcp://db.{target}:1":               "a placeholder stands for the whole host",
		"tcp://" + strings.Repeat("a", 600): "longer than 512 bytes",
	} {
		p, err := ParsePermission(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %+v, %v, want an error with %q", text, p, err, want)
		}
	}
	if _, err := ParsePermissions([]sdk.Permission{{Allow: "x"}, {Allow: "dns://a"}, {Allow: "y"}}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("of two faults the error tells %v", err)
	}
}

func manyPorts() string { return strings.Repeat("1,", 32) + "1" }

func TestNotPublic(t *testing.T) {
	t.Parallel()
	for _, a := range strings.Fields(`127.0.0.1 127.8.9.10 0.0.0.0 0.1.2.3 ::1 :: 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
		100.64.0.1 192.0.0.1 198.18.0.1 224.0.0.1 ff02::1 240.0.0.1 255.255.255.255 ::ffff:10.0.0.1 ::ffff:127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001::1 ::7f00:1 ::2 fec0::1`) {
		if notPublic(netip.MustParseAddr(a)) == "" {
			t.Errorf("%s passes as public", a)
		}
	}
	for _, a := range strings.Fields("8.8.8.8 1.0.0.1 172.15.255.255 172.32.0.0 100.63.255.255 100.128.0.0 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808:: 2606:4700::1111") {
		if what := notPublic(netip.MustParseAddr(a)); what != "" {
			t.Errorf("%s is called %s", a, what)
		}
	}
}

func FuzzPermission(f *testing.F) {
	for _, seed := range []string{"tcp://{target}", "https://*.example.com:80,443", "udp://[2001:db8::/32]:1-1024", "tcp://10.0.0.0/8:*", "tls://{config.url}:1", "dns://bücher.example", "tcp://[::1]:0x1", "tcp://0x7f.1:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePermission(text)
		if err != nil {
			return
		}
		again, err := ParsePermission(p.String())
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%q is %+v, written %s and read as %+v, %v", text, p, p, again, err)
		}
		if !p.Covers(p) || p.Words() == "" {
			t.Errorf("%q does not cover itself, or has no words", text)
		}
	})
}

// FuzzAccess holds two things: what is read is written and read as the same, and a grant for one access allows no other.
func FuzzAccess(f *testing.F) {
	for _, seed := range []string{"example.com:80", "[::1]:80", "10.0.0.1.:80", "１２７.0.0.1:80", "u@h:1", "https://a/b", "https://[::1%25lo]/", "https://a\\@b/", "0x7f.1:80", "::1", "[::ffff:1.2.3.4]:5"} {
		f.Add("tcp", seed)
		f.Add("https", seed)
	}
	f.Fuzz(func(t *testing.T, scheme, text string) {
		access, err := ParseAccess(scheme, text)
		if err != nil {
			if access, err = ParseURL(text); err != nil {
				return
			}
		}
		_, address, _ := strings.Cut(access.String(), "://")
		again, err := ParseAccess(access.Scheme, address)
		if err != nil || again != access {
			t.Errorf("%q is %+v, written %s and read as %+v, %v", text, access, access, again, err)
		}
		if name := access.Host.Name; name != "" && (name != strings.ToLower(name) || strings.ContainsAny(name, "@/:%[]\\ ")) {
			t.Errorf("%q has the host name %q", text, name)
		}
		if _, err := grantOf(t, "https://example.com tcp://192.0.2.1:80").Decide(Call{}, access, settings()); err == nil &&
			access.String() != "https://example.com:443" && access.String() != "tcp://192.0.2.1:80" {
			t.Errorf("%q was allowed as %s", text, access)
		}
	})
}

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ permissions, target, want string }{
		{"tcp://{target}", "redis.example.com:6379", ""},
		{"tcp://{target}", "redis.example.com", "it has no port"},
		{"tcp://{target}", "0x7f.1:80", `"0x7f.1" is no address in its usual form, such as 192.0.2.1`},
		{"udp://{target} udp://{target}:123", "ntp.example.com", ""},
		{"http://{target} https://{target}", "https://example.com/path", ""},
		{"http://{target} https://{target}", "ftp://example.com/", "its URL is ftp"},
		{"tcp://{target}", "", "there is no target"},
		{"https://example.com", "anything at all", ""},
		{"", "anything", ""},
	} {
		err := CheckTarget(grantOf(t, tt.permissions).Permissions, tt.target)
		if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && got != tt.want {
			t.Errorf("%q of %q: %v, want %q", tt.target, tt.permissions, err, tt.want)
		}
	}
}
