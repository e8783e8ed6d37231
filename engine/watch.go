package engine

import (
	"maps"
	"slices"
	"strings"

	"github.com/tocsinhq/tocsin/engine/monitor"
	"github.com/tocsinhq/tocsin/sdk"
)

// Current is what the engine holds of a monitor, with what it is.
type Current struct {
	Monitor sdk.Ref
	Live
}

// Labelled returns every monitor that has a label with a value, by name.
func (e *Engine) Labelled(key, value string) []Current {
	e.mu.RLock()
	entries := slices.Collect(maps.Values(e.entries))
	e.mu.RUnlock()
	var all []Current
	for _, en := range entries {
		en.mu.Lock()
		if en.spec.Labels[key] == value && !en.removed {
			all = append(all, Current{Monitor: reference(en.spec), Live: en.live()})
		}
		en.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b Current) int { return strings.Compare(a.Monitor.Name, b.Monitor.Name) })
	return all
}

// conditions counts the monitors by condition.
func (e *Engine) conditions() map[monitor.Condition]int {
	e.mu.RLock()
	entries := slices.Collect(maps.Values(e.entries))
	e.mu.RUnlock()
	counts := make(map[monitor.Condition]int)
	for _, en := range entries {
		en.mu.Lock()
		counts[en.state.Condition]++
		en.mu.Unlock()
	}
	return counts
}

// live returns what is held of the monitor. The lock is held.
func (en *entry) live() Live {
	l := Live{State: en.state, Last: en.last}
	if en.passive != nil {
		l.PushToken = en.passive.Token()
	}
	return l
}
