// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"sync/atomic"
	"unsafe"

	"sluice/bpf"
)

// Ended says that the connection from client to server is about to be closed.
// A segment of it that comes within the next 4 s and finds it gone takes no
// pick: an acknowledgement that was overtaken by the last one, or data that was
// under way when we sent a reset. It costs no system call.
func (d *Dispatch) Ended(client, server netip.AddrPort) {
	t := tupleOf(client, server)
	h := mix(&t)
	slot := d.ended.at(uint32(h) & (d.ended.entries - 1))
	atomic.StoreUint64(slot, h&^(1<<32-1)|uint64(uint32(d.clock.Now()>>20)))
}

// mix is that of bpf/dispatch.bpf.c. Nothing depends on its being hard to
// guess: two connections that share a slot cost a pick made at accept.
func mix(t *bpf.DispatchTuple) (h uint64) {
	words := (*[unsafe.Sizeof(*t) / 4]uint32)(unsafe.Pointer(t))
	for _, w := range words {
		h = (h ^ uint64(w)) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return h
}
