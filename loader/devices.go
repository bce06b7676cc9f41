// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Flags of a device in the map, as bpf/forward_devices.h has them.
const (
	deviceHooked = 1 << iota
	deviceFirst
)

// DevicesOptions says how devices are hooked.
type DevicesOptions struct {
	Clsact bool // by filters of tc, also where the kernel has tcx (Linux 6.6)
	// Egress, of section "tc", is to run on what leaves by the same devices, the
	// caller's to close, after Close. A device that can't have it does without. Nil:
	// nothing runs there.
	Egress *ebpf.Program
	// Pin has the programs run on after Leave, or when the process is killed, and takes
	// those of a process before off, once ours run. It stays the caller's, to be closed
	// after Close or Leave. Nil: they end with the process.
	Pin *Pin
}

// Devices runs a program on what every device of a network namespace receives,
// if its packets are Ethernet frames with the device that a route names, and
// follows devices as they come, change and go. Its methods may be called at
// once from several goroutines.
//
// With tcx nothing is left of it once the process ends. Before 6.6 a filter of
// tc stays where a process was killed: a stub that lets every packet pass, which
// the next NewDevices in the namespace removes.
type Devices struct {
	hooks    hooks
	out      hooks     // of DevicesOptions.Egress; nil: none is to be
	flags    *ebpf.Map // the caller's
	handle   *netlink.Handle
	offloads *offloads
	notices  *notices
	followed chan struct{} // closed when nobody follows any more

	mu      sync.Mutex
	links   table
	devices map[int]*device
	missed  error // why links have to be listed again; nil: they needn't
	deaf    error // why nobody follows, and Check lists each time
}

// Device is what became of one.
type Device struct {
	Index  int
	Name   string
	Hooked bool   // the program sees what it receives
	First  bool   // and before every other program of tc but those of other instances
	Why    string // what is the reason if it isn't hooked, or what runs first; may be empty
	// NoEgress is why, of a hooked device, DevicesOptions.Egress doesn't see what
	// leaves by it; empty if it does, or there is none.
	NoEgress string
}

type device struct {
	Device
	tried bool   // and not to be tried again before its facts change or Check
	out   bool   // what leaves by it is seen
	noted uint32 // its flags in the map
}

// NewDevices hooks the devices of the network namespace that the process is
// in: all of its threads have to be. p is of section "tc", and with flags, its
// map forward_devices, the caller's to close, after Close. It needs CAP_BPF,
// CAP_NET_ADMIN and CAP_PERFMON (*PermissionError), also later, for devices
// that come. A device that can't be hooked is no error: List has the reason.
func NewDevices(p *ebpf.Program, flags *ebpf.Map, o DevicesOptions) (_ *Devices, err error) {
	d := &Devices{flags: flags, devices: map[int]*device{}}
	defer func() {
		if err != nil {
			err = classify("offload", err)
			_ = d.Close()
		}
	}()
	if d.hooks, d.out, err = newHooks(p, o); err != nil {
		return nil, err
	}
	if d.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("a netlink socket: %w", err)
	}
	if d.offloads, err = newOffloads(); err != nil {
		return nil, err
	}
	if d.notices, err = noticesOf(unix.RTNLGRP_LINK); err != nil {
		return nil, err
	}
	d.mu.Lock()
	err = d.list()
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := d.sweepPinned(o.Pin); err != nil {
		return nil, err
	}
	d.followed = make(chan struct{})
	go d.follow()
	return d, nil
}

// sweepPinned takes off what a process before has left pinned, by whichever way it
// hooked, once all devices are hooked that are to be.
func (d *Devices) sweepPinned(p *Pin) error {
	if p == nil {
		return nil
	}
	errs := []error{p.sweepFilters(claimed)}
	for _, prefix := range []string{ingress.pinPrefix(), egress.pinPrefix(), programPin} {
		names, err := p.names(prefix)
		errs = append(errs, err)
		for _, name := range names {
			if !slices.ContainsFunc(d.places(), func(h hooks) bool { return h.pins(name) }) {
				errs = append(errs, p.remove(name))
			}
		}
	}
	return errors.Join(errs...)
}

// Close takes the program off all devices, also after a start that failed
// halfway. The map and the program are the caller's still.
func (d *Devices) Close() error {
	return d.end(func() (errs []error) {
		for _, dev := range d.devices {
			errs = append(errs, d.unhook(dev))
		}
		for _, h := range d.places() {
			errs = append(errs, h.close())
		}
		return errs
	})
}

// Leave is Close, but what is pinned runs on where it is.
func (d *Devices) Leave() error {
	return d.end(func() (errs []error) {
		for _, h := range d.places() {
			errs = append(errs, h.leave())
		}
		return errs
	})
}

// places are the hooks that there are.
func (d *Devices) places() (list []hooks) {
	for _, h := range []hooks{d.hooks, d.out} {
		if h != nil {
			list = append(list, h)
		}
	}
	return list
}

// end stops following devices and does with the hooks what it is given.
func (d *Devices) end(do func() []error) error {
	err := d.notices.close()
	if d.followed != nil {
		<-d.followed
		d.followed = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := append([]error{err}, do()...)
	clear(d.devices)
	if d.handle != nil {
		d.handle.Close()
	}
	return errors.Join(append(errs, d.offloads.close())...)
}

// List gives every device of the namespace, by index.
func (d *Devices) List() []Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]Device, 0, len(d.devices))
	for _, index := range slices.Sorted(maps.Keys(d.devices)) {
		list = append(list, d.devices[index].Device)
	}
	return list
}

// First says whether the program runs before every other of tc on all hooked
// devices, as of the last Check, and if not where it doesn't and what does. On
// such a device no new flow is to begin: the map says so to the program.
func (d *Devices) First() (first bool, why string) {
	for _, dev := range d.List() {
		if dev.Hooked && !dev.First {
			return false, dev.Name + ": " + dev.Why
		}
	}
	return true, ""
}

// Egress says whether DevicesOptions.Egress sees what leaves by each hooked device, as
// of the last Check, and if not where it doesn't and why.
func (d *Devices) Egress() (all bool, why string) {
	for _, dev := range d.List() {
		if dev.Hooked && dev.NoEgress != "" {
			return false, dev.Name + ": " + dev.NoEgress
		}
	}
	return true, ""
}

// Check is for housekeeping, once a second: it sees whether the program is
// still where it was put, puts it back if somebody took it away, and tries again
// what failed. It costs a system call a device, with clsact a few. Its error is
// that devices can't be listed, and then those that are known go on.
func (d *Devices) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.missed != nil || d.deaf != nil {
		err = d.list()
	}
	for index, dev := range d.devices {
		dev.tried = false
		if d.links[index].trouble != "" {
			d.read(index)
		}
		if dev.Hooked {
			d.look(dev)
		}
	}
	d.settle()
	return err
}

// look brings up to date whether the program is there and first.
func (d *Devices) look(dev *device) {
	there, before, err := d.hooks.look(dev.Index)
	switch {
	case err != nil: // nothing is known of it: nothing new begins there
		dev.First, dev.Why = false, err.Error()
	case !there:
		_ = d.unhook(dev) // settle hooks it again
		return
	default:
		dev.First, dev.Why = before == "", ""
		if before != "" {
			dev.Why = before + " runs before ours"
		}
	}
	if err := d.publish(dev); err != nil {
		_ = d.unhook(dev)
		dev.tried, dev.Why = true, err.Error()
		return
	}
	d.lookOut(dev)
}

// lookOut sees to the program for what leaves.
func (d *Devices) lookOut(dev *device) {
	if d.out == nil {
		return
	}
	if dev.out {
		if there, _, err := d.out.look(dev.Index); there || err != nil {
			return
		}
	}
	err := d.out.attach(dev.Index)
	if dev.out, dev.NoEgress = err == nil, ""; err != nil {
		dev.NoEgress = err.Error()
	}
}

// hook puts the program on the device, then says so to the program.
func (d *Devices) hook(dev *device) {
	dev.tried = true
	if err := d.hooks.attach(dev.Index); err != nil {
		dev.Why = err.Error()
		return
	}
	dev.Hooked = true
	d.look(dev)
}

// unhook is hook's opposite, in the opposite order.
func (d *Devices) unhook(dev *device) error {
	if !dev.Hooked {
		return nil
	}
	dev.Hooked, dev.First, dev.Why, dev.tried, dev.noted = false, false, "", false, 0
	err := d.flags.Delete(uint32(dev.Index))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if d.out != nil {
		dev.out, dev.NoEgress = false, ""
		err = errors.Join(err, d.out.detach(dev.Index))
	}
	return errors.Join(err, d.hooks.detach(dev.Index))
}

func (d *Devices) publish(dev *device) error {
	flags := uint32(deviceHooked)
	if dev.First {
		flags |= deviceFirst
	}
	if flags == dev.noted {
		return nil
	}
	if err := d.flags.Put(uint32(dev.Index), flags); err != nil {
		return fmt.Errorf("noting the device for the program (there is room for %d): %w", d.flags.MaxEntries(), err)
	}
	dev.noted = flags
	return nil
}
