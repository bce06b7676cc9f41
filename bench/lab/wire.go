// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wireQueue is how many packets may be on a wire; further ones are lost.
const wireQueue = 20000

// packet is on its way until it is due.
type packet struct {
	due  time.Time
	data []byte
}

// wire puts a pair of tun devices in the place of the veth pair between the
// client and balancer i, with the harness between them, which delays and loses
// packets. It carries some 100 000 packets a second: far more than TCP gets
// through such a link.
func (l *Lab) wire(i int, delay time.Duration, loss float32) error {
	front, name := FrontAddr(i), fmt.Sprintf("sl-%d", i)
	err := l.Client.netlink(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(name)
		if err != nil {
			return err
		}
		return nl.LinkDel(link)
	})
	if err != nil {
		return err
	}
	near, err := l.tun(l.Client, name)
	if err != nil {
		return err
	}
	far, err := l.tun(l.Balancers[i], "sl-front")
	if err != nil {
		return err
	}
	err = errors.Join(address(l.Client, name, front.Prev()), address(l.Balancers[i], "sl-front", front))
	if err != nil {
		return err
	}
	if i == 0 {
		err = route(l.Client, backendNet, front)
	}
	carry(near, far, delay, loss)
	carry(far, near, delay, loss)
	return errors.Join(err, route(l.Balancers[i], sourceNet, front.Prev()))
}

// tun makes a device on the host. It goes when its file is closed.
func (l *Lab) tun(h *Host, name string) (*os.File, error) {
	var fd int
	err := h.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: making tun device %s: %w", h.Name, name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	l.files = append(l.files, f)
	return f, nil
}

// carry moves packets one way until a device is closed.
func carry(from, to *os.File, delay time.Duration, loss float32) {
	way := make(chan packet, wireQueue)
	go func() {
		defer close(way)
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if rand.Float32()*100 < loss {
				continue
			}
			select {
			case way <- packet{time.Now().Add(delay), append([]byte(nil), buf[:n]...)}:
			default:
			}
		}
	}()
	go func() {
		for p := range way {
			time.Sleep(time.Until(p.due))
			// What can't be written is lost, as on any wire.
			_, _ = to.Write(p.data)
		}
	}()
}
