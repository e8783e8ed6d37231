package process

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	wire "github.com/tocsinhq/tocsin/sdk/process"
)

// Methods of go-plugin's own services. Its client for them cannot be used: it leaves goroutines and a connection behind when
// the process ends while it connects.
const (
	stdioMethod    = "/plugin.GRPCStdio/StreamStdio"
	shutdownMethod = "/plugin.GRPCController/Shutdown"
)

// maxHeaders bounds what a process sends in headers with an answer, in bytes.
const maxHeaders = 64 << 10

// dial makes the one connection to a process. It is tuned for the time of a small call: nothing is looked up, retried or
// measured on the way, and a whole message fits into the window.
func dial(addr net.Addr, secrets *tls.Config) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if secrets != nil {
		creds = credentials.NewTLS(secrets)
	}
	var dialer net.Dialer
	return grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxMessage), grpc.MaxCallSendMsgSize(wire.MaxMessage)),
		grpc.WithStaticStreamWindowSize(wire.Window), grpc.WithStaticConnWindowSize(wire.Window),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0), grpc.WithNoProxy(),
		grpc.WithAuthority("localhost"), // the name in go-plugin's certificates
		grpc.WithUserAgent("tocsin"),
	)
}

// stdio opens the stream on which a process sends what it writes to its standard output and error once it serves. It is also
// how the process learns that we are gone. When it returns the connection stands. A process in a language without the stream
// answers that it does not know it, which receive finds out.
func stdio(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, stdioMethod)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

// receive copies what comes on the stream, until it ends, and returns why it did.
func receive(stream grpc.ClientStream, stdout, stderr io.Writer) error {
	for {
		// go-plugin does not export the message: field 1 is the channel, 1 for output and 2 for errors, field 2 the bytes. In a
		// message that knows no field they are the unknown ones.
		var m emptypb.Empty
		if err := stream.RecvMsg(&m); err != nil {
			return err
		}
		to, data := stdout, []byte(nil)
		for b := m.ProtoReflect().GetUnknown(); len(b) > 0; {
			num, typ, n := protowire.ConsumeTag(b)
			if n < 0 {
				break
			}
			b = b[n:]
			switch {
			case num == 1 && typ == protowire.VarintType:
				v, _ := protowire.ConsumeVarint(b)
				if v == 2 {
					to = stderr
				}
			case num == 2 && typ == protowire.BytesType:
				data, _ = protowire.ConsumeBytes(b)
			}
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				break
			}
			b = b[n:]
		}
		to.Write(data) //nolint:errcheck // a splitter, which never fails
	}
}

// shutdown asks the process to end. Calls under way fail.
func shutdown(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return conn.Invoke(ctx, shutdownMethod, &emptypb.Empty{}, &emptypb.Empty{})
}
