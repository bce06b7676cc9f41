// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a network namespace.
type Host struct {
	Devices []string
	V4, V6  []netip.Addr

	ns *os.File
}

// newHost makes a namespace whose loopback device is up.
func newHost() (*Host, error) {
	h := &Host{}
	own, err := here()
	if err != nil {
		return nil, err
	}
	defer own.close()
	err = own.Do(func() (err error) { // which brings the thread back
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		if h.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return setUp("lo")
	})
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// here is the namespace of the calling goroutine.
func here() (*Host, error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	return &Host{ns: ns}, err
}

func (h *Host) close() error {
	if h.ns == nil {
		return nil
	}
	err := h.ns.Close()
	h.ns = nil
	return err
}

// Do calls f within the host: sockets that f makes on its own goroutine are the
// host's, as is what it reads and writes below /proc/sys/net and /proc/thread-self.
// Many calls may be made at once.
func (h *Host) Do(f func() error) error {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// What /proc/self says is what the process's first thread sees: it stays here.
		defer runtime.UnlockOSThread()
		done := make(chan error)
		go func() { done <- h.Do(f) }() // on another thread, as this one is locked
		return <-done
	}
	old, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		defer old.Close()
		err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	defer func() {
		// A thread that can't go back is used by nobody else: it ends with the goroutine.
		if unix.Setns(int(old.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// Dial connects to an address, from one of the host's if from is valid. The
// connection is the caller's.
func (h *Host) Dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (c *net.TCPConn, err error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	err = h.Do(func() error {
		any, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			c = any.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// Listen accepts connections at one of the host's addresses; port 0: a free one. The
// listener is the caller's.
func (h *Host) Listen(addr netip.AddrPort) (l net.Listener, err error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false) // a listener of MPTCP resets some whose SYN-ACK was lost
	err = h.Do(func() (err error) {
		l, err = c.Listen(context.Background(), "tcp", addr.String())
		return err
	})
	return l, err
}

// Sysctl sets a value of the host for the test's time; name is below /proc/sys/net,
// such as ipv4/tcp_sack. It is read by sockets and devices when they are made.
func (h *Host) Sysctl(t testing.TB, name, value string) {
	t.Helper()
	var old []byte
	err := h.Do(func() (err error) {
		old, err = os.ReadFile("/proc/sys/net/" + name)
		return err
	})
	if err == nil {
		err = h.sysctl(name, value)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.sysctl(name, strings.TrimSpace(string(old))); err != nil {
			t.Error(err)
		}
	})
}

func (h *Host) sysctl(name, value string) error {
	return h.Do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

// Count is one of the host's counters of TCP (Tcp, TcpExt or MPTcpExt in /proc/net), such
// as RetransSegs.
func (h *Host) Count(t testing.TB, name string) (n uint64) {
	t.Helper()
	n, err := h.count(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Counts are all of the host's counters of TCP that have counted something.
func (h *Host) Counts() (map[string]uint64, error) {
	all := map[string]uint64{}
	err := h.eachCount(func(name string, n uint64) {
		if n > 0 {
			all[name] = n
		}
	})
	return all, err
}

func (h *Host) count(name string) (count uint64, err error) {
	found := false
	err = h.eachCount(func(each string, n uint64) {
		if each == name {
			found, count = true, n
		}
	})
	if err == nil && !found {
		err = fmt.Errorf("no counter %s", name)
	}
	return count, err
}

func (h *Host) eachCount(yield func(name string, n uint64)) error {
	return h.Do(func() error {
		for _, file := range []string{"snmp", "netstat"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			// Names and values are on lines of their own, in pairs.
			lines := strings.Split(string(b), "\n")
			for i := 0; i+1 < len(lines); i += 2 {
				names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
				if len(names) == 0 || !strings.HasPrefix(names[0], "Tcp") && !strings.HasPrefix(names[0], "MPTcp") {
					continue
				}
				for k := 1; k < min(len(names), len(values)); k++ {
					n, err := strconv.ParseInt(values[k], 10, 64) // MaxConn is -1
					if err != nil {
						return err
					}
					yield(names[k], uint64(n))
				}
			}
		}
		return nil
	})
}

func setUp(device string) error {
	l, err := netlink.LinkByName(device)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	return err
}
