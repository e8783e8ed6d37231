package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// author serves an author's functions.
type author struct{ plugin sdk.Plugin }

// Check implements Service.
func (a author) Check(ctx context.Context, req *proto.CheckRequest) (*proto.CheckResponse, error) {
	ctx, cancel := within(ctx, req.GetTimeoutMs())
	defer cancel()
	result, err := a.plugin.RunCheck(ctx, CheckRequestFromProto(req))
	if err != nil {
		if errors.Is(err, sdk.ErrNotProvided) {
			return nil, err
		}
		logPanic(err)
		return &proto.CheckResponse{Error: failure(err)}, nil
	}
	return CheckResponseToProto(sdk.CheckResponse{Result: result}), nil
}

// Notify implements Service.
func (a author) Notify(ctx context.Context, req *proto.NotifyRequest) (*proto.NotifyResponse, error) {
	ctx, cancel := within(ctx, req.GetTimeoutMs())
	defer cancel()
	err := a.plugin.RunNotify(ctx, NotifyRequestFromProto(req))
	if errors.Is(err, sdk.ErrNotProvided) {
		return nil, err
	}
	logPanic(err)
	return NotifyResponseToProto(sdk.NotifyResponse{Err: err}), nil
}

// within ends the context when the request says so, also for a host whose own deadline does not come along.
func within(ctx context.Context, ms int64) (context.Context, context.CancelFunc) {
	if ms <= 0 || ms > time.Hour.Milliseconds() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
}

func logPanic(err error) {
	var p *sdk.PanicError
	if errors.As(err, &p) {
		fmt.Fprintf(os.Stderr, "panic: %v\n\n%s", p.Value, p.Stack)
	}
}

// statusOf gives an error of a service its code on the wire.
func statusOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sdk.ErrNotProvided):
		return status.Error(codes.Unimplemented, oneLine(err))
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, oneLine(err))
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, oneLine(err))
	}
	return status.Error(codes.Unknown, oneLine(err))
}

func oneLine(err error) string { return sdk.CleanText(err.Error(), sdk.MaxMessage) }
