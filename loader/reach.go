// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Reach tells to which addresses sessions could be offloaded, by the devices of the
// calling thread's network namespace as they were when it was made. It needs no
// privilege. Not for use by several goroutines at once.
type Reach struct {
	handle   *netlink.Handle
	names    map[int]string
	refusals map[int]string // of the devices that the forward program doesn't run on
}

// NewReach lists the devices. Close is the caller's.
func NewReach() (_ *Reach, err error) {
	r := &Reach{names: map[int]string{}, refusals: map[int]string{}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("a netlink socket: %w", err)
	}
	f, err := newOffloads()
	if err != nil {
		return nil, err
	}
	defer f.close()
	list, err := r.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the devices: %w", err)
	}
	t := table{}
	for _, l := range list {
		t[l.Attrs().Index] = factsOf(l, f)
	}
	members := t.members()
	for index, facts := range t {
		r.names[index] = facts.name
		if why := t.refusal(facts, members); why != "" {
			r.refusals[index] = why
		}
	}
	return r, nil
}

// Close closes the netlink socket.
func (r *Reach) Close() {
	if r.handle != nil {
		r.handle.Close()
	}
}

// To is the device by which packets to an address leave now, and why sessions with it
// can't be offloaded; why empty: they can, as far as this host goes.
func (r *Reach) To(a netip.Addr) (device, why string) {
	o := &netlink.RouteGetOptions{}
	if zone := a.Zone(); zone != "" {
		l, err := r.handle.LinkByName(zone)
		if err != nil {
			return "", fmt.Sprintf("device %s: %v", zone, err)
		}
		o.OifIndex = l.Attrs().Index
	}
	routes, err := r.handle.RouteGetWithOptions(net.IP(a.Unmap().WithZone("").AsSlice()), o)
	switch {
	case err != nil:
		return "", fmt.Sprintf("no route leads to it: %v", err)
	case len(routes) == 0 || routes[0].LinkIndex == 0:
		return "", "no route leads to it"
	case routes[0].Type == unix.RTN_LOCAL || routes[0].LinkIndex == 1:
		return "lo", "it is on this host: its packets pass no device"
	}
	index := routes[0].LinkIndex
	name, known := r.names[index]
	if !known {
		return "", fmt.Sprintf("device %d, which leads to it, has just come or gone", index)
	}
	if why := r.refusals[index]; why != "" {
		return name, fmt.Sprintf("device %s leads to it: %s", name, why)
	}
	return name, ""
}
