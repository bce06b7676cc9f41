// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"sluice/bpf"
)

// answers is a program that says the same to everything.
func answers(n int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, n), asm.Return()}
}

// tcRedirect is TC_ACT_REDIRECT of linux/pkt_cls.h.
const tcRedirect = 7

// packetFlow is a flow that is forwarded, as its record has it, and that only packets
// made for the program are of.
type packetFlow struct {
	peer, ours [2]netip.AddrPort // of each side
}

// packetFlows has one of each family.
func packetFlows() map[string]packetFlow {
	at := netip.MustParseAddrPort
	return map[string]packetFlow{
		"packets": {
			peer: [2]netip.AddrPort{at("198.18.0.2:40000"), at("198.18.1.2:8080")},
			ours: [2]netip.AddrPort{at("198.18.0.1:80"), at("198.18.1.1:10240")},
		},
		"packets, IPv6": {
			peer: [2]netip.AddrPort{at("[fd00::2]:40000"), at("[fd00:1::2]:8080")},
			ours: [2]netip.AddrPort{at("[fd00::1]:80"), at("[fd00:1::1]:10240")},
		},
	}
}

// Numbers of the flow: what each side has sent so far, and what is added to it.
var (
	packetNext = [2]uint32{0x10000000, 0xfffffff0} // the backend's wrap in its packet
	packetAdd  = [2]uint32{0xe1234567, 0x07654321}
	packetTime = [2]uint32{0x0badcafe, 0x700dface}
)

const packetWindow = 512 // in units of 128 bytes

// packetSteps has the program forward packets of a flow that was never cut.
func packetSteps(ctx context.Context, fault offloadFault, report *Report) error {
	o, err := report.load(fault)
	if err != nil {
		return err
	}
	defer o.close()
	return o.packetRun(ctx, report)
}

func (o *offloadTest) packetRun(ctx context.Context, report *Report) error {
	flows := packetFlows()
	for _, name := range []string{"packets", "packets, IPv6"} {
		if err := report.try(ctx, "offload", name, func() (string, error) { return o.packets(flows[name]) }); err != nil {
			return err
		}
	}
	return report.try(ctx, "offload", "nothing left", o.nothingLeft)
}

func (o *offloadTest) packets(p packetFlow) (string, error) {
	slot, ok := o.f.Reserve()
	if !ok {
		return "", errors.New("no flow number left")
	}
	rec := o.f.Flow(slot)
	rec.raw = p.record(slot)
	defer func() {
		o.f.Release(slot)
		o.moment("released", slot)
	}()
	for side := range 2 {
		if err := o.f.objs.FlowKeys.Put(rec.key(side), bpf.ForwardFlowRef{Slot: slot, Side: uint32(side)}); err != nil {
			return "", err
		}
	}
	o.moment("record", slot)
	for side, name := range []string{"client", "backend"} {
		in, want := p.packet(side, false), p.packet(side, true)
		opts := ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64), Repeat: 1}
		verdict, err := o.f.Program().Run(&opts)
		if err != nil {
			return "", fmt.Errorf("running the program on a packet: %w", err)
		}
		if verdict != tcRedirect {
			return "", fmt.Errorf("a packet of the %s isn't forwarded: verdict %d, %s", name, int32(verdict), o.told())
		}
		if !bytes.Equal(opts.DataOut, want) {
			return "", fmt.Errorf("a packet of the %s became %x instead of %x", name, opts.DataOut, want)
		}
		if n := rec.Packets(side); n != 1 {
			return "", fmt.Errorf("%d packets of the %s counted instead of 1", n, name)
		}
	}
	return "one each way: addresses, numbers, timestamps, checksums", nil
}

// record is the flow's, with all acknowledged.
func (p packetFlow) record(slot uint32) bpf.ForwardFlowRecord {
	const seenBoth = 3 // of enum flow_flags
	r := bpf.ForwardFlowRecord{State: stateForwarded, Flags: seenBoth, Index: slot}
	for side := range 2 {
		s, other := &r.Side[side], 1-side
		s.Saddr, s.Daddr = words(p.ours[other].Addr()), words(p.peer[other].Addr())
		s.Sport, s.Dport = htons(p.ours[other].Port()), htons(p.peer[other].Port())
		s.AddrDiff = addedSum([]netip.Addr{p.peer[side].Addr(), p.ours[side].Addr()}, []netip.Addr{p.ours[other].Addr(), p.peer[other].Addr()})
		s.Ifindex = 1 // the packet isn't sent
		s.SeqAdd, s.AckAdd = packetAdd[side], -packetAdd[other]
		s.TsvalAdd, s.TsecrAdd, s.TsecrMin = packetTime[side], -packetTime[other], 1000+packetTime[other]
		s.ScaleIn, s.ScaleOut, s.Widest = 7, 7, packetWindow
		s.Next, s.Cut, s.Fin = packetNext[side], packetNext[side], packetNext[side]
		s.Acked = 1<<32 | uint64(packetNext[other]+packetAdd[other])
		s.Base = s.Acked
		s.Edge = uint32(s.Acked) + packetWindow<<7
	}
	return r
}

// addedSum is what other addresses add to a sum of the words of 32 bits that the
// program reads.
func addedSum(was, is []netip.Addr) uint32 {
	var sum uint64
	for i := range was {
		old, now := words(was[i]), words(is[i])
		for k := range old {
			sum += uint64(^old[k]) + uint64(now[k])
		}
	}
	for sum>>32 != 0 {
		sum = sum>>32 + sum&0xffffffff
	}
	return uint32(sum)
}

// packet is a side's next one; translated as the other side is to get it. The backend
// acknowledges what the client's brought.
func (p packetFlow) packet(side int, translated bool) []byte {
	const payload = 100
	other := 1 - side
	from, to, hops := p.peer[side], p.ours[side], byte(64)
	seq, ack := packetNext[side], packetNext[other]+packetAdd[other]
	value, echo := uint32(5000), 2000+packetTime[other]
	if side == BackendSide {
		ack += payload
	}
	if translated {
		from, to, hops = p.ours[other], p.peer[other], hops-1
		seq, ack = seq+packetAdd[side], ack-packetAdd[other]
		value, echo = value+packetTime[side], echo-packetTime[other]
	}
	b := binary.BigEndian.AppendUint16(nil, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	const header = 32 // with the option
	b = append(b, header/4<<4, tcpACK|tcpPSH)
	b = binary.BigEndian.AppendUint16(b, packetWindow)
	b = append(b, 0, 0, 0, 0, 1, 1, 8, 10) // the timestamps' option
	b = binary.BigEndian.AppendUint32(b, value)
	b = binary.BigEndian.AppendUint32(b, echo)
	b = append(b, pattern(payload)...)
	return framed(from.Addr(), to.Addr(), hops, b)
}

// framed puts a link header and a network header in front of a segment, with every
// checksum right.
func framed(from, to netip.Addr, hops byte, segment []byte) []byte {
	pseudo := append(from.AsSlice(), to.AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, byte(len(segment)>>8), byte(len(segment)))
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	link := make([]byte, linkHeader)
	var ip []byte
	if from.Is4() {
		binary.BigEndian.PutUint16(link[12:], unix.ETH_P_IP)
		ip = []byte{0x45, 0, 0, byte(20 + len(segment)), 0, 0, 0x40, 0, hops, unix.IPPROTO_TCP, 0, 0}
		ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	} else {
		binary.BigEndian.PutUint16(link[12:], unix.ETH_P_IPV6)
		ip = []byte{0x60, 0, 0, 0, 0, byte(len(segment)), unix.IPPROTO_TCP, hops}
		ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	}
	return append(append(link, ip...), segment...)
}
