package reach

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]struct {
		needs string
		open  Open
	}{
		"tcp/Example.com:80":         {"tcp://example.com:80", Open{Op: "tcp"}},
		"tcp/[2001:db8::1]:80?id=3":  {"tcp://[2001:db8::1]:80", Open{Op: "tcp", Stream: 3}},
		"tcp/b%C3%BCcher.example:80": {"tcp://xn--bcher-kva.example:80", Open{Op: "tcp"}},
		"udp/10.0.0.1:53":            {"udp://10.0.0.1:53", Open{Op: "udp"}},
		"tls/a.example:443?servername=b.example&insecure=1&alpn=h2,http/1.1": {"tls://a.example:443", Open{Op: "tls", Name: "b.example", Insecure: true, ALPN: []string{"h2", "http/1.1"}}},
		"tls/@3?servername=b.example":                                        {"", Open{Op: "tls", Stream: 3, TakeOver: true, Name: "b.example"}},
		"dns/mx/example.com.":                                                {"dns://example.com", Open{Op: "dns", Type: "MX"}},
		"dns/A/_x.example?server=%5B::1%5D:53":                               {"dns://_x.example udp://[::1]:53", Open{Op: "dns", Type: "A", Server: "[::1]:53"}},
		"icmp/::1":                                                           {"icmp://[::1]", Open{Op: "icmp"}},
		"cert/a.example:993":                                                 {"cert://a.example:993", Open{Op: "cert"}},
		"http":                                                               {"", Open{Op: "http"}},
		"error":                                                              {"", Open{Op: "error"}},
	} {
		got, err := ParsePath(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if needs := strings.Join(texts(got.Needs), " "); needs != want.needs {
			t.Errorf("%s needs %s, want %s", path, needs, want.needs)
		}
		if diff := cmp.Diff(want.open, got, cmpopts.IgnoreFields(Open{}, "Needs")); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	for path, want := range map[string]string{
		"":                                 "begins with none of",
		"etc/passwd":                       "begins with none of",
		"../etc/passwd":                    "begins with none of",
		"tcp":                              "the host is missing",
		"tcp/":                             "the host is missing",
		"tcp/h":                            "the port is missing",
		"tcp/h:80/x":                       "not percent-encoded",
		"tcp/a%2Fb:80":                     "no host name",
		"tcp/h:80%00":                      "no port",
		"tcp/h%zz:80":                      "not percent-encoded",
		"tcp/h:8%3":                        "not percent-encoded",
		"tcp/bücher.example:80":            "not percent-encoded",
		"tcp/u%40h:80":                     "user name",
		"tcp/u@h:80":                       "not percent-encoded",
		"tcp/0x7f.1:80":                    "usual form",
		"tcp/h:80?":                        "tcp has no option",
		"tcp/h:80?x=1":                     "tcp has no option",
		"tcp/h:80?id=1&id=1":               "repeated",
		"tcp/h:80?id=0":                    "no stream's id",
		"tcp/h:80?id=01":                   "no stream's id",
		"tcp/h:80?id=":                     "no value",
		"udp/h:80?id=1":                    "udp has no option",
		"tls/h:443?insecure=yes":           "must be 0 or 1",
		"tls/h:443?alpn=h2,,":              "empty",
		"tls/h:443?servername=a%20b":       "no host name",
		"tls/@x":                           "no stream's id",
		"dns/example.com":                  "no type of DNS record",
		"dns/A/10.0.0.1":                   "is no name",
		"dns/A/a.example?server=b":         "the port is missing",
		"icmp/h:80":                        "no port in icmp",
		"http/x":                           "nothing follows",
		"http?x":                           "nothing follows",
		"tcp/" + strings.Repeat("a", 2000): "longer than 1024",
	} {
		if got, err := ParsePath(path); !errors.Is(err, ErrPath) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is %+v, %v, want an error with %q", path, got, err, want)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"tcp/h:80?id=1", "tls/@1?alpn=h2,http/1.1", "dns/MX/a.example?server=b:53", "icmp/[::1]", "http", "tcp/%5B::1%5D:1", "cert/a%2fb:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		o, err := ParsePath(path)
		if err != nil {
			if !errors.Is(err, ErrPath) {
				t.Errorf("%q: %v", path, err)
			}
			return
		}
		if free := o.Op == "http" || o.Op == "error" || o.TakeOver; free != (len(o.Needs) == 0) {
			t.Errorf("%q needs %v", path, o.Needs)
		}
		for _, a := range o.Needs {
			if _, err := (Grant{}).Decide(Call{}, a, settings()); !errors.Is(err, ErrDenied) {
				t.Errorf("%q: without a grant %s is %v", path, a, err)
			}
		}
	})
}
