// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// handshakeTime bounds how long handshakes that are under way when a front
	// closes have to complete: a lost packet is sent again after a second.
	handshakeTime = 1500 * time.Millisecond
	// blindTime is what they have where the kernel doesn't tell of them.
	blindTime = 100 * time.Millisecond
)

// going is how a front ends. Nobody is reset who is about to be served: new
// SYNs are dropped, so that their retransmission finds whoever has the address
// then; handshakes under way complete; the queues are served; then the sockets
// are closed. Until the last step Hold and Serve bring it back.
type going struct {
	mu      sync.Mutex
	leaving int  // which leaving is under way; 0: none
	leaves  int  // how many there have been
	loops   int  // that haven't done the present step
	gone    bool // the sockets are being closed, or are
	held    bool
	over    bool // nothing is left but to close the sockets
	limit   *time.Timer
}

// Close has each loop serve its accept queue and then close its socket. Where
// that has to wait, for a descriptor, it waits for limit at most; whoever is
// left is reset. Close returns at once; Done tells.
func (f *Front) Close(limit time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.gone || f.leaving != 0:
	case f.set.Load() == nil:
		f.gone = true
		f.closeSockets()
		close(f.done)
	default:
		f.mark(false)
		f.unlink()
		f.leaves++
		f.leaving = f.leaves
		f.takeSYNs(false)
		f.each(func(l *loop, a *acceptor, n int) {
			a.drain(l)
			f.step(n, f.awaitHandshakes)
		})
		n := f.leaving
		f.limit = time.AfterFunc(limit, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.cut(n)
		})
	}
}

// Cut closes the sockets of a front that is being closed, whoever waits.
func (f *Front) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut(f.leaving)
}

func (f *Front) cut(n int) {
	if n != 0 && f.leaving == n && !f.gone {
		f.close()
	}
}

// Leaving says whether the front is being closed and its sockets aren't yet.
func (f *Front) Leaving() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaving != 0 && !f.gone
}

// serving says whether f is to be there for long.
func (f *Front) serving() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaving == 0 && !f.gone
}

// Hold keeps a front that is being closed from getting further than Serve can
// undo. False: it can't be had back. Either Serve or Release follows.
func (f *Front) Hold() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.leaving == 0 || f.addr.Path != "" {
		return false
	}
	f.held = true
	return true
}

// Release lets a held front go on closing.
func (f *Front) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = false
	if f.over {
		f.close()
	}
}

// stay undoes Close for a front that is held.
func (f *Front) stay() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaving == 0 {
		return
	}
	f.leaving, f.held, f.over = 0, false, false
	f.limit.Stop()
	f.heirs.Store(nil)
	f.takeSYNs(true)
	f.each(func(l *loop, a *acceptor, _ int) { a.last = 0 })
}

// takeSYNs says whether the kernel begins handshakes with f's sockets.
func (f *Front) takeSYNs(yes bool) {
	if f.addr.Path != "" {
		return
	}
	for _, fd := range f.fds {
		if yes {
			rawSetInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		} else {
			dropSYNs(fd)
		}
	}
}

// each posts a step to each loop. Under f.mu.
func (f *Front) each(do func(l *loop, a *acceptor, n int)) {
	n := f.leaving
	f.loops = len(f.acc)
	for i, l := range f.e.loops {
		a := f.acc[i]
		l.post(func() { do(l, a, n) })
	}
}

// step says that a loop has done its part of leaving n; the last one begins
// what is next.
func (f *Front) step(n int, next func(n int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.leaving != n {
		return
	}
	if f.loops--; f.loops == 0 {
		next(n)
	}
}

// awaitHandshakes has the queues served once more when the handshakes that had
// begun before SYNs were dropped are complete. Under f.mu.
func (f *Front) awaitHandshakes(n int) {
	if f.addr.Path != "" {
		f.lastQueues(n)
		return
	}
	port := localAddr(f.fds[0]).Port()
	go func() {
		if f.e.handshakes.Await(port, handshakeTime) != nil {
			time.Sleep(blindTime)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.lastQueues(n)
	}()
}

// lastQueues serves what is left in the queues. Under f.mu.
func (f *Front) lastQueues(n int) {
	if f.gone || f.leaving != n {
		return
	}
	f.each(func(l *loop, a *acceptor, n int) {
		a.last = n
		if got := a.drain(l); got == empty || !a.queued() {
			a.emptied()
		}
	})
}

// close is the last step. Under f.mu.
func (f *Front) close() {
	if f.held {
		f.over = true
		return
	}
	f.gone = true
	f.limit.Stop()
	f.each(func(l *loop, a *acceptor, _ int) {
		a.shut(l)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.loops--; f.loops == 0 {
			close(f.done)
		}
	})
}

// drain serves the queue as far as there are descriptors.
func (a *acceptor) drain(l *loop) taken {
	for {
		if got := a.accept(l); got != took {
			return got
		}
	}
}

// queued says whether somebody waits in the queue.
func (a *acceptor) queued() bool {
	p := []unix.PollFd{{Fd: a.fd, Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil
}

// emptied says that the queue, which nobody joins any more, is empty.
func (a *acceptor) emptied() {
	n := a.last
	a.last = 0
	a.f.step(n, func(int) { a.f.close() })
}

func (a *acceptor) shut(l *loop) {
	for i, w := range l.waiting {
		if w == a {
			l.waiting = append(l.waiting[:i], l.waiting[i+1:]...)
			break
		}
	}
	if a.handle >= 0 {
		l.deregister(a.fd, a.handle)
		a.handle = -1
	}
	rawClose(a.fd)
	a.fd = -1
}

// dropSYNs has a listening socket ignore new handshakes; segments of those
// that are under way pass. A socket's filter sees a packet from the TCP header
// on (tcp_filter in net/ipv4/tcp_ipv4.c). Accepted sockets inherit it, where
// it does no harm.
func dropSYNs(fd int32) {
	const flags, syn, ack = 13, 0x02, 0x10
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: syn},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	// Without it (no memory) clients go on coming until the close.
	_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
}
