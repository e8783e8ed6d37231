package check

import (
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		target string
		port   uint16
		want   string // of String, or of the error after "!"
	}{
		{"example.org:443", 0, "example.org:443"},
		{"Example.ORG:443", 0, "example.org:443"},
		{"example.org.:443", 0, "example.org.:443"},
		{"bücher.example:80", 0, "xn--bcher-kva.example:80"},
		{"192.0.2.1:1", 0, "192.0.2.1:1"},
		{"[2001:db8::1]:65535", 0, "[2001:db8::1]:65535"},
		{"[fe80::1%eth0]:22", 0, "[fe80::1%eth0]:22"},
		{"_sip._tcp.example.org:5060", 0, "_sip._tcp.example.org:5060"},
		{"example.org", 443, "example.org:443"},
		{"2001:db8::1", 443, "[2001:db8::1]:443"},
		{"[2001:db8::1]", 443, "[2001:db8::1]:443"},
		{"example.org", 0, "!must be HOST:PORT"},
		{"example.org:0", 0, "!between 1 and 65535"},
		{"example.org:65536", 0, "!between 1 and 65535"},
		{"example.org:-1", 0, "!between 1 and 65535"},
		{"example.org:+80", 0, "!between 1 and 65535"},
		{"example.org:http", 0, "!between 1 and 65535"},
		{"example.org:", 0, "!between 1 and 65535"},
		{":443", 0, "!no host"},
		{"", 0, "!empty"},
		{"http://example.org:80", 0, "!not a URL"},
		{"user@example.org:80", 0, "!without a user"},
		{"exa mple.org:80", 0, "!spaces"},
		{"example.org\n:80", 0, "!control characters"},
		{"example.org\x00:80", 0, "!control characters"},
		{"exa\xffmple:80", 0, "!UTF-8"},
		{"a..b:80", 0, "!empty or longer"},
		{strings.Repeat("a", 64) + ".org:80", 0, "!longer than 63"},
		{strings.Repeat("a.", 130) + "org:80", 0, "!longer than 253"},
		{strings.Repeat("a", 2001), 80, "!at most 2000"},
		{"1:2:3", 0, "!must be HOST:PORT"},
		{"a/b:80", 0, "!character '/'"},
	}
	for _, tt := range tests {
		got, err := parseEndpoint(tt.target, tt.port)
		if message, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%q: got %v, %v, want an error with %q", tt.target, got, err, message)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%q: got %v, %v, want %q", tt.target, got, err, tt.want)
		}
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	tests := []struct{ target, want string }{
		{"https://example.org", "example.org:443"},
		{"http://example.org/a?b=c", "example.org:80"},
		{"HTTP://EXAMPLE.org:8080", "example.org:8080"},
		{"http://[::1]:8080/", "[::1]:8080"},
		{"http://[fe80::1%25eth0]/", "[fe80::1%eth0]:80"},
		{"https://bücher.example/", "xn--bcher-kva.example:443"},
		{"ftp://example.org", "!must begin with http"},
		{"example.org", "!must begin with http"},
		{"http:example.org", "!no host"},
		{"http://", "!no host"},
		{"http:///path", "!no host"},
		{"http://:80/", "!no host"},
		{"http://example.org:/", "!colon without a port"},
		{"http://example.org:0/", "!between 1 and 65535"},
		{"http://example.org:65536/", "!between 1 and 65535"},
		{"http://user:pass@example.org/", "!config.basic"},
		{"http://user@example.org/", "!config.basic"},
		{"http://example.org/#top", "!fragment"},
		{"http://example.org/#", "!fragment"},
		{"http://exa mple.org/", "!spaces"},
		{"http://example.org/\r\nX: y", "!control characters"},
		{"http://example.org/%zz", "!must be a URL"},
		{"http://" + strings.Repeat("a", 2000), "!at most 2000"},
	}
	for _, tt := range tests {
		_, got, err := parseURL(tt.target)
		if message, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%q: got %v, %v, want an error with %q", tt.target, got, err, message)
			}
			continue
		}
		if err != nil || got.String() != tt.want {
			t.Errorf("%q: got %v, %v, want %q", tt.target, got, err, tt.want)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"example.org:443", "[::1]:1", "http://example.org/a?b", "https://[fe80::1%25a]:1/", "bücher.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if p, err := parseEndpoint(target, 0); err == nil {
			again, err := parseEndpoint(p.String(), 0)
			if err != nil || again != p {
				t.Errorf("%q is read as %q, and that as %v, %v", target, p, again, err)
			}
		}
		if u, p, err := parseURL(target); err == nil {
			if u.User != nil || u.Fragment != "" || p.port == 0 || p.host == "" || strings.ContainsAny(p.host, "\r\n \x00/@") {
				t.Errorf("%q is read as %+v", target, p)
			}
			h := newHop(u, p)
			if strings.ContainsAny(h.uri+h.host, "\r\n \x00") {
				t.Errorf("%q gives the request line %q for %q", target, h.uri, h.host)
			}
		}
		if name, err := queryName(target, "A"); err == nil && !strings.HasSuffix(name, ".") {
			t.Errorf("%q is asked for as %q", target, name)
		}
	})
}
