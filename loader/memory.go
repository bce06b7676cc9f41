// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// shared is an mmap-able array map as memory. A pointer into it is valid
// until close: using it later is a fault, as it is for any unmapped memory.
type shared[T any] struct {
	raw     []byte
	entries uint32
}

// mapShared maps all of m. T has to be as large as m's values, a multiple of
// eight; Linux 5.5.
func mapShared[T any](m *ebpf.Map) (*shared[T], error) {
	var t T
	size := unsafe.Sizeof(t)
	if uintptr(m.ValueSize()) != size || size%8 != 0 {
		return nil, fmt.Errorf("map %s has values of %d bytes, not %d: the bindings are stale", m, m.ValueSize(), size)
	}
	page := os.Getpagesize()
	length := (int(m.MaxEntries())*int(size) + page - 1) / page * page
	raw, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s into memory: %w", m, err)
	}
	return &shared[T]{raw: raw, entries: m.MaxEntries()}, nil
}

// at returns entry i.
func (s *shared[T]) at(i uint32) *T {
	if i >= s.entries {
		panic(fmt.Sprintf("loader: entry %d of %d", i, s.entries))
	}
	var t T
	return (*T)(unsafe.Pointer(&s.raw[uintptr(i)*unsafe.Sizeof(t)]))
}

// close unmaps; safe on nil and when repeated.
func (s *shared[T]) close() error {
	if s == nil || s.raw == nil {
		return nil
	}
	raw := s.raw
	s.raw, s.entries = nil, 0
	return unix.Munmap(raw)
}
