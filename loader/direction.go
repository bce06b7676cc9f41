// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"sync/atomic"
	"unsafe"

	"sluice/bpf"
)

// Direction is one direction of a flow, in memory shared with the verdict program:
// index 2*flow is the bytes read from the client, 2*flow+1 those from the
// backend. The program passes bytes to userspace while Passed differs from
// Forwarded, so userspace that has moved all that was passed gives the
// direction back by SetForwarded. A *Direction is valid until Splice.Close.
type Direction struct{ raw bpf.SpliceDirection }

// Redirected is the bytes that the kernel moved.
func (d *Direction) Redirected() uint64 { return atomic.LoadUint64(&d.raw.Redirected) }

// Passed is the bytes left to userspace. They are counted just before they
// can be read: a read may still find nothing, and be woken later.
func (d *Direction) Passed() uint64 { return atomic.LoadUint64(&d.raw.Passed) }

// Forwarded is what SetForwarded last said.
func (d *Direction) Forwarded() uint64 { return atomic.LoadUint64(&d.raw.Forwarded) }

// SetForwarded says how many of the passed bytes the other socket has taken,
// in all; only after its write returned. When that is all of them the kernel
// moves what comes next.
func (d *Direction) SetForwarded(n uint64) { atomic.StoreUint64(&d.raw.Forwarded, n) }

// AddForwarded is SetForwarded of n more.
func (d *Direction) AddForwarded(n uint64) { atomic.AddUint64(&d.raw.Forwarded, n) }

// LastActive is when bytes last came, on CLOCK_MONOTONIC in ns; 0: never.
func (d *Direction) LastActive() uint64 { return atomic.LoadUint64(&d.raw.LastNs) }

// Runs is how many times bytes came. It wraps at 2^32.
func (d *Direction) Runs() uint32 { return atomic.LoadUint32(&d.raw.Runs) }

// Over is how often bytes were passed because the target had enough: more than
// the mark waited, or too many buffers.
func (d *Direction) Over() uint32 { return atomic.LoadUint32(&d.raw.Over) }

// Broken says that bytes are lost: the program could neither move nor pass
// them, and the kernel has acknowledged them. The session has to be reset. It
// is announced as passed bytes are.
func (d *Direction) Broken() bool { return atomic.LoadUint32(&d.raw.Flags)&broken != 0 }

// broken is BROKEN in bpf/splice_maps.h.
const broken = 4

// SetMark sets how many bytes may wait unsent in the target, below 2^31.
func (d *Direction) SetMark(bytes uint32) { atomic.StoreUint32(&d.raw.Mark, bytes) }

// Mark is what SetMark set.
func (d *Direction) Mark() uint32 { return atomic.LoadUint32(&d.raw.Mark) }

// SetHold has everything passed to userspace from the next bytes on, or ends
// that. Bytes already redirected still wait in the target.
func (d *Direction) SetHold(hold bool) {
	var v uint32
	if hold {
		v = 1
	}
	atomic.StoreUint32(&d.raw.Hold, v)
}

// Reset clears the record for a new flow. Only while no socket leads to it.
func (d *Direction) Reset(mark uint32) {
	for _, p := range []*uint64{&d.raw.Redirected, &d.raw.Passed, &d.raw.Forwarded, &d.raw.LastNs} {
		atomic.StoreUint64(p, 0)
	}
	for _, p := range []*uint32{&d.raw.BaseSeq, &d.raw.Flags, &d.raw.Hold, &d.raw.Runs, &d.raw.Queued, &d.raw.Over, &d.raw.NextSeq} {
		atomic.StoreUint32(p, 0)
	}
	d.SetMark(mark)
}

// A direction is one cache line in C and in Go.
var _ [64]byte = [unsafe.Sizeof(Direction{})]byte{}
