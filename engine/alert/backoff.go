package alert

import (
	"math/rand/v2"
	"time"
)

// The times of delivery. docs/providers.md names them.
const (
	attemptTimeout = 30 * time.Second // of one attempt
	firstRetry     = 5 * time.Second
	lastRetry      = time.Hour
	giveUpAfter    = 24 * time.Hour // since the event
)

// backoff returns the pause after the n-th failed attempt in a row, n from 1: 5 s doubling to 1 h, 20 % more or less, so that
// what failed together does not come back together.
func backoff(n int) time.Duration {
	d := firstRetry
	for ; n > 1 && d < lastRetry; n-- {
		d *= 2
	}
	d = min(d, lastRetry)
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // no secret depends on it
}

// pause returns when to try again after the n-th failure, given what the receiver asked for (0: nothing). A request for a
// longer pause is honoured in full, up to an hour, and spread by a fifth.
func pause(n int, asked time.Duration) time.Duration {
	d := backoff(n)
	if asked <= 0 {
		return d
	}
	asked = min(asked, maxRetryAfter)
	spread := time.Duration(float64(asked) * 0.2 * rand.Float64()) //nolint:gosec // no secret depends on it
	return max(d, min(asked+spread, maxRetryAfter))
}
