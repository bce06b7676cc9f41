// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// notice is an error of ICMP about a packet.
type notice struct {
	src, dst  netip.Addr
	ttl       byte
	kind      byte
	code      byte
	rest      uint32 // a path's MTU, if it is about that
	about     segment
	quoted    int    // bytes of its TCP
	extension []byte // behind the quote
}

// frame has the checksums right, but for the quoted TCP's own if that is cut short.
func (n notice) frame() []byte {
	b := []byte{n.kind, n.code, 0, 0}
	b = binary.BigEndian.AppendUint32(b, n.rest)
	quote := n.about.frame()
	_, l4 := headers(quote)
	b = append(b, quote[linkHeader:min(l4+n.quoted, len(quote))]...)
	b = append(b, n.extension...)
	start, protocol := uint32(0), byte(1)
	if n.src.Is6() {
		protocol = 58
		start = pseudo(n.src, n.dst, protocol, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], ^sum16(b, start))
	return append(ipHeader(n.src, n.dst, protocol, n.ttl, len(b)), b...)
}

// router is whose words they are.
func (l *lab) router() netip.Addr {
	if l.v.client.Addr().Is4() {
		return netip.MustParseAddr("198.19.7.7")
	}
	return netip.MustParseAddr("fd77::7")
}

// told is an error about what the side sent and we sent on: as it comes, and as the
// side is to get it.
func (l *lab) told(side int, kind, code byte, quoted int, edit func(*segment)) (in, out notice) {
	s := l.segment(side)
	if edit != nil {
		edit(&s)
	}
	was := l.translated(side, s)
	s.ttl = was.ttl // of the quote it stays as it is
	in = notice{src: l.router(), dst: was.src.Addr(), ttl: 60, kind: kind, code: code, rest: 1400, about: was, quoted: quoted}
	out = in
	out.src, out.dst, out.ttl, out.about = s.dst.Addr(), s.src.Addr(), 59, s
	return in, out
}

type kindOfError struct{ kind, code byte }

func (l *lab) errors() (forUs, others []kindOfError) {
	if l.v.client.Addr().Is4() {
		for code := range byte(16) {
			forUs = append(forUs, kindOfError{3, code})
		}
		return append(forUs, kindOfError{11, 0}, kindOfError{11, 1}),
			[]kindOfError{{0, 0}, {4, 0}, {5, 1}, {8, 0}, {12, 0}, {13, 0}}
	}
	for code := range byte(8) {
		forUs = append(forUs, kindOfError{1, code})
	}
	return append(forUs, kindOfError{2, 0}, kindOfError{3, 0}, kindOfError{3, 1}),
		[]kindOfError{{0, 0}, {4, 0}, {4, 1}, {128, 0}, {129, 0}, {130, 0}, {135, 0}, {136, 0}, {137, 0}}
}

// tell runs an error through the program; nothing of the record may change.
func (l *lab) tell(r flowRecord, frame []byte, verdict uint32, counts ...string) []byte {
	l.t.Helper()
	l.set(r)
	before := l.counts()
	got, out := l.run(l.f.objs.Forward, slices.Clone(frame), false)
	if got != verdict {
		l.t.Fatalf("verdict %d, not %d", int32(got), int32(verdict))
	}
	if got == passed && !slices.Equal(out, frame) {
		l.t.Error("changed on its way up")
	}
	l.counted(before, counts...)
	l.recorded(r)
	return out
}

// An error about a packet that was sent on reaches who sent it, as one about that.
func TestForwardErrors(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		under := func(side int) flowRecord { // the quoted packet is under way
			r := l.record()
			sent(side, 100)(&r)
			return r
		}
		forUs, others := l.errors()
		for _, e := range forUs {
			for side, name := range []string{"client", "backend"} {
				t.Run(fmt.Sprintf("type %d code %d to the %s", e.kind, e.code, name), func(t *testing.T) {
					l := &lab{t, l.f, l.v}
					for _, quoted := range []int{8, 9, 11, 12, 17, 18, 19, 20, 32, 132, 1000} {
						in, want := l.told(side, e.kind, e.code, quoted, nil)
						if quoted > 20 { // its options are what was sent on
							want.about.options = in.about.options
						}
						l.sameNotice(l.tell(under(side), in.frame(), sentOn, "icmp"), in, want)
					}
				})
			}
		}
		for _, e := range others {
			t.Run(fmt.Sprintf("type %d code %d", e.kind, e.code), func(t *testing.T) {
				l := &lab{t, l.f, l.v}
				in, _ := l.told(ClientSide, e.kind, e.code, 20, nil)
				l.tell(under(ClientSide), in.frame(), passed)
			})
		}
	})
}

// sameNotice compares an error with what it should be. The quoted TCP's checksum isn't
// that of what the side sent, whose window was another: it is as wrong as it was.
func (l *lab) sameNotice(out []byte, in, want notice) {
	l.t.Helper()
	w := want.frame()
	_, l4 := headers(w)
	at := l4 + 8 + 20 + 16
	if !want.src.Is4() {
		at += 20
	}
	if at+2 <= len(w) && in.quoted >= 18 {
		for _, b := range [][]byte{out, w} {
			whole := in.about.frame()
			whole = append(b[l4+8-linkHeader:l4+8:l4+8], append(slices.Clone(b[l4+8:min(len(b), at-16+in.quoted)]), whole[min(len(whole), at-16-l4-8+linkHeader+in.quoted):]...)...)
			whole[12], whole[13] = b[12], b[13]
			if !sums(whole) {
				l.t.Error("the quoted packet's checksum is wrong")
			}
		}
	}
	if !sums(out) {
		l.t.Error("a checksum is wrong")
	}
	sums(w)
	for _, part := range [][2]int{{8, 12}, {16, 18}} { // what is cut off within stays
		if in.quoted > part[0] && in.quoted < part[1] {
			copy(w[at-16+part[0]:], in.frame()[at-16+part[0]:])
		}
	}
	if at+2 <= len(w) {
		out[at], out[at+1], w[at], w[at+1] = 0, 0, 0, 0
	}
	l.equal(out, w)
}

// What isn't about a packet that is under way is dropped: it is a guess. What isn't
// about a flow that is forwarded is the host's.
func TestForwardErrorsOfOthers(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		kind := byte(3)
		if l.v.client.Addr().Is6() {
			kind = 1
		}
		notice := func(edit func(*segment)) notice {
			in, _ := l.told(BackendSide, kind, 1, 20, edit)
			return in
		}
		r := l.record()
		sent(BackendSide, 100)(&r)
		for _, c := range []struct {
			name    string
			seq     int
			verdict uint32
			counts  []string
		}{
			{"the last that was acknowledged", 0, sentOn, []string{"icmp"}},
			{"before it", -1, dropped, []string{"unsure"}},
			{"the highest that was sent", 100, sentOn, []string{"icmp"}},
			{"beyond it", 101, dropped, []string{"unsure"}},
			{"anywhere", 1 << 30, dropped, []string{"unsure"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				l := &lab{t, l.f, l.v}
				l.tell(r, notice(seqBy(c.seq)).frame(), c.verdict, c.counts...)
			})
		}
		for name, state := range map[string]uint32{"free": stateFree, "watched": stateWatched, "armed": stateArmed, "reset": stateReset} {
			t.Run(name, func(t *testing.T) {
				l := &lab{t, l.f, l.v}
				r := r
				r.State = state
				l.tell(r, notice(nil).frame(), passed)
			})
		}
		t.Run("ended", func(t *testing.T) {
			l := &lab{t, l.f, l.v}
			r := r
			r.State = stateEnded
			l.tell(r, notice(nil).frame(), sentOn, "icmp")
		})
		t.Run("no hops left", func(t *testing.T) {
			n := notice(nil)
			n.ttl = 1
			(&lab{t, l.f, l.v}).tell(r, n.frame(), dropped, "ttl")
		})
		t.Run("to who didn't send it", func(t *testing.T) {
			n := notice(nil)
			n.dst = l.v.host.Addr()
			(&lab{t, l.f, l.v}).tell(r, n.frame(), passed)
		})
		t.Run("of another flow", func(t *testing.T) {
			n := notice(nil)
			n.about.dst = portOf(n.about.dst, 1)
			(&lab{t, l.f, l.v}).tell(r, n.frame(), passed)
		})
		t.Run("about what came, not what went", func(t *testing.T) {
			n := notice(nil)
			n.about = l.segment(ClientSide)
			n.dst = n.about.src.Addr()
			(&lab{t, l.f, l.v}).tell(r, n.frame(), passed)
		})
		t.Run("malformed", func(t *testing.T) {
			l := &lab{t, l.f, l.v}
			whole := notice(nil).frame()
			v4, l4 := headers(whole)
			quote := l4 + 8
			spoilt := map[string]func(b []byte) []byte{
				"a quote of 7 bytes":     func(b []byte) []byte { n := notice(nil); n.quoted = 7; return n.frame() },
				"cut short":              func(b []byte) []byte { return b[:len(b)-13] },
				"no quote":               func(b []byte) []byte { return b[:quote] },
				"less than its length":   putLength(whole, len(whole)+4),
				"a quote of version 5":   setByte(quote, 0x55),
				"a quote of UDP":         setByte(quote+map[bool]int{true: 9, false: 6}[v4], 17),
				"a length in the header": putLength(whole, quote+10),
			}
			if v4 {
				spoilt["a quote with options"] = setByte(quote, 0x46)
				spoilt["a quote of a later fragment"] = setByte(quote+7, 1)
				spoilt["options"] = setByte(linkHeader, 0x46)
				spoilt["a fragment"] = setByte(linkHeader+6, 0x20)
			}
			for name, spoil := range spoilt {
				t.Run(name, func(t *testing.T) {
					(&lab{t, l.f, l.v}).tell(r, spoil(slices.Clone(whole)), passed)
				})
			}
		})
		t.Run("the device's sum", func(t *testing.T) {
			l := &lab{t, l.f, l.v}
			needCompleteSums(t, l)
			for _, quoted := range []int{8, 12, 20, 100} {
				in, _ := l.told(ClientSide, kind, 0, quoted, nil)
				l.set(l.record())
				l.runComplete(l.f.objs.Forward, in.frame(), sentOn)
			}
		})
	})
}

func setByte(at int, to byte) func([]byte) []byte {
	return func(b []byte) []byte { b[at] = to; return b }
}

// putLength has the header say that the frame ends elsewhere.
func putLength(frame []byte, end int) func([]byte) []byte {
	v4, _ := headers(frame)
	return func(b []byte) []byte {
		if v4 {
			binary.BigEndian.PutUint16(b[linkHeader+2:], uint16(end-linkHeader))
		} else {
			binary.BigEndian.PutUint16(b[linkHeader+4:], uint16(end-linkHeader-40))
		}
		return b
	}
}
