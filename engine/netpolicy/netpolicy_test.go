package netpolicy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		addr string
		want string // "" is allowed
	}{
		{"127.0.0.1", ""},
		{"127.8.9.10", ""},
		{"::1", ""},
		{"10.0.0.1", ""},
		{"172.16.0.1", ""},
		{"192.168.1.1", ""},
		{"100.64.0.1", ""},
		{"192.0.0.8", ""},
		{"198.18.0.1", ""},
		{"fd00::1", ""},
		{"fc00::1", ""},
		{"8.8.8.8", ""},
		{"2001:db8::1", ""},
		{"::ffff:10.0.0.1", ""},
		{"0.0.0.0", "unspecified"},
		{"0.1.2.3", "unspecified"},
		{"::", "unspecified"},
		{"169.254.169.254", "link-local"},
		{"::ffff:169.254.169.254", "link-local"},
		{"::a9fe:a9fe", "link-local"},
		{"::7f00:1", ""},
		{"64:ff9b::a9fe:a9fe", "link-local"},
		{"64:ff9b:1::a9fe:a9fe", "link-local"},
		{"2002:a9fe:a9fe::1", "link-local"},
		{"fe80::1", "link-local"},
		{"fe80::1%eth0", "link-local"},
		{"fd00:ec2::254", "metadata"},
		{"224.0.0.1", "multicast"},
		{"ff02::1", "multicast"},
		{"240.0.0.1", "reserved"},
		{"255.255.255.255", "reserved"},
		{"::ffff:255.255.255.255", "reserved"},
	}
	for _, tt := range tests {
		err := Policy{}.Check(netip.MustParseAddr(tt.addr))
		if tt.want == "" {
			if err != nil {
				t.Errorf("Check(%s) = %v, want nil", tt.addr, err)
			}
			continue
		}
		if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "checks.allow_addresses") {
			t.Errorf("Check(%s) = %v, want a refusal that says %q and names the setting", tt.addr, err, tt.want)
		}
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	p := Policy{Allow: []netip.Prefix{netip.MustParsePrefix("169.254.169.254/32"), netip.MustParsePrefix("fe80::/10")}}
	for _, addr := range []string{"169.254.169.254", "::ffff:169.254.169.254", "fe80::5", "fe80::5%lo"} {
		if err := p.Check(netip.MustParseAddr(addr)); err != nil {
			t.Errorf("Check(%s) = %v, want nil", addr, err)
		}
	}
	if err := p.Check(netip.MustParseAddr("169.254.1.1")); !errors.Is(err, ErrDenied) {
		t.Errorf("Check(169.254.1.1) = %v, want a refusal", err)
	}
}

func TestDialer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := Policy{}.Dialer(0).DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatalf("dial of a loopback listener: %v", err)
	}
	conn.Close()
	if _, err := (Policy{Setting: "x.y"}).Dialer(0).DialContext(ctx, "tcp", "169.254.169.254:80"); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "x.y") {
		t.Errorf("dial of the metadata address = %v, want ErrDenied naming x.y", err)
	}
	if _, err := (Policy{}).Dialer(0).DialContext(ctx, "udp", "224.0.0.1:53"); !errors.Is(err, ErrDenied) {
		t.Errorf("dial of a multicast address = %v, want ErrDenied", err)
	}
}
