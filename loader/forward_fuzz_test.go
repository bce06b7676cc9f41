// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// fuzzLabs are one of each family, and what they have in common.
func fuzzLabs(f *testing.F) (*Forward, []*lab) {
	needForward(f)
	fw, err := NewForward(ForwardOptions{MaxFlows: 8})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = fw.Close() })
	var labs []*lab
	for _, v := range families() {
		labs = append(labs, &lab{nil, fw, v})
	}
	return fw, labs
}

// FuzzForward: whatever comes, a packet goes up as it came, is dropped, or leaves as
// long as it was, to whom it was meant for, with checksums no worse than before.
func FuzzForward(f *testing.F) {
	fw, labs := fuzzLabs(f)
	for _, l := range labs {
		for side := range 2 {
			s := l.segment(side)
			f.Add(s.frame(), uint32(stateForwarded))
			s.options = padded(1, sack(1, 2, 3, 4), timestamps(5, 6))
			f.Add(s.frame(), uint32(stateEnded))
			for _, kind := range []byte{1, 2, 3, 11} {
				in, _ := l.told(side, kind, 0, 28, nil)
				f.Add(in.frame(), uint32(stateForwarded))
			}
		}
		s := l.segment(ClientSide)
		_, l4 := headers(s.frame())
		if l.v.client.Addr().Is4() {
			f.Add(ipOptions(s.frame(), l4), uint32(stateArmed))
		} else {
			f.Add(extended(0, []byte{60, 0, 1, 4, 0, 0, 0, 0}, []byte{6, 0, 1, 4, 0, 0, 0, 0})(s.frame(), l4), uint32(stateReset))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, state uint32) {
		if len(frame) < linkHeader+20 || len(frame) > 3000 {
			return // the kernel makes no packet of it
		}
		l := labs[1]
		if v4, _ := headers(frame); v4 {
			l = labs[0]
		}
		l = &lab{t, l.f, l.v}
		r := l.record()
		r.State = state % (stateReset + 1)
		l.set(r)
		o := ebpf.RunOptions{Data: bytes.Clone(frame), DataOut: make([]byte, len(frame)+64), Repeat: 1}
		verdict, err := fw.objs.Forward.Run(&o)
		if err != nil {
			return
		}
		was, whole := faults(frame)
		is, _ := faults(o.DataOut)
		switch {
		case verdict == passed:
			if !bytes.Equal(o.DataOut, frame) {
				t.Error("changed on its way up")
			}
		case verdict == dropped:
		case verdict != sentOn:
			t.Errorf("verdict %d", int32(verdict))
		case len(o.DataOut) != len(frame):
			t.Errorf("%d bytes became %d", len(frame), len(o.DataOut))
		case whole && was != is:
			t.Errorf("a checksum is wrong:\n%x\n%x", frame, o.DataOut)
		}
	})
}

// faults is by how much a whole frame's checksums are wrong, of its network header and
// behind it: what is changed in it and what a checksum makes up for leave that as it
// is. ok false: it isn't whole.
func faults(b []byte) (f [2]uint16, ok bool) {
	v4, l4 := headers(b)
	if v4 && (b[linkHeader]>>4 != 4 || l4 < linkHeader+20 || l4 > len(b)) || !v4 && len(b) < linkHeader+40 {
		return f, false
	}
	ip, protocol := b[linkHeader:l4], b[linkHeader+6]
	end, at, size := l4+int(binary.BigEndian.Uint16(ip[4:])), 8, 16
	if v4 {
		f[0] = sum16(ip, 0) % 0xffff
		protocol = ip[9]
		end, at, size = linkHeader+int(binary.BigEndian.Uint16(ip[2:])), 12, 4
	}
	if end < l4+20 || end > len(b) || protocol == 6 && l4+int(b[l4+12]>>4)*4 > end {
		return f, false
	}
	src, _ := netip.AddrFromSlice(ip[at : at+size])
	dst, _ := netip.AddrFromSlice(ip[at+size : at+2*size])
	start := uint32(0)
	if !v4 || protocol == 6 {
		start = pseudo(src, dst, protocol, end-l4)
	}
	f[1] = sum16(b[l4:end], start) % 0xffff
	return f, true
}

// FuzzPlainSYN: nothing but what was asked for goes, and the length stays.
func FuzzPlainSYN(f *testing.F) {
	fw, labs := fuzzLabs(f)
	for _, l := range labs {
		s := l.segment(ClientSide)
		s.src, s.dst, s.flags, s.payload = l.v.host, l.v.backend, syn|ece|cwr, nil
		for _, o := range [][]byte{synOptions(true), timestamps(1, 2), padded(3, timestamps(1, 2)), nil} {
			s.options = o
			f.Add(s.frame())
		}
		if err := fw.PlainSYN(l.v.host.Port(), l.v.backend, WithoutTimestamps|WithoutECN); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < linkHeader+20 || len(frame) > 3000 {
			return
		}
		o := ebpf.RunOptions{Data: bytes.Clone(frame), DataOut: make([]byte, len(frame)+64), Repeat: 1}
		verdict, err := fw.StripProgram().Run(&o)
		if err != nil {
			return
		}
		if verdict != passed || len(o.DataOut) != len(frame) {
			t.Fatalf("verdict %d, %d bytes of %d", int32(verdict), len(o.DataOut), len(frame))
		}
		was, whole := faults(frame)
		if is, _ := faults(o.DataOut); whole && was != is {
			t.Errorf("a checksum is wrong:\n%x\n%x", frame, o.DataOut)
		}
	})
}
