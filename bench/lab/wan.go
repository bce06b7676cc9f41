// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// WAN gives the client's link of balancer i a delay of half of rtt and a loss,
// in percent, in each direction. It tells whether the kernel's netem does
// that; where there is none, the harness itself does.
func (l *Lab) WAN(i int, rtt time.Duration, loss float32) (bool, error) {
	err := errors.Join(netem(l.Client, fmt.Sprintf("sl-%d", i), rtt/2, loss), netem(l.Balancers[i], "sl-front", rtt/2, loss))
	if errors.Is(err, unix.ENOENT) {
		return false, l.wire(i, rtt/2, loss)
	}
	return true, err
}

func netem(h *Host, dev string, delay time.Duration, loss float32) error {
	return h.netlink(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(dev)
		if err != nil {
			return err
		}
		attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
		qdisc := netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{Latency: uint32(delay / time.Microsecond), Loss: loss, Limit: 20000})
		if err := nl.QdiscAdd(qdisc); err != nil {
			return fmt.Errorf("netem on %s: %w", dev, err)
		}
		return nil
	})
}
