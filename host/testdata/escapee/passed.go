//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unsafe"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/reach"
	"github.com/tocsinhq/tocsin/sdk/proto"
	"golang.org/x/sys/unix"
)

// dial connects to the target of a check, which is granted.
func (e *escapee) dial(ctx context.Context, in *proto.CheckRequest, scheme string) (net.Conn, error) {
	return e.dialTo(ctx, in.GetCall(), scheme, in.GetTarget())
}

func (e *escapee) dialTo(ctx context.Context, call uint64, scheme, address string) (net.Conn, error) {
	access, err := reach.ParseAccess(scheme, address)
	if err != nil { // the server is to say so
		access = reach.Access{Scheme: scheme, Host: reach.Host{Name: address}}
	}
	d, err := e.client.For(call).Dial(ctx, access)
	return d.Conn, err
}

// passed tries what a socket that the server handed over offers besides reading and writing.
func (e *escapee) passed(ctx context.Context, in *proto.CheckRequest, j job, list *attempts) {
	for _, network := range []string{"tcp", "udp"} {
		for _, use := range []func(string, int, job, *attempts){redirect, onSocket} {
			before := descriptors()
			conn, err := e.dial(ctx, in, network)
			if err != nil {
				list.try("works: "+network, func() error { return err })
				continue
			}
			fd := -1
			for n := range descriptors() {
				if domain, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain == unix.AF_INET && !before[n] {
					fd = n
				}
			}
			list.try("works: write to the granted "+network+" connection", func() error {
				_, err := unix.Write(fd, []byte("hello\n"))
				return err
			})
			use(network+" connection", fd, j, list)
			_ = conn.Close()
		}
	}
	if j.Harmless { // a byte too many there ends the connection
		return
	}
	redirect("socket of the broker", brokerSocket(), j, list)
	onSocket("socket of the broker", brokerSocket(), j, list)
	for n := range descriptors() {
		if listens, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
			onSocket("socket of gRPC", n, j, list)
		}
	}
}

// address is a sockaddr_in of somewhere that was not granted.
func address(j job) []byte {
	at, err := netip.ParseAddrPort(j.Other)
	if err != nil {
		panic(err)
	}
	ip := at.Addr().As4()
	return append([]byte{unix.AF_INET, 0, byte(at.Port() >> 8), byte(at.Port()), ip[0], ip[1], ip[2], ip[3]}, make([]byte, 8)...)
}

// onSocket tries to make something else of a socket.
func onSocket(what string, fd int, j job, list *attempts) {
	do := func(name string, f func() error) { list.try(what+": "+name, f) }
	there := address(j)
	message := func(name, control []byte) unsafe.Pointer {
		data := []byte("escaped\n")
		iov := unix.Iovec{Base: &data[0]}
		iov.SetLen(len(data))
		m := unix.Msghdr{Iov: &iov}
		m.SetIovlen(1)
		if name != nil {
			m.Name, m.Namelen = &name[0], uint32(len(name))
		}
		if control != nil {
			m.Control = &control[0]
			m.SetControllen(len(control))
		}
		return unsafe.Pointer(&m)
	}
	do("sendto elsewhere", call(unix.SYS_SENDTO, fd, []byte("escaped\n"), 8, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, there, len(there)))
	do("sendto with a fast open", call(unix.SYS_SENDTO, fd, []byte("escaped\n"), 8, unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, there, len(there)))
	do("sendto", call(unix.SYS_SENDTO, fd, []byte("escaped\n"), 8, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0))
	do("sendmsg elsewhere", call(unix.SYS_SENDMSG, fd, message(there, nil), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	do("sendmsg", call(unix.SYS_SENDMSG, fd, message(nil, nil), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	do("pass a descriptor", call(unix.SYS_SENDMSG, fd, message(nil, unix.UnixRights(0)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	do("pass false credentials", call(unix.SYS_SENDMSG, fd, message(nil, unix.UnixCredentials(&unix.Ucred{Pid: 1})), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	do("sendmmsg", call(unix.SYS_SENDMMSG, fd, message(there, nil), 1, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
	do("recvfrom", call(unix.SYS_RECVFROM, fd, room(), 1, unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0))
	do("recvmmsg", call(unix.SYS_RECVMMSG, fd, message(nil, nil), 1, unix.MSG_DONTWAIT|unix.MSG_PEEK, 0))
	for _, o := range []struct {
		name          string
		level, option int
	}{
		{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK},
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR},
		{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT},
		{"SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST},
		{"SO_DONTROUTE", unix.SOL_SOCKET, unix.SO_DONTROUTE},
		{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY},
		{"SO_PASSCRED", unix.SOL_SOCKET, unix.SO_PASSCRED},
		{"SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX},
		{"SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE},
		{"SO_TIMESTAMPING", unix.SOL_SOCKET, unix.SO_TIMESTAMPING},
		{"SO_ZEROCOPY", unix.SOL_SOCKET, unix.SO_ZEROCOPY},
		{"SO_PEEK_OFF", unix.SOL_SOCKET, unix.SO_PEEK_OFF},
		{"SO_INCOMING_CPU", unix.SOL_SOCKET, unix.SO_INCOMING_CPU},
		{"SO_DETACH_FILTER", unix.SOL_SOCKET, unix.SO_DETACH_FILTER},
		{"SO_ATTACH_BPF", unix.SOL_SOCKET, unix.SO_ATTACH_BPF},
		{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS},
		{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL},
		{"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT},
		{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND},
		{"IP_RECVERR", unix.IPPROTO_IP, unix.IP_RECVERR},
		{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO},
		{"IP_UNICAST_IF", unix.IPPROTO_IP, unix.IP_UNICAST_IF},
		{"IP_MULTICAST_TTL", unix.IPPROTO_IP, unix.IP_MULTICAST_TTL},
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
		{"TCP_REPAIR", unix.IPPROTO_TCP, unix.TCP_REPAIR},
		{"TCP_FASTOPEN_CONNECT", unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT},
		{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
		{"TCP_CORK", unix.IPPROTO_TCP, unix.TCP_CORK},
		{"TCP_MAXSEG", unix.IPPROTO_TCP, unix.TCP_MAXSEG},
		{"UDP_CORK", unix.IPPROTO_UDP, 1},
		{"UDP_SEGMENT", unix.IPPROTO_UDP, 103},
		{"UDP_ENCAP", unix.IPPROTO_UDP, 100},
	} {
		do("set "+o.name, func() error { return unix.SetsockoptInt(fd, o.level, o.option, 1) })
	}
	do("set IP_OPTIONS", func() error { return unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x00") })
	do("set TCP_ULP", func() error { return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, "tls") })
	do("set TCP_CONGESTION", func() error { return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") })
	do("set SO_BINDTODEVICE", func() error { return unix.BindToDevice(fd, "lo") })
	do("set SO_ATTACH_FILTER", func() error {
		code := []unix.SockFilter{{Code: unix.BPF_RET, K: 0xffff}}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &code[0]})
	})
	do("join a group", func() error {
		return unix.SetsockoptIPMreq(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: [4]byte{224, 0, 0, 1}, Interface: [4]byte{127, 0, 0, 1}})
	})
	for _, o := range []struct {
		name   string
		option int
	}{{"SO_PEERCRED", unix.SO_PEERCRED}, {"SO_PEERPIDFD", 77}, {"SO_PEERSEC", unix.SO_PEERSEC}, {"SO_COOKIE", unix.SO_COOKIE}, {"SO_MEMINFO", unix.SO_MEMINFO}, {"SO_INCOMING_NAPI_ID", unix.SO_INCOMING_NAPI_ID}} {
		do("get "+o.name, func() error { _, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, o.option); return err })
	}
	do("get TCP_INFO", func() error { _, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); return err })
	for name, request := range map[string]int{
		"list the interfaces": unix.SIOCGIFCONF, "an interface's address": unix.SIOCGIFADDR, "what is to be read": unix.TIOCINQ,
		"the network namespace": unix.SIOCGSKNS, "the owner": unix.SIOCSPGRP,
	} {
		do("ioctl "+name, call(unix.SYS_IOCTL, fd, request, room()))
	}
	do("have the server signalled", call(unix.SYS_FCNTL, fd, unix.F_SETOWN, j.Server))
	do("splice", call(unix.SYS_SPLICE, fd, 0, 1, 0, 1, unix.SPLICE_F_NONBLOCK))
	do("sendfile", call(unix.SYS_SENDFILE, fd, 0, 0, 1))
	do("a name of it that programs inherit", call(unix.SYS_FCNTL, fd, unix.F_DUPFD, 100))
	do("dup3", call(unix.SYS_DUP3, fd, 99, 0))
	do("fchmod", call(unix.SYS_FCHMOD, fd, 0o777))
	do("bind", call(unix.SYS_BIND, fd, []byte{unix.AF_INET, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, 16))
	do("listen", call(unix.SYS_LISTEN, fd, 1))
	for i, path := range j.Sockets {
		name := append([]byte{unix.AF_UNIX, 0}, path...)
		do(fmt.Sprint("connect to socket ", i), call(unix.SYS_CONNECT, fd, append(name, 0), len(name)+1))
	}
}

// redirect tries to lead a connection elsewhere.
func redirect(what string, fd int, j job, list *attempts) {
	there := address(j)
	nowhere := make([]byte, 16) // AF_UNSPEC
	list.try(what+": dissolve it", call(unix.SYS_CONNECT, fd, nowhere, len(nowhere)))
	list.try(what+": connect elsewhere", func() error {
		err := call(unix.SYS_CONNECT, fd, there, len(there))()
		if errors.Is(err, unix.EINPROGRESS) { // it is on its way
			err = nil
		}
		if err == nil { // that it arrives shows the way
			_, _ = unix.Write(fd, []byte("escaped\n"))
		}
		return err
	})
}

// ask asks the broker for what is not granted.
func (e *escapee) ask(ctx context.Context, in *proto.CheckRequest, j job, list *attempts) {
	dial := func(number uint64, scheme, address string) func() error {
		return func() error {
			conn, err := e.dialTo(ctx, number, scheme, address)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
	}
	mine := in.GetCall()
	for _, a := range j.Hosts {
		for _, scheme := range []string{"tcp", "udp", "tls", "http", "https", "cert"} {
			list.try("ask for "+scheme+" "+a, dial(mine, scheme, a))
		}
	}
	list.try("ask for tls of the target", dial(mine, "tls", in.GetTarget()))
	list.try("ask for cert of the target", dial(mine, "cert", in.GetTarget()))
	host := reach.Host{Addr: netip.MustParseAddr("127.0.0.1")}
	list.try("ask for an echo", func() error { _, err := e.client.For(mine).Echo(ctx, host); return err })
	list.try("ask for an echo as a connection", func() error {
		_, err := e.client.For(mine).Dial(ctx, reach.Access{Scheme: "icmp", Host: host})
		return err
	})
	list.try("ask for a name", func() error {
		_, err := e.client.For(mine).Resolve(ctx, broker.Question{Type: "TXT", Name: reach.Host{Name: "secret.example.com"}})
		return err
	})
	list.try("ask for a name at a server", func() error {
		_, err := e.client.For(mine).Resolve(ctx, broker.Question{Type: "TXT", Name: reach.Host{Name: "secret.example.com"}, Server: j.Other})
		return err
	})
	list.try("ask for a file", func() error {
		_, err := e.client.For(mine).Dial(ctx, reach.Access{Scheme: "unix", Host: reach.Host{Name: "run"}})
		return err
	})
	// The server counts calls, so those of others are near.
	for number := range mine + 50 {
		if number != mine {
			list.try(fmt.Sprint("ask in the name of call ", number), dial(number, "tcp", in.GetTarget()))
		}
	}
	list.try("ask in the name of the last call", dial(1<<64-1, "tcp", in.GetTarget()))
}

// brokerSocket finds the socket of the broker as somebody would who does not know its number: it is a Unix socket without a
// name that is not being listened on.
func brokerSocket() int {
	for n := range descriptors() {
		domain, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil || domain != unix.AF_UNIX {
			continue
		}
		if name, err := unix.Getsockname(n); err == nil && strings.Trim(name.(*unix.SockaddrUnix).Name, "@") == "" {
			return n
		}
	}
	panic("there is no socket of the broker")
}

// raw writes to the broker past the client.
func raw(frame []byte) error {
	_, err := unix.Write(brokerSocket(), frame)
	return err
}
