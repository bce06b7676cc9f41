// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Bounds of forward.max_flows.
const (
	DefaultMaxFlows = 65536
	MostMaxFlows    = 4194304
)

// leastForwardPort keeps the ports that servers are told to have out of the hands of
// connections.
const leastForwardPort = 1024

// Forward says what sessions need whose packets the kernel forwards. It takes effect
// at start.
type Forward struct {
	MaxFlows int         // 0: no offload
	Ports    []PortRange // source ports toward backends; none: chosen by sluice
	Pos      Position    // of what Ports says
	Pin      string      // directory of a BPF filesystem in which flows outlive the process; "": they don't
	PinPos   Position
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// String is the range as the file writes it.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Equal tells whether two say the same, wherever they stand.
func (f Forward) Equal(o Forward) bool {
	return f.MaxFlows == o.MaxFlows && f.Pin == o.Pin && slices.Equal(f.Ports, o.Ports)
}

func (d *decoder) forward(p pair, f *Forward) {
	d.fields(p.value, "forward", []field{
		{"max_flows", func(p pair) { d.integer(p, 0, MostMaxFlows, &f.MaxFlows) }},
		{"ports", func(p pair) { f.Pos = p.value.pos; f.Ports = d.forwardPorts(p) }},
		{"pin", func(p pair) { f.PinPos = p.value.pos; f.Pin = d.pin(p) }},
	})
}

// pin reads `off`, which is "", or a directory's path.
func (d *decoder) pin(p pair) string {
	if isOff(p.value) {
		return ""
	}
	path := p.value.text
	base := filepath.Base(path)
	switch {
	case p.value.kind != textKind || !filepath.IsAbs(path) || path != filepath.Clean(path) || base == "/" || hasControl(path):
		d.fail(p.value.pos, "pin is %s, must be off or a path such as /sys/fs/bpf/sluice", describe(p.value))
		return ""
	case strings.Contains(base, "."):
		d.fail(p.value.pos, "pin is %s, must be a name without a dot: a BPF filesystem takes none with one", describe(p.value))
		return ""
	}
	return path
}

func hasControl(s string) bool { return strings.ContainsFunc(s, isControl) }

// forwardPorts reads `auto`, which is nil, or a list of ranges.
func (d *decoder) forwardPorts(p pair) []PortRange {
	if p.value.kind == textKind && p.value.text == "auto" {
		return nil
	}
	if p.value.kind != listKind || len(p.value.items) == 0 {
		d.fail(p.value.pos, "ports is %s, must be auto or a list of ranges such as [\"20000-29999\"]", describe(p.value))
		return nil
	}
	var all []PortRange
	d.list(p, "ranges of ports", func(n *node) {
		s, ok := d.text(n, "an item of ports", `a range such as "20000-29999"`)
		if !ok {
			return
		}
		r, err := parsePortRange(s)
		if err != nil {
			d.fail(n.pos, "%v", err)
			return
		}
		for _, o := range all {
			if r.First <= o.Last && o.First <= r.Last {
				d.fail(n.pos, "ports %s and %s overlap, must be apart", o, r)
				return
			}
		}
		all = append(all, r)
	})
	return all
}

func parsePortRange(s string) (PortRange, error) {
	from, to, two := strings.Cut(s, "-")
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if !two || err1 != nil || err2 != nil || strconv.FormatUint(first, 10) != from || strconv.FormatUint(last, 10) != to {
		return PortRange{}, fmt.Errorf("%s isn't a range of ports, must be first-last such as 20000-29999", quote(s))
	}
	if first < leastForwardPort {
		return PortRange{}, fmt.Errorf("a range from port %d, must begin at %d at least: those below are servers'", first, leastForwardPort)
	}
	if last <= first {
		return PortRange{}, fmt.Errorf("a range from %d to %d, must have more than one port, the first one first", first, last)
	}
	return PortRange{uint16(first), uint16(last)}, nil
}

// dump writes it as the file does.
func (f Forward) dump(w *strings.Builder) {
	ports := "auto"
	if len(f.Ports) > 0 {
		list := make([]string, len(f.Ports))
		for i, r := range f.Ports {
			list[i] = scalar(r.String())
		}
		ports = "[" + strings.Join(list, ", ") + "]"
	}
	pin := "off"
	if f.Pin != "" {
		pin = scalar(f.Pin)
	}
	fmt.Fprintf(w, "forward:\n  max_flows: %d\n  ports: %s\n  pin: %s\n", f.MaxFlows, ports, pin)
}
