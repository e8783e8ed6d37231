// Command goguest is the Go guest of the benchmark.
package main

import (
	"context"
	"time"

	"github.com/tocsinhq/tocsin/sdk"
)

func init() { sdk.Register(sdk.Plugin{Check: check}) }

func main() { sdk.Main() }

func check(_ context.Context, r sdk.CheckRequest) (sdk.Result, error) {
	if r.Target == "sleep" {
		<-time.After(200 * time.Millisecond)
	}
	return sdk.Result{Status: sdk.Up, Message: "read it", Metrics: []sdk.Metric{{Name: "bytes", Value: float64(len(r.Config))}}}, nil
}
