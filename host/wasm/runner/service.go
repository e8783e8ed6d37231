package runner

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tocsinhq/tocsin/host/broker"
	"github.com/tocsinhq/tocsin/host/wasm"
	"github.com/tocsinhq/tocsin/host/wasm/netfs"
	"github.com/tocsinhq/tocsin/sdk"
	"github.com/tocsinhq/tocsin/sdk/process"
	"github.com/tocsinhq/tocsin/sdk/proto"
)

// service translates between the contract of processes and that of modules.
type service struct {
	module *wasm.Module
	client *broker.Client
	roots  func() (*x509.CertPool, error)
}

var _ process.Service = (*service)(nil)

// Check implements process.Service.
func (s *service) Check(ctx context.Context, in *proto.CheckRequest) (*proto.CheckResponse, error) {
	request := process.CheckRequestFromProto(in)
	text, err := request.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	var parsed sdk.CheckResponse
	report, err := s.call(ctx, "check", in.GetCall(), request.Timeout, text, func(answer []byte) (err error) {
		parsed, err = sdk.ParseCheckResponse(answer)
		return err
	})
	if err != nil {
		return &proto.CheckResponse{Error: failure(err), Report: report}, nil
	}
	out := process.CheckResponseToProto(parsed)
	report.Notes = append(report.Notes, parsed.Notes...)
	out.Report = report
	return out, nil
}

// Notify implements process.Service.
func (s *service) Notify(ctx context.Context, in *proto.NotifyRequest) (*proto.NotifyResponse, error) {
	request := process.NotifyRequestFromProto(in)
	text, err := request.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	var parsed sdk.NotifyResponse
	report, err := s.call(ctx, "notify", in.GetCall(), request.Timeout, text, func(answer []byte) (err error) {
		parsed, err = sdk.ParseNotifyResponse(answer)
		return err
	})
	if err != nil {
		return &proto.NotifyResponse{Error: failure(err), Report: report}, nil
	}
	out := process.NotifyResponseToProto(parsed)
	out.Report = report
	return out, nil
}

// failure is a fault of the plugin itself, which may be better at the next try.
func failure(err error) *proto.Failure {
	return &proto.Failure{Message: sdk.CleanText(err.Error(), sdk.MaxMessage)}
}

// call makes one call of the module. The error is the plugin's: it crashed, exited, or wrote nonsense.
func (s *service) call(ctx context.Context, name string, id uint64, timeout time.Duration, request []byte, read func([]byte) error) (*proto.Report, error) {
	deadline := time.Now().Add(timeout)
	net := netfs.New(netfs.Options{Network: s.client.For(id), Deadline: deadline, Roots: s.roots})
	reply, err := s.module.Call(ctx, wasm.Call{Name: name, Request: request, Deadline: deadline, FS: net})
	net.Close()
	report := &proto.Report{}
	report.BytesRead, report.BytesWritten = net.Usage()
	for _, line := range reply.Log {
		report.Log = append(report.Log, &proto.LogLine{Level: int32(line.Level), Text: line.Text})
	}
	if reply.LogCut {
		report.Notes = append(report.Notes, fmt.Sprintf("the log was cut after %d bytes", wasm.DefaultLog))
	}
	switch {
	case err != nil:
		return report, explain(err, reply.Log)
	case reply.Cut:
		return report, fmt.Errorf("its answer is longer than %d bytes", wasm.DefaultResponse)
	}
	if err := read(reply.Response); err != nil {
		return report, fmt.Errorf("its answer cannot be used: %w", err)
	}
	return report, nil
}

// explain adds to a crash what the plugin's language wrote about it: a trap alone says no more than "unreachable".
func explain(err error, log []wasm.LogLine) error {
	var trap *wasm.TrapError
	var exit *wasm.ExitError
	if !errors.As(err, &trap) && !errors.As(err, &exit) {
		return err
	}
	for _, line := range log {
		for _, begin := range []string{"panic: ", "fatal error: ", "thread '", "Assertion failed", "Error: "} {
			if strings.HasPrefix(line.Text, begin) {
				return fmt.Errorf("%w: %s", err, sdk.CleanText(line.Text, 300))
			}
		}
	}
	return err
}
