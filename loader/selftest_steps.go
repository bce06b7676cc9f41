// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	// testMark is small, so that a few writes go over it.
	testMark = 64 << 10
	// smallBuf holds senders up soon.
	smallBuf = 32 << 10
	// settle is how long a step watches for what must not happen.
	settle = 15 * time.Millisecond
	// soon is how long it waits for what may be lost, on a busy machine.
	soon = time.Second
)

// step is one hazard tried on fresh sockets.
type step struct {
	name string
	ip6  bool
	buf  int // socket buffers; 0: the kernel's
	run  func(r *rig) (detail string, err error)
}

// steps are in the order in which a failure says most.
var steps = [...]step{
	{name: "redirect both ways", run: stepRedirect},
	{name: "redirect both ways, IPv6", ip6: true, run: stepRedirect},
	{name: "bytes from before adding", run: stepEarly},
	{name: "end of stream", run: stepFIN},
	{name: "bound and hand-back", buf: smallBuf, run: stepBound},
	{name: "hold and announcement", run: stepHold},
	{name: "half-close, counted", buf: smallBuf, run: stepHalfClose},
	{name: "missing target", run: stepMissing},
	{name: "half-closed client", run: stepClosedClient},
	{name: "reset", run: stepReset},
	{name: "repeated bytes", run: stepRepeated},
}

// stepRedirect: the kernel moves the bytes, and only the kernel.
func stepRedirect(r *rig) (string, error) {
	if err := r.add(); err != nil {
		return "", err
	}
	for i := range 3 {
		ask, answer := pattern(1+100*i), pattern(7+3000*i)
		if err := r.move(r.client, r.server, ask); err != nil {
			return "", fmt.Errorf("client to server: %w", err)
		}
		if err := r.move(r.server, r.client, answer); err != nil {
			return "", fmt.Errorf("server to client: %w", err)
		}
	}
	up, down := r.direction(0), r.direction(1)
	if up.Redirected() != 303 || down.Redirected() != 9021 || up.Passed()+down.Passed() != 0 {
		return "", fmt.Errorf("counted %d up, %d down, %d passed instead of 303, 9021, 0", up.Redirected(), down.Redirected(), up.Passed()+down.Passed())
	}
	return "303 bytes up, 9021 down, none through userspace", nil
}

// stepEarly: entering the map doesn't look at what waits; the kick does.
func stepEarly(r *rig) (string, error) {
	early := pattern(1000)
	if err := r.send(r.client, early); err != nil {
		return "", err
	}
	if err := r.wait(r.front, unix.POLLIN); err != nil {
		return "", err
	}
	if err := r.add(); err != nil {
		return "", err
	}
	// Nothing else is sent: only the kick can set it going.
	if r.ready(r.server, unix.POLLIN, soon) == 0 {
		return "", errors.New("the bytes stay where they were: the kick doesn't work")
	}
	got, err := r.receive(r.server, len(early))
	if err != nil {
		return "", err
	}
	return "1000 bytes followed", same(got, early)
}

// stepFIN: a bare FIN reaches userspace, and nobody else.
func stepFIN(r *rig) (string, error) {
	if err := r.add(); err != nil {
		return "", err
	}
	if err := r.move(r.client, r.server, []byte("request")); err != nil {
		return "", err
	}
	if err := unix.Shutdown(r.client, unix.SHUT_WR); err != nil {
		return "", err
	}
	if err := r.wait(r.front, unix.POLLRDHUP); err != nil {
		return "", fmt.Errorf("the end of the stream isn't reported: %w", err)
	}
	if got, err := r.receive(r.front, 1); err != nil || len(got) != 0 {
		return "", fmt.Errorf("reading the end of the stream: %d bytes, %v", len(got), err)
	}
	if r.ready(r.back, 0, settle)&(unix.POLLERR|unix.POLLHUP) != 0 {
		return "", fmt.Errorf("the FIN broke the other socket: %w", sockError(r.back))
	}
	if err := r.move(r.server, r.client, pattern(5000)); err != nil {
		return "", fmt.Errorf("the other direction, after the FIN: %w", err)
	}
	if r.ready(r.server, unix.POLLRDHUP, 0) != 0 {
		return "", errors.New("the FIN crossed over by itself")
	}
	return "reported, and the other direction goes on", nil
}

// stepHold: held bytes come to userspace, which is told, and order holds.
func stepHold(r *rig) (string, error) {
	if err := r.add(); err != nil {
		return "", err
	}
	up := r.direction(0)
	if err := r.move(r.client, r.server, []byte("first")); err != nil {
		return "", err
	}
	up.SetHold(true)
	if err := r.send(r.client, []byte("second")); err != nil {
		return "", err
	}
	if err := r.heard(2 * r.flow); err != nil {
		return "", err
	}
	got, err := r.receive(r.front, 6)
	if err != nil {
		return "", fmt.Errorf("reading what was passed: %w", err)
	}
	if err := same(got, []byte("second")); err != nil {
		return "", err
	}
	up.SetHold(false)
	// Userspace still has those: what comes now must not overtake them.
	if err := r.send(r.client, []byte("third")); err != nil {
		return "", err
	}
	if err := r.wait(r.front, unix.POLLIN); err != nil {
		return "", fmt.Errorf("the third message didn't wait for the second: %w", err)
	}
	if got, err = r.receive(r.front, 5); err != nil {
		return "", err
	}
	if err := r.move(r.back, r.server, append([]byte("second"), got...)); err != nil {
		return "", err
	}
	up.SetForwarded(11)
	if err := r.move(r.client, r.server, []byte("fourth")); err != nil {
		return "", err
	}
	if up.Redirected() != 11 || up.Passed() != 11 {
		return "", fmt.Errorf("counted %d redirected, %d passed instead of 11 and 11", up.Redirected(), up.Passed())
	}
	return "held, announced, handed back", nil
}

// heard waits for the announcement of an index.
func (r *rig) heard(index uint32) error {
	for {
		heard := false
		r.s.Drain(func(i uint32) { heard = heard || i == index })
		if heard {
			return nil
		}
		if r.ready(r.s.Announcements(), unix.POLLIN, soon) == 0 {
			return errors.New("userspace isn't told of bytes passed to it")
		}
	}
}

// stepMissing: a peer that isn't in the map has the bytes passed, not lost.
func stepMissing(r *rig) (string, error) {
	cookie, err := unix.GetsockoptUint64(r.front, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return "", err
	}
	index, fd := 2*r.flow, uint64(r.front)
	r.s.cookies[r.flow][0] = cookie
	r.direction(0).Reset(testMark)
	for _, put := range []struct {
		m        *ebpf.Map
		key, val unsafe.Pointer
	}{
		{r.s.objs.Indices, unsafe.Pointer(&cookie), unsafe.Pointer(&index)},
		{r.s.objs.Targets, unsafe.Pointer(&index), unsafe.Pointer(&fd)},
		{r.s.objs.Verdicts, unsafe.Pointer(&index), unsafe.Pointer(&fd)},
	} {
		if err := put.m.Update(put.key, put.val, ebpf.UpdateAny); err != nil {
			return "", err
		}
	}
	if err := r.send(r.client, []byte("precious")); err != nil {
		return "", err
	}
	if r.ready(r.front, unix.POLLIN, soon) == 0 {
		return "", errors.New("bytes for a missing socket are lost")
	}
	got, err := r.receive(r.front, 8)
	if err != nil {
		return "", err
	}
	return "passed to userspace", same(got, []byte("precious"))
}

// stepClosedClient: refused, and both sockets are as before.
func stepClosedClient(r *rig) (string, error) {
	if err := r.send(r.client, []byte("all of it")); err != nil {
		return "", err
	}
	if err := unix.Shutdown(r.client, unix.SHUT_WR); err != nil {
		return "", err
	}
	if err := r.wait(r.front, unix.POLLRDHUP); err != nil {
		return "", err
	}
	switch err := r.add(); {
	case err == nil:
		return "", errors.New("a half-closed socket was accepted")
	case !errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, ErrMoved):
		return "", err
	}
	got, err := r.receive(r.front, 10)
	if err != nil {
		return "", fmt.Errorf("relaying afterwards: %w", err)
	}
	if err := same(got, []byte("all of it")); err != nil {
		return "", err
	}
	if err := r.move(r.back, r.server, got); err != nil {
		return "", fmt.Errorf("relaying afterwards: %w", err)
	}
	return "refused, and can be relayed", r.move(r.server, r.back, got)
}

// stepReset: one side's reset is seen there only; ours reaches the other.
func stepReset(r *rig) (string, error) {
	if err := r.add(); err != nil {
		return "", err
	}
	if err := r.move(r.client, r.server, []byte("request")); err != nil {
		return "", err
	}
	if err := reset(&r.client); err != nil {
		return "", err
	}
	if err := r.wait(r.front, unix.POLLRDHUP); err != nil {
		return "", fmt.Errorf("a reset isn't reported: %w", err)
	}
	if err := sockError(r.front); !errors.Is(err, unix.ECONNRESET) {
		return "", fmt.Errorf("a reset is reported as %v", err)
	}
	if r.ready(r.back, 0, 0) != 0 {
		return "", errors.New("the reset crossed over by itself")
	}
	if err := reset(&r.front); err != nil {
		return "", err
	}
	if err := reset(&r.back); err != nil {
		return "", err
	}
	if err := r.wait(r.server, unix.POLLRDHUP); err != nil {
		return "", fmt.Errorf("our reset isn't reported: %w", err)
	}
	if err := sockError(r.server); !errors.Is(err, unix.ECONNRESET) {
		return "", fmt.Errorf("our reset is reported as %v", err)
	}
	return "passed on by userspace", nil
}

// reset closes with a RST.
func reset(fd *int) error {
	_ = unix.SetsockoptLinger(*fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	err := unix.Close(*fd)
	*fd = -1
	return err
}
