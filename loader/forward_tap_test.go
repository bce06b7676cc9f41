// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Frames of all shapes through devices: superpackets of which only the link header is
// in one piece, checksums that are left to the device or made, more than 4 KiB each.
func TestForwardShapes(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		needTCX(t)
		inNamespace(t, func(t *testing.T) {
			l := &lab{t, l.f, l.v}
			clients := newTap(t, "sl-clients", []netip.Addr{l.v.front.Addr()}, []netip.Addr{l.v.client.Addr()})
			backends := newTap(t, "sl-backends", []netip.Addr{l.v.host.Addr()}, []netip.Addr{l.v.backend.Addr()})
			taps := [2]*tap{clients, backends}
			for _, d := range taps {
				d.run(l.f.Program(), ebpf.AttachTCXIngress)
			}
			for _, size := range []int{0, 1, 1400, 5000, 20001, 65000} {
				for _, o := range [][]byte{timestamps(5000, 0), padded(1, sack(1, 2), timestamps(5000, 0)[2:]), nil} {
					for _, headers := range []uint16{linkHeader, 40, 1 << 15} {
						for side := range 2 {
							l.shape(taps[side], taps[1-side], side, size, o, headers, false)
							l.shape(taps[side], taps[1-side], side, size, o, headers, true)
						}
					}
				}
			}
		})
	})
}

// shape sends one segment from side, of which so many bytes are in one piece.
func (l *lab) shape(from, to *tap, side, size int, options []byte, inPiece uint16, left bool) {
	l.t.Helper()
	r := l.record()
	r.Side[side].Ifindex = uint32(to.link.Attrs().Index)
	l.set(r)
	s := l.segment(side)
	s.payload = make([]byte, size)
	for i := range s.payload {
		s.payload[i] = byte(i * 7)
	}
	s.options = slices.Clone(options)
	if i := slices.Index(s.options, 8); i >= 0 {
		copy(s.options[i:], timestamps(5000, 2000+labTS[1-side])[2:])
	}
	frame := s.frame()
	h := vnet{}
	if left {
		h = leave(frame)
		if h.size = 1400; size <= 1400 {
			h.gso, h.size = 0, 0
		}
	}
	h.headers = min(inPiece, uint16(len(frame)-1))
	from.send(h, frame)
	got, out := to.next()
	if left != (got.flags&needsCsum != 0) || got.gso != h.gso || got.size != h.size {
		l.t.Errorf("%+v became %+v", h, got)
	}
	finish(l.t, got, out)
	want := l.translated(side, s)
	want.options = slices.Clone(s.options)
	if i := slices.Index(want.options, 8); i >= 0 {
		copy(want.options[i:], plain(side, ack)[2:])
	}
	if i := slices.Index(want.options, 5); i >= 0 && i < 2 {
		add := labAdd[1-side]
		copy(want.options[i:], sack(1-add, 2-add))
	}
	l.same(out, want)
	if l.t.Failed() {
		l.t.Fatalf("side %d, %d bytes, options %x, %d in one piece, checksum left %v", side, size, options, inPiece, left)
	}
	r.Side[side].Packets = 1
	seen(side)(&r)
	if size > 0 {
		sends(side, uint32(size))(&r)
	}
	l.recorded(r)
	l.events()
}

// The host's own SYN leaves without what PlainSYN says, and the connection is made
// without it: its checksum is the device's business still.
func TestPlainSYNOnTheWire(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		needTCX(t)
		inNamespace(t, func(t *testing.T) {
			d := newTap(t, "sl-backends", []netip.Addr{l.v.host.Addr()}, []netip.Addr{l.v.backend.Addr()})
			d.run(l.f.StripProgram(), ebpf.AttachTCXEgress)
			must(t, 0, writeSysctl("net/ipv4/tcp_ecn", "1"))
			for i, w := range []Without{0, WithoutTimestamps, WithoutECN, WithoutTimestamps | WithoutECN} {
				port := l.v.host.Port() + uint16(i)
				must(t, 0, l.f.PlainSYN(port, l.v.backend, w))
				family, to := sockaddr(l.v.backend)
				_, local := sockaddr(netip.AddrPortFrom(l.v.host.Addr(), port))
				fd := must1(t, func() (int, error) {
					return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				})
				defer unix.Close(fd)
				from := func(flags byte) (h vnet, frame []byte) { // one that was lost at first comes again
					for {
						h, frame = d.next()
						_, l4 := headers(frame)
						if be16(frame[l4:]) == port && frame[l4+13]&^(ece|cwr) == flags {
							return h, frame
						}
					}
				}
				must(t, 0, unix.Bind(fd, local))
				if err := unix.Connect(fd, to); err != unix.EINPROGRESS {
					t.Fatal(err)
				}
				h, frame := from(syn)
				if h.flags&needsCsum == 0 {
					t.Errorf("its checksum isn't left to the device: %+v", h)
				}
				finish(t, h, frame)
				if !sums(slices.Clone(frame)) {
					t.Error("a checksum is wrong")
				}
				_, l4 := headers(frame)
				options := frame[l4+20 : l4+int(frame[l4+12]>>4)*4]
				hasTS, hasECN := hasTimestamps(options), frame[l4+13]&(ece|cwr) != 0
				if hasTS != (w&WithoutTimestamps == 0) || hasECN != (w&WithoutECN == 0) {
					t.Errorf("without %d: flags %#x, options %x", w, frame[l4+13], options)
				}
				l.f.ForgetSYN(port, l.v.backend)
				if hasECN || w == 0 {
					continue
				}
				answer := segment{
					src: l.v.backend, dst: netip.AddrPortFrom(l.v.host.Addr(), port), ttl: 64, flags: syn | ack,
					seq: 77, ack: be32(frame[l4+4:]) + 1, window: 60000, options: []byte{2, 4, 5, 0xb4, 1, 3, 3, 7},
				}
				d.send(vnet{}, answer.frame())
				if _, frame = from(ack); frame[l4+12]>>4 != 5 {
					t.Errorf("the handshake ends with a header of %d words", frame[l4+12]>>4)
				}
			}
		})
	})
}

// hasTimestamps walks options that are right.
func hasTimestamps(o []byte) bool {
	for len(o) > 1 && o[0] != 0 {
		switch {
		case o[0] == 8:
			return true
		case o[0] == 1:
			o = o[1:]
		default:
			o = o[o[1]:]
		}
	}
	return false
}

func be16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
