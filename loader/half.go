// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"sync/atomic"
	"unsafe"

	"sluice/bpf"
)

// Half is one direction of a flow, in memory shared with the verdict program:
// index 2*flow is the bytes read from the client, 2*flow+1 those from the
// backend. The program passes bytes to userspace while Passed differs from
// Forwarded, so userspace that has moved all that was passed gives the
// direction back by SetForwarded. A *Half is valid until Splice.Close.
type Half struct{ raw bpf.SpliceHalf }

// Redirected is the bytes that the kernel moved.
func (h *Half) Redirected() uint64 { return atomic.LoadUint64(&h.raw.Redirected) }

// Passed is the bytes left to userspace. They are counted just before they
// can be read: a read may still find nothing, and be woken later.
func (h *Half) Passed() uint64 { return atomic.LoadUint64(&h.raw.Passed) }

// Forwarded is what SetForwarded last said.
func (h *Half) Forwarded() uint64 { return atomic.LoadUint64(&h.raw.Forwarded) }

// SetForwarded says how many of the passed bytes the other socket has taken,
// in all; only after its write returned. When that is all of them the kernel
// moves what comes next.
func (h *Half) SetForwarded(n uint64) { atomic.StoreUint64(&h.raw.Forwarded, n) }

// AddForwarded is SetForwarded of n more.
func (h *Half) AddForwarded(n uint64) { atomic.AddUint64(&h.raw.Forwarded, n) }

// LastActive is when bytes last came, on CLOCK_MONOTONIC in ns; 0: never.
func (h *Half) LastActive() uint64 { return atomic.LoadUint64(&h.raw.LastNs) }

// Runs is how many times bytes came; Big is how many of those were 8 KiB or
// more: all of them, and the flow is bulk. They wrap at 2^32.
func (h *Half) Runs() uint32 { return atomic.LoadUint32(&h.raw.Runs) }

// Big is described with Runs.
func (h *Half) Big() uint32 { return atomic.LoadUint32(&h.raw.Big) }

// Over is how often bytes were passed because more than the mark waited.
func (h *Half) Over() uint32 { return atomic.LoadUint32(&h.raw.Over) }

// Broken says that bytes are lost: the program could neither move nor pass
// them, and the kernel has acknowledged them. The session has to be reset. It
// is announced as passed bytes are.
func (h *Half) Broken() bool { return atomic.LoadUint32(&h.raw.Flags)&broken != 0 }

// broken is BROKEN in bpf/splice_maps.h.
const broken = 4

// SetMark sets how many bytes may wait unsent in the target, below 2^31.
func (h *Half) SetMark(bytes uint32) { atomic.StoreUint32(&h.raw.Mark, bytes) }

// Mark is what SetMark set.
func (h *Half) Mark() uint32 { return atomic.LoadUint32(&h.raw.Mark) }

// SetHold has everything passed to userspace from the next bytes on, or ends
// that. Bytes already redirected still wait in the target.
func (h *Half) SetHold(hold bool) {
	var v uint32
	if hold {
		v = 1
	}
	atomic.StoreUint32(&h.raw.Hold, v)
}

// Reset clears the record for a new flow. Only while no socket leads to it.
func (h *Half) Reset(mark uint32) {
	for _, p := range []*uint64{&h.raw.Redirected, &h.raw.Passed, &h.raw.Forwarded, &h.raw.LastNs} {
		atomic.StoreUint64(p, 0)
	}
	for _, p := range []*uint32{&h.raw.BaseSeq, &h.raw.Flags, &h.raw.Hold, &h.raw.Runs, &h.raw.Big, &h.raw.Over, &h.raw.NextSeq} {
		atomic.StoreUint32(p, 0)
	}
	h.SetMark(mark)
}

// A half is one cache line in C and in Go.
var _ [64]byte = [unsafe.Sizeof(Half{})]byte{}
