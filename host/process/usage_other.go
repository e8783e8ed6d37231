//go:build !linux

package process

import (
	"errors"
	"time"
)

func cpuOf(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

func memoryOf(int) (uint64, error) { return 0, errors.ErrUnsupported }
