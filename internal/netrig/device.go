// SPDX-License-Identifier: Apache-2.0

package netrig

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// carries waits until a device of this namespace is up.
func carries(device string) error {
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		l, err := netlink.LinkByName(device)
		if err != nil || l.Attrs().OperState == netlink.OperUp {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("%s is %s", device, l.Attrs().OperState)
		}
	}
}

// MTU sets that of one of the host's devices for the test's time. It is 1500 else.
func (h *Host) MTU(t testing.TB, device string, n int) {
	t.Helper()
	old := 0
	set := func(n int) error {
		return h.Do(func() error {
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			if old == 0 {
				old = l.Attrs().MTU
			}
			return netlink.LinkSetMTU(l, n)
		})
	}
	if err := set(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(old); err != nil {
			t.Error(err)
		}
	})
}

// Feature is work that a device does for the stack, or has done at once for many
// packets. The numbers are those of the ethtool command that asks for it, one less
// than the one that sets it (linux/ethtool.h).
type Feature uint32

// The features. A veth device has all but GRO by itself. Without TxChecksum it can't
// have TSO: the kernel switches that off too, and on again.
const (
	TxChecksum Feature = 0x16
	TSO        Feature = 0x1e
	GSO        Feature = 0x23
	GRO        Feature = 0x2b
)

// Features switches features of one of the host's devices, for the test's time.
func (h *Host) Features(t testing.TB, device string, on bool, features ...Feature) {
	t.Helper()
	for _, f := range features {
		var was bool
		err := h.Do(func() (err error) {
			if was, err = ethtool(device, uint32(f), false); err == nil {
				_, err = ethtool(device, uint32(f)+1, on)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := h.Do(func() error { _, err := ethtool(device, uint32(f)+1, was); return err }); err != nil {
				t.Error(err)
			}
		})
	}
}

// ethtool carries out one command on a value.
func ethtool(device string, command uint32, value bool) (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	data := &struct{ command, value uint32 }{command: command}
	if value {
		data.value = 1
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(data)
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is longer
	}{data: unsafe.Pointer(data)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return false, fmt.Errorf("ethtool command %#x on %s: %w", command, device, errno)
	}
	return data.value != 0, nil
}
