//go:build !linux || nosnapshot

package wasm

// memory is a linear memory of the Go heap. It cannot be reset, so every call gets a fresh instance.
type memory struct {
	b     []byte
	limit uint64
}

// newMemory gives a memory of at most limit bytes.
func newMemory(limit uint64) (linear, error) {
	return &memory{limit: limit}, nil
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		return nil
	}
	if size > uint64(len(m.b)) {
		b := make([]byte, size)
		copy(b, m.b)
		m.b = b
	}
	return m.b[:size]
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() { m.b = nil }
