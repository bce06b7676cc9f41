// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// follow takes the kernel's notices of links until they are closed.
func (d *Devices) follow() {
	defer close(d.followed)
	for {
		msgs, err := d.notices.read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		d.mu.Lock()
		if err != nil {
			// The kernel sends nothing more, and says nothing of it, until all
			// that waits has been read: list after that.
			_ = d.notices.discard()
			_ = d.list() // Check tries again
		}
		for _, m := range msgs {
			d.take(m)
		}
		if len(msgs) > 0 {
			d.settle()
		}
		if err != nil && !errors.Is(err, errMissed) {
			d.deaf = err
		}
		deaf := d.deaf != nil
		d.mu.Unlock()
		if deaf {
			return
		}
	}
}

// take reads again what a notice is about: some carry a part only, and one that
// says a device is gone may be of a bridge's port (AF_BRIDGE), or be followed
// by another device with the same index.
func (d *Devices) take(m syscall.NetlinkMessage) {
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return
	}
	index := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	if m.Header.Type == unix.RTM_DELLINK && m.Data[0] == unix.AF_UNSPEC {
		d.forget(index)
	}
	d.read(index)
}

// read brings one device's facts up to date.
func (d *Devices) read(index int) {
	l, err := d.handle.LinkByIndex(index)
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV):
		d.forget(index)
	case err != nil:
		d.missed = err
	default:
		d.note(factsOf(l, d.offloads))
	}
}

func (d *Devices) note(f linkFacts) {
	if dev := d.devices[f.index]; dev != nil && d.links[f.index] != f {
		dev.tried = false
	}
	d.links[f.index] = f
}

func (d *Devices) forget(index int) {
	if dev := d.devices[index]; dev != nil {
		_ = d.unhook(dev) // the device took its hook along
		delete(d.devices, index)
	}
	delete(d.links, index)
}

// list reads all devices. After an error what was known stays, and Check lists again.
func (d *Devices) list() error {
	links, err := d.handle.LinkList()
	for tries := 0; errors.Is(err, netlink.ErrDumpInterrupted) && tries < 10; tries++ {
		links, err = d.handle.LinkList()
	}
	d.missed = nil
	if err != nil {
		d.missed = fmt.Errorf("listing the devices: %w", err)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return d.missed
		}
	}
	there := make(table, len(links))
	for _, l := range links {
		there[l.Attrs().Index] = factsOf(l, d.offloads)
	}
	for index := range d.links {
		// A list that was made while devices came and went may lack some: they
		// have notices of their own, and Check lists again.
		if _, ok := there[index]; !ok && err == nil {
			d.forget(index)
		}
	}
	if d.links == nil {
		d.links = table{}
	}
	for _, f := range there {
		d.note(f)
	}
	d.settle()
	return nil
}

// settle hooks what is to be and isn't, then lets go of what isn't to be any
// more: a device that becomes another's member is let go when that has it.
func (d *Devices) settle() {
	members := d.links.members()
	var out []*device
	for index, f := range d.links {
		dev := d.devices[index]
		if dev == nil {
			dev = &device{Device: Device{Index: index}}
			d.devices[index] = dev
		}
		dev.Name = f.name
		why := d.links.refusal(f, members)
		switch {
		case why == "" && !dev.Hooked && !dev.tried:
			d.hook(dev)
		case why != "" && dev.Hooked:
			out = append(out, dev)
		}
		if why != "" {
			dev.Why = why
		}
	}
	for _, dev := range out {
		why := dev.Why
		_ = d.unhook(dev)
		dev.Why = why
	}
}
