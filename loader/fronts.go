// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"sluice/bpf"
)

// enum front_flags of bpf/forward_fronts.h.
const (
	front             = 1 << 0
	frontNoTimestamps = 1 << 1
)

// AddFront has connections to addr come without ECN, which both legs of a session
// have to agree on: it is taken out of the client's SYN. A wildcard is one of its own
// family. It is no error if it is there already. Call it before listen().
func (f *Forward) AddFront(addr netip.AddrPort) error {
	if err := f.objs.ForwardFronts.Put(frontKey(addr), uint32(front)); err != nil {
		return fmt.Errorf("offload: listener %s: %w", addr, err)
	}
	return nil
}

// PlainFront has connections to an address that AddFront was called for come without
// timestamps, too, or with them again: for backends that have none.
func (f *Forward) PlainFront(addr netip.AddrPort, plain bool) error {
	flags := uint32(front)
	if plain {
		flags |= frontNoTimestamps
	}
	if err := f.objs.ForwardFronts.Update(frontKey(addr), flags, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("offload: listener %s: %w", addr, err)
	}
	return nil
}

// RemoveFront ends what AddFront began; it is no error if there is nothing to remove.
func (f *Forward) RemoveFront(addr netip.AddrPort) error {
	if err := f.objs.ForwardFronts.Delete(frontKey(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("offload: listener %s: %w", addr, err)
	}
	return nil
}

func frontKey(addr netip.AddrPort) bpf.ForwardFrontKey {
	return bpf.ForwardFrontKey{Addr: words(addr.Addr()), Port: htons(addr.Port())}
}

// Without is what a SYN of the host's is to go without.
type Without uint32

// What a leg may have to do without, as in bpf/forward_plain.h.
const (
	WithoutTimestamps Without = 1 << iota // the client has none
	WithoutECN                            // likewise
)

// PlainSYN has the SYNs that go from this port of the host to backend go without some
// of what the stack puts into them, until ForgetSYN. Call it before connect(), where
// the StripProgram runs on what leaves by the devices; elsewhere it does nothing. An
// error says that too many connections are being made: this one is made as usual.
func (f *Forward) PlainSYN(port uint16, backend netip.AddrPort, w Without) error {
	if err := f.objs.ForwardPlain.Put(synKey(port, backend), uint32(w)); err != nil {
		return fmt.Errorf("offload: a connection to %s without what its client hasn't: %w", backend, err)
	}
	return nil
}

// ForgetSYN ends what PlainSYN began, once the connection has been made or has failed;
// else the port's next connection to the backend would be of the same kind. It is no
// error if there is nothing to forget.
func (f *Forward) ForgetSYN(port uint16, backend netip.AddrPort) {
	_ = f.objs.ForwardPlain.Delete(synKey(port, backend)) // fails only if it isn't there
}

func synKey(port uint16, backend netip.AddrPort) bpf.ForwardSynKey {
	return bpf.ForwardSynKey{Daddr: words(backend.Addr()), Sport: htons(port), Dport: htons(backend.Port())}
}

// StripProgram is what is to run on what leaves by each device, for PlainSYN. Its
// place among other programs doesn't matter. It stays the Forward's.
func (f *Forward) StripProgram() *ebpf.Program { return f.objs.Strip }

// htons is a port as the program's maps have it.
func htons(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
