// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// routesSettle is for how long changes of routes are gathered.
const routesSettle = 100 * time.Millisecond

// Routes answers which device leads to an address, and says when that may have
// changed, in the network namespace of the thread that made it. Its methods may
// be called at once from several goroutines.
type Routes struct {
	handle  *netlink.Handle
	notices *notices
	changed func(*Routes)
	once    sync.Once
	closing chan struct{}
	done    chan struct{}
}

// NewRoutes has changed called, on a goroutine of its own and never twice at
// once, within about 100 ms of a change of routes, rules, addresses or links,
// however many there are meanwhile. Close ends it; it needs no privilege.
func NewRoutes(changed func(*Routes)) (_ *Routes, err error) {
	r := &Routes{changed: changed, closing: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	if r.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("a netlink socket: %w", err)
	}
	if r.notices, err = noticesOf(unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP); err != nil { // the last since Linux 5.3
		return nil, err
	}
	r.done = make(chan struct{})
	go r.follow()
	return r, nil
}

// Close waits for a call of changed that is under way, so changed must not call it.
func (r *Routes) Close() (err error) {
	r.once.Do(func() {
		close(r.closing)
		err = r.notices.close()
		if r.done != nil {
			<-r.done
		}
		if r.handle != nil {
			r.handle.Close()
		}
	})
	return err
}

func (r *Routes) follow() {
	defer close(r.done)
	for {
		if _, err := r.notices.read(); err != nil && !errors.Is(err, errMissed) {
			return // closed
		}
		select {
		case <-r.closing:
			return
		case <-time.After(routesSettle):
		}
		if err := r.notices.discard(); errors.Is(err, os.ErrClosed) {
			return
		}
		r.changed(r)
	}
}

// Device is the index of the device that leads from src, an address of the
// host, to dst now; 1, the loopback device, if dst is the host's own. It doesn't
// know a socket's mark or ports, by which rules and several next hops may choose.
// An error is that there is no route (unix.ENETUNREACH and the like), or that
// src isn't the host's. It takes about 20 us.
func (r *Routes) Device(dst, src netip.Addr) (int, error) {
	dst, src = dst.Unmap(), src.Unmap()
	if !dst.IsValid() || !src.IsValid() || dst.Is4() != src.Is4() {
		return 0, fmt.Errorf("a route from %s to %s: not addresses of one family", src, dst)
	}
	o := &netlink.RouteGetOptions{SrcAddr: net.IP(src.AsSlice())}
	if zone := dst.Zone(); zone != "" {
		l, err := r.handle.LinkByName(zone)
		if err != nil {
			return 0, fmt.Errorf("a route to %s: %w", dst, err)
		}
		o.OifIndex = l.Attrs().Index
	}
	routes, err := r.handle.RouteGetWithOptions(net.IP(dst.AsSlice()), o)
	if err != nil {
		return 0, fmt.Errorf("a route from %s to %s: %w", src, dst, err)
	}
	if len(routes) == 0 || routes[0].LinkIndex == 0 {
		return 0, fmt.Errorf("a route from %s to %s: it leads to no device", src, dst)
	}
	return routes[0].LinkIndex, nil
}

// xfrmSPDInfo is XFRMA_SPD_INFO of linux/xfrm.h.
const xfrmSPDInfo = 1

// AnyPolicy says whether the calling thread's network namespace has a policy of
// IPsec, in, out or forwarded. Those of single sockets don't count: a key
// exchange daemon has some on its own. It needs CAP_NET_ADMIN (*PermissionError).
func AnyPolicy() (bool, error) {
	req := nl.NewNetlinkRequest(nl.XFRM_MSG_GETSPDINFO, 0)
	req.AddRawData(make([]byte, 4)) // flags
	answers, err := req.Execute(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWSPDINFO)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil // the kernel has no such policies
	}
	if err != nil {
		return false, classify("offload", fmt.Errorf("asking for policies of IPsec: %w", err))
	}
	for _, a := range answers {
		if len(a) < 4 {
			continue
		}
		attrs, err := nl.ParseRouteAttr(a[4:])
		if err != nil {
			return false, fmt.Errorf("asking for policies of IPsec: %w", err)
		}
		for _, attr := range attrs {
			if attr.Attr.Type != xfrmSPDInfo || len(attr.Value) < 12 {
				continue
			}
			for i := range 3 { // in, out, forwarded
				if binary.NativeEndian.Uint32(attr.Value[4*i:]) > 0 {
					return true, nil
				}
			}
			return false, nil
		}
	}
	return false, errors.New("asking for policies of IPsec: the kernel's answer has no counts")
}
