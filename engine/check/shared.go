package check

import (
	"runtime"
	"sync"
	"weak"
)

// shared keeps values that many checkers have in common for as long as one of them uses them. It is safe for concurrent use.
type shared[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]weak.Pointer[V]
}

// get returns the live value for key, or makes and keeps a new one. Making runs under the lock: it is short and rare.
func (s *shared[K, V]) get(key K, build func() (*V, error)) (*V, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.values[key].Value(); v != nil {
		return v, nil
	}
	v, err := build()
	if err != nil {
		return nil, err
	}
	if s.values == nil {
		s.values = make(map[K]weak.Pointer[V])
	}
	s.values[key] = weak.Make(v)
	runtime.AddCleanup(v, s.drop, key)
	return v, nil
}

// drop forgets a key whose value is gone, unless it has been made again meanwhile.
func (s *shared[K, V]) drop(key K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[key].Value() == nil {
		delete(s.values, key)
	}
}

// all returns every live value.
func (s *shared[K, V]) all() []*V {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := make([]*V, 0, len(s.values))
	for _, w := range s.values {
		if v := w.Value(); v != nil {
			live = append(live, v)
		}
	}
	return live
}
