// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tcEntry is a qdisc or a filter as far as it matters here: those of others
// are of any kind, and what is in them isn't looked at.
type tcEntry struct {
	index          int
	handle, parent uint32
	kind           string

	// Of a filter.
	priority, protocol uint16
	chain              uint32
	detailed           bool // a filter; otherwise what stands for all of its priority

	// Of a filter of kind bpf.
	name string
	id   ebpf.ProgramID
}

// clsactQdiscs lists the qdiscs that have classifiers on ingress, of every device.
func clsactQdiscs() ([]tcEntry, error) {
	all, err := dumpTC(unix.RTM_GETQDISC, unix.RTM_NEWQDISC, nl.TcMsg{})
	if err != nil {
		return nil, fmt.Errorf("listing qdiscs: %w", err)
	}
	var found []tcEntry
	for _, e := range all {
		if e.kind == "clsact" {
			found = append(found, e)
		}
	}
	return found, nil
}

// filtersOf lists a device's filters in the order they run in. parent is
// netlink.HANDLE_MIN_INGRESS or netlink.HANDLE_MIN_EGRESS.
func filtersOf(index int, parent uint32) ([]tcEntry, error) {
	list, err := dumpTC(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, nl.TcMsg{Ifindex: int32(index), Parent: parent})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("listing the filters of device %d: %w", index, err)
	}
	return list, nil
}

// dumpTC asks until nothing changed meanwhile.
func dumpTC(get, answer uint16, msg nl.TcMsg) ([]tcEntry, error) {
	for tries := 0; ; tries++ {
		req := nl.NewNetlinkRequest(int(get), unix.NLM_F_DUMP)
		req.AddData(&msg)
		raw, err := req.Execute(unix.NETLINK_ROUTE, answer)
		if errors.Is(err, netlink.ErrDumpInterrupted) && tries < 10 {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries := make([]tcEntry, 0, len(raw))
		for _, m := range raw {
			e, err := parseTC(m)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		return entries, nil
	}
}

// parseTC reads struct tcmsg and the attributes behind it.
func parseTC(m []byte) (tcEntry, error) {
	if len(m) < nl.SizeofTcMsg {
		return tcEntry{}, fmt.Errorf("a message of tc has %d bytes", len(m))
	}
	msg := nl.DeserializeTcMsg(m)
	e := tcEntry{index: int(msg.Ifindex), handle: msg.Handle, parent: msg.Parent}
	e.priority, e.protocol = uint16(msg.Info>>16), nl.Swap16(uint16(msg.Info))
	attrs, err := nl.ParseRouteAttr(m[nl.SizeofTcMsg:])
	if err != nil {
		return tcEntry{}, fmt.Errorf("a message of tc: %w", err)
	}
	var options []byte
	for _, a := range attrs {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case nl.TCA_KIND:
			e.kind = text(a.Value)
		case nl.TCA_CHAIN:
			e.chain = word(a.Value)
		case nl.TCA_OPTIONS:
			e.detailed, options = true, a.Value
		}
	}
	if e.kind != "bpf" {
		return e, nil
	}
	if attrs, err = nl.ParseRouteAttr(options); err != nil {
		return tcEntry{}, fmt.Errorf("a bpf filter: %w", err)
	}
	for _, a := range attrs {
		switch a.Attr.Type & nl.NLA_TYPE_MASK {
		case nl.TCA_BPF_NAME:
			e.name = text(a.Value)
		case nl.TCA_BPF_ID:
			e.id = ebpf.ProgramID(word(a.Value))
		}
	}
	return e, nil
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func word(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
