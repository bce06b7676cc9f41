// SPDX-License-Identifier: Apache-2.0

package proxy

import "sync/atomic"

// portUse decides for a front which sessions are dialled from ports of our own. One that
// may be forwarded has to be; but where all are over before that would pay, each leaves a
// port in TIME_WAIT, and the ports are few. So a front that has had only short sessions
// for a while dials one in usedAnyway from them, to find out when that changes.
type portUse struct {
	short atomic.Uint32 // of the sessions that counted lately, those that were short, of allShort
	dials atomic.Uint32
}

const (
	allShort   = 1 << 16
	portMemory = 64 // how many sessions count
	// mostlyShort is the share from which on few ports are used, and sometimesLong what
	// one long session brings it to: some 90 short ones later it is mostlyShort again.
	mostlyShort   = allShort - allShort/64
	sometimesLong = allShort - allShort/16
	usedAnyway    = 16
)

// own says whether the next dial is to be from a port of ours.
func (p *portUse) own() bool {
	return p.short.Load() < mostlyShort || p.dials.Add(1)%usedAnyway == 0
}

// note counts a session that has come far enough to be forwarded (long), or has ended
// before.
func (p *portUse) note(long bool) {
	for {
		old := p.short.Load()
		next := old + (allShort-old+portMemory-1)/portMemory
		if long {
			next = min(old-old/portMemory, sometimesLong)
		}
		if next == old || p.short.CompareAndSwap(old, next) {
			return
		}
	}
}

// noteLength counts the session as long or short, once, and if it might have been
// forwarded.
func (s *pair) noteLength(long bool) {
	if s.measured || s.loop.e.offload.Load() == nil || !s.Settings.OffloadAllowed || s.up.fd < 0 {
		return
	}
	s.measured = true
	s.front.ports.note(long)
}
