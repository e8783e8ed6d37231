package app

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == crashChild {
		crashMain(os.Args[2:])
	}
	goleak.VerifyTestMain(m)
}
