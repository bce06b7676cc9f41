// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// events reads a BPF ring buffer of u32 records without blocking, from an event
// loop that polls the map's descriptor. One reader at a time.
//
// The layout is the kernel's ABI (5.8, commit 457f44363a88): a page with the
// consumer's position, a page with the producer's, then the data twice in a
// row, so that a record never wraps.
type events struct {
	consumer, producer []byte
	mask               uint64
}

const (
	recordBusy    = 1 << 31 // reserved, not committed yet
	recordDiscard = 1 << 30
	recordHeader  = 8
)

func mapEvents(m *ebpf.Map) (*events, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	c, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the ring buffer into memory: %w", err)
	}
	p, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Munmap(c)
		return nil, fmt.Errorf("mapping the ring buffer into memory: %w", err)
	}
	return &events{consumer: c, producer: p, mask: uint64(size - 1)}, nil
}

// drain calls f for each record that is there.
func (e *events) drain(f func(uint32)) {
	var (
		consumed = (*uint64)(unsafe.Pointer(&e.consumer[0]))
		produced = (*uint64)(unsafe.Pointer(&e.producer[0]))
		data     = e.producer[os.Getpagesize():]
		pos      = atomic.LoadUint64(consumed)
	)
	for pos < atomic.LoadUint64(produced) {
		at := pos & e.mask
		length := atomic.LoadUint32((*uint32)(unsafe.Pointer(&data[at])))
		if length&recordBusy != 0 {
			return // its commit makes the descriptor readable again
		}
		var index uint32
		discard := length&recordDiscard != 0
		length &^= recordBusy | recordDiscard
		if !discard && length == 4 {
			index = *(*uint32)(unsafe.Pointer(&data[at+recordHeader]))
		}
		pos += (uint64(length) + recordHeader + 7) &^ 7
		atomic.StoreUint64(consumed, pos)
		if !discard && length == 4 {
			f(index)
		}
	}
}

// close unmaps; safe on nil and when repeated.
func (e *events) close() error {
	if e == nil || e.consumer == nil {
		return nil
	}
	c, p := e.consumer, e.producer
	e.consumer, e.producer = nil, nil
	err := unix.Munmap(c)
	if err2 := unix.Munmap(p); err == nil {
		err = err2
	}
	return err
}
