package main

import (
	"testing"
)

// TestReadme types the README's tour into a shell beside a running demo and compares what comes with what stands there. Only
// numbers, ids, times and the spaces of tables may differ.
func TestReadme(t *testing.T) {
	page := readPage(t, "../../README.md")
	withoutC(t, &page)
	if len(page.steps) < 12 {
		t.Fatalf("the README has only %d commands", len(page.steps))
	}
	page.follow(t, newPlace(t))
}
