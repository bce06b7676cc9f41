// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/ethtool.h.
const (
	ethtoolGStrings   = 0x1b
	ethtoolGSSetInfo  = 0x37
	ethtoolGFeatures  = 0x3a
	ethtoolFeatureSet = 4 // ETH_SS_FEATURES
	ethtoolStringSize = 32
	groListFeature    = "rx-gro-list"
)

// offloads asks devices of the network namespace it was made in for offloads.
type offloads struct {
	fd      int
	groList int // its bit; -1: the kernel doesn't know it (before 5.6)
}

// newOffloads finds the bit, which is the same for every device, through the
// loopback device, which every namespace has.
func newOffloads() (_ *offloads, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a socket to ask devices for their features: %w", err)
	}
	f := &offloads{fd: fd, groList: -1}
	defer func() {
		if err != nil {
			_ = f.close()
		}
	}()
	info := make([]uint32, 5) // cmd, reserved, mask (64 bits), the size asked for
	info[0], info[2] = ethtoolGSSetInfo, 1<<ethtoolFeatureSet
	if err := f.ask("lo", unsafe.Pointer(&info[0])); err != nil {
		return nil, err
	}
	names := make([]byte, 12+int(info[4])*ethtoolStringSize)
	head := (*[3]uint32)(unsafe.Pointer(&names[0]))
	head[0], head[1], head[2] = ethtoolGStrings, ethtoolFeatureSet, info[4]
	if err := f.ask("lo", unsafe.Pointer(&names[0])); err != nil {
		return nil, err
	}
	for i, rest := 0, names[12:]; len(rest) >= ethtoolStringSize; i, rest = i+1, rest[ethtoolStringSize:] {
		if name, _, _ := bytes.Cut(rest[:ethtoolStringSize], []byte{0}); string(name) == groListFeature {
			f.groList = i
		}
	}
	return f, nil
}

// ask has the device of this name fill the ethtool command at data.
func (f *offloads) ask(device string, data unsafe.Pointer) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(data)
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is longer
	}{data: data}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&request)
	if errno != 0 {
		return fmt.Errorf("asking %s for its features: %w", device, errno)
	}
	return nil
}

// hasGROList says whether the device receives with rx-gro-list on.
func (f *offloads) hasGROList(device string) (bool, error) {
	if f.groList < 0 {
		return false, nil
	}
	const blocks = 4 // of 32 features: more than any kernel has
	answer := make([]uint32, 2+4*blocks)
	answer[0], answer[1] = ethtoolGFeatures, blocks
	if err := f.ask(device, unsafe.Pointer(&answer[0])); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return false, nil
		}
		return false, err
	}
	active := answer[2+4*(f.groList/32)+2] // available, requested, active, never changed
	return active>>(f.groList%32)&1 == 1, nil
}

func (f *offloads) close() error {
	if f == nil || f.fd < 0 {
		return nil
	}
	fd := f.fd
	f.fd = -1
	return unix.Close(fd)
}
