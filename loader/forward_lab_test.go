// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"

	"sluice/bpf"
	"sluice/vmtest/lacks"
)

// What the program may say of a packet.
const (
	passed   = 0xffffffff // TCX_NEXT
	dropped  = 2
	sentOn   = 7 // redirected
	labSlot  = 3
	checkSum = 1 << 2 // BPF_F_TEST_SKB_CHECKSUM_COMPLETE, Linux 6.16
	gsoSize  = 176    // offset in struct __sk_buff
	gsoEnd   = 180
)

// lab runs the program on packets of one flow, whose record and keys are written
// by the test.
type lab struct {
	t *testing.T
	f *Forward
	v family
}

// family is a flow's addresses.
type family struct {
	name                         string
	client, front, host, backend netip.AddrPort
}

func families() []family {
	at := netip.MustParseAddrPort
	return []family{
		{"v4", at("198.18.0.2:40000"), at("198.18.0.1:80"), at("198.18.1.1:10240"), at("198.18.1.2:8080")},
		{"v6", at("[fd00::2]:40000"), at("[fd00::1]:80"), at("[fd00:1::1]:10240"), at("[fd00:1::2]:8080")},
	}
}

// inLab calls f for both families.
func inLab(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	inLabWithout(t, "", f)
}

// inLabWithout has the program without one of its rules (bpf/forward_rules.h).
func inLabWithout(t *testing.T, rule string, f func(t *testing.T, l *lab)) {
	t.Helper()
	fw, err := newForward(ForwardOptions{MaxFlows: 8}, func(spec *ebpf.CollectionSpec) {
		if rule != "" {
			must(t, 0, spec.Variables[rule].Set(false))
		}
	})
	if err != nil {
		needForward(t) // which knows what isn't a failure
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fw.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, v := range families() {
		t.Run(v.name, func(t *testing.T) { f(t, &lab{t, fw, v}) })
	}
}

// sides is which side's a number is; indexed by ClientSide and BackendSide.
type sides = [2]uint32

// The flow that rows begin with: numbers of both sides, all acknowledged.
var (
	labNext = sides{0x1000_0000, 0xffff_ff00} // the backend's wrap soon
	labAdd  = sides{0xe123_4567, 0x0765_4321} // to sequence numbers
	labTS   = sides{0x0badcafe, 0xf00dface}   // to timestamps
)

const labWindow = 65536 // both offer that much

// record is a flow that is forwarded.
func (l *lab) record() bpf.ForwardFlowRecord {
	r := bpf.ForwardFlowRecord{State: stateForwarded, Flags: 3, Index: labSlot}
	legs := [2][2]netip.AddrPort{{l.v.host, l.v.backend}, {l.v.front, l.v.client}}
	keys := l.keys()
	for side := range 2 {
		s, other := &r.Side[side], 1-side
		from, to := legs[side][0], legs[side][1]
		s.Saddr, s.Daddr = words(from.Addr()), words(to.Addr())
		s.Sport, s.Dport = htons(from.Port()), htons(to.Port())
		s.AddrDiff = addrDiff(&keys[side], s.Saddr, s.Daddr)
		s.Ifindex = 1
		s.SeqAdd, s.AckAdd = labAdd[side], -labAdd[other]
		s.TsvalAdd, s.TsecrAdd, s.TsecrMin = labTS[side], -labTS[other], 1000+labTS[other]
		s.ScaleIn, s.ScaleOut, s.Widest = 7, 7, labWindow>>7
		s.Next, s.Cut, s.Fin = labNext[side], labNext[side], labNext[side]
		s.Acked = 1<<32 | uint64(labNext[other]+labAdd[other])
		s.Base = s.Acked
		s.Edge = uint32(s.Acked) + labWindow
	}
	return r
}

// addrDiff is what new addresses add to a sum of words of 32 bits.
func addrDiff(was *bpf.ForwardFlowKey, saddr, daddr [4]uint32) uint32 {
	var sum uint64
	for i := range 4 {
		sum += uint64(^was.Saddr[i]) + uint64(saddr[i]) + uint64(^was.Daddr[i]) + uint64(daddr[i])
	}
	for sum>>32 != 0 {
		sum = sum>>32 + sum&0xffffffff
	}
	return uint32(sum)
}

// keys are those of the packets that come from each side.
func (l *lab) keys() [2]bpf.ForwardFlowKey {
	key := func(from, to netip.AddrPort) bpf.ForwardFlowKey {
		return bpf.ForwardFlowKey{Saddr: words(from.Addr()), Daddr: words(to.Addr()), Sport: htons(from.Port()), Dport: htons(to.Port())}
	}
	return [2]bpf.ForwardFlowKey{key(l.v.client, l.v.front), key(l.v.backend, l.v.host)}
}

// set writes the record and its keys anew.
func (l *lab) set(r bpf.ForwardFlowRecord) {
	l.t.Helper()
	l.f.records.at(labSlot).raw = r
	for side, key := range l.keys() {
		must(l.t, 0, l.f.objs.FlowKeys.Put(key, bpf.ForwardFlowRef{Slot: labSlot, Side: uint32(side)}))
	}
	l.events()
}

// events are the kinds that have been told of since.
func (l *lab) events() (kinds []EventKind) {
	l.f.Drain(func(kind EventKind, flow uint32) {
		if flow != labSlot {
			l.t.Errorf("an event of flow %d", flow)
		}
		kinds = append(kinds, kind)
	})
	return kinds
}

// segment is the side's next one: 100 bytes that acknowledge everything.
func (l *lab) segment(side int) segment {
	s := segment{src: l.v.client, dst: l.v.front}
	if side == BackendSide {
		s.src, s.dst = l.v.backend, l.v.host
	}
	s.ttl, s.flags, s.window = 64, ack|psh, labWindow>>7
	s.seq, s.ack = labNext[side], labNext[1-side]+labAdd[1-side]
	s.options = timestamps(5000, 2000+labTS[1-side])
	s.payload = slices.Repeat([]byte("0123456789"), 10)
	return s
}

// translated is what the other side is to get of it, as the record's words say:
// computed without the program's code. Options and window are the caller's.
func (l *lab) translated(side int, s segment) segment {
	s.src, s.dst = l.v.host, l.v.backend
	if side == BackendSide {
		s.src, s.dst = l.v.front, l.v.client
	}
	s.ttl--
	s.seq += labAdd[side]
	if s.flags&ack != 0 {
		s.ack -= labAdd[1-side]
	}
	s.flags &^= urg
	s.urgent = 0
	return s
}

// plain are the usual options, translated. The echo of a packet that acknowledges
// nothing means nothing.
func plain(side int, flags byte) []byte {
	if flags&ack == 0 {
		return timestamps(5000+labTS[side], 0)
	}
	return timestamps(5000+labTS[side], 2000)
}

// run runs the program on a frame, gso as one of a superpacket.
func (l *lab) run(p *ebpf.Program, frame []byte, gso bool) (verdict uint32, out []byte) {
	l.t.Helper()
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Repeat: 1}
	if gso {
		ctx := make([]byte, gsoEnd)
		binary.NativeEndian.PutUint32(ctx[gsoSize:], 1400)
		o.Context = ctx
	}
	verdict, err := p.Run(&o)
	must(l.t, 0, err)
	return verdict, o.DataOut
}

// counts are the program's, by name.
func (l *lab) counts() map[string]uint64 {
	n := map[string]uint64{}
	for _, o := range l.f.Outcomes() {
		n[o.Name] = o.Count
	}
	return n
}

// counted checks that these counts, and no others, have risen by one.
func (l *lab) counted(before map[string]uint64, names ...string) {
	l.t.Helper()
	for _, name := range names {
		before[name]++
	}
	if d := cmp.Diff(before, l.counts()); d != "" {
		l.t.Errorf("counts (- wanted, + found):\n%s", d)
	}
}

// same compares a frame with the segment that it should be.
func (l *lab) same(out []byte, want segment) {
	l.t.Helper()
	l.sameFrame(out, want.frame())
}

func (l *lab) sameFrame(out, want []byte) {
	l.t.Helper()
	if !sums(out) {
		l.t.Error("a checksum is wrong")
	}
	if !sums(want) {
		l.t.Fatal("the test's own checksum is wrong")
	}
	l.equal(out, want)
}

func (l *lab) equal(out, want []byte) {
	l.t.Helper()
	if !bytes.Equal(out, want) { // most are equal, and a look for differences takes long
		l.t.Errorf("packet (- wanted, + found):\n%s", cmp.Diff(want, out))
	}
}

// happened makes of times whether there is one.
func happened(r bpf.ForwardFlowRecord) bpf.ForwardFlowRecord {
	mark := func(times ...*uint64) {
		for _, t := range times {
			*t = min(*t, 1)
		}
	}
	mark(&r.CutNs, &r.FirstNs, &r.EndedNs)
	for i := range r.Side {
		mark(&r.Side[i].DataNs, &r.Side[i].SeenNs)
	}
	return r
}

// recorded compares the record with what it should be now.
func (l *lab) recorded(want bpf.ForwardFlowRecord) {
	l.t.Helper()
	got := l.f.records.at(labSlot).raw
	if d := cmp.Diff(happened(want), happened(got)); d != "" {
		l.t.Errorf("record (- wanted, + found):\n%s", d)
	}
}

// runComplete runs the program on a frame whose sum a device has made; the kernel
// compares it with what the packet is afterwards.
func (l *lab) runComplete(p *ebpf.Program, frame []byte, want uint32) []byte {
	l.t.Helper()
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Repeat: 1, Flags: checkSum}
	verdict, err := p.Run(&o)
	if err != nil {
		l.t.Fatalf("the device's sum: %v", err)
	}
	if verdict != want {
		l.t.Fatalf("verdict %d, not %d", int32(verdict), int32(want))
	}
	return o.DataOut
}

// needCompleteSums skips where the kernel can't make such packets.
func needCompleteSums(t *testing.T, l *lab) {
	t.Helper()
	o := ebpf.RunOptions{Data: make([]byte, 64), Repeat: 1, Flags: checkSum}
	if _, err := l.f.objs.Forward.Run(&o); errors.Is(err, unix.EINVAL) {
		lacks.Skip(t, "test-run-sums", "BPF_F_TEST_SKB_CHECKSUM_COMPLETE is of Linux 6.16")
	}
}
