// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const backendBuffer = 256 << 10

// conn is one connection of a backend worker.
type conn struct {
	port    int
	pending []byte // of an echo: read, and not yet taken by the socket
}

type counters struct {
	sink, source, accepted atomic.Uint64
	open                   atomic.Int64
}

// backend serves on all addresses of its network namespace.
type backend struct {
	listeners map[int]int // descriptor to port
	workers   []*backendWorker
	order     []*backendWorker // of the accepting worker: who gets the next connections
	count     counters
}

type backendWorker struct {
	b     *backend
	ep    int
	conns []*conn // by descriptor; only the accepting worker writes, before the descriptor enters an epoll set
	buf   []byte
}

// ServeBackend serves the four ports with the given number of threads. It
// writes the line "ready" to out, answers each line that it reads from in
// with a BackendStats, and returns at the end of in.
func ServeBackend(threads int, in io.Reader, out io.Writer) error {
	b := &backend{listeners: map[int]int{}}
	for range max(threads, 1) {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return fmt.Errorf("backend: epoll: %w", err)
		}
		b.workers = append(b.workers, &backendWorker{b: b, ep: ep, buf: make([]byte, backendBuffer)})
	}
	table := make([]*conn, 1<<16)
	for _, w := range b.workers {
		w.conns = table
	}
	for _, port := range []int{EchoPort, SourcePort, SinkPort, StallPort} {
		fd, err := listen(port)
		if err != nil {
			return fmt.Errorf("backend: listening on port %d: %w", port, err)
		}
		b.listeners[fd] = port
		if errno := epollAdd(b.workers[0].ep, fd, unix.EPOLLIN); errno != 0 {
			return fmt.Errorf("backend: epoll: %w", errno)
		}
	}
	for _, w := range b.workers {
		go w.run()
	}
	return b.control(in, out)
}

func (b *backend) control(in io.Reader, out io.Writer) error {
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		err := enc.Encode(BackendStats{
			Nanos: nanotime(), SinkBytes: b.count.sink.Load(), SourceSent: b.count.source.Load(),
			Accepted: b.count.accepted.Load(), Open: b.count.open.Load(), CPU: processCPU().Seconds(),
		})
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func listen(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	// Accepted sockets inherit it.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 4096)
}

func (w *backendWorker) run() {
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, 256)
	for {
		n := epollWait(w.ep, events, 1e9)
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			if port, ok := w.b.listeners[fd]; ok {
				w.b.accept(fd, port)
				continue
			}
			w.serve(fd, w.conns[fd], ev.Events)
		}
	}
}

func (b *backend) accept(listener, port int) {
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != 0 {
			return
		}
		w := b.take()
		w.conns[fd] = &conn{port: port}
		b.count.accepted.Add(1)
		b.count.open.Add(1)
		events := uint32(unix.EPOLLIN)
		if port == SourcePort || port == StallPort {
			events |= unix.EPOLLOUT
		}
		if epollAdd(w.ep, int(fd), events) != 0 {
			b.end(int(fd))
		}
	}
}

// take gives the worker for the next connection: as many to each, in no order. Taken in
// turn, a worker would have the connections of one worker of the client where nothing
// is between, and the scheduler runs the two on one core by turns; behind a balancer
// connections come in another order, and two hosts share no cores.
func (b *backend) take() *backendWorker {
	if len(b.order) == 0 {
		for _, at := range rand.Perm(len(b.workers)) {
			b.order = append(b.order, b.workers[at])
		}
	}
	w := b.order[0]
	b.order = b.order[1:]
	return w
}

func (b *backend) end(fd int) {
	b.count.open.Add(-1)
	closeFD(fd)
}

func (w *backendWorker) serve(fd int, c *conn, events uint32) {
	switch c.port {
	case EchoPort:
		w.echo(fd, c)
	case SinkPort:
		w.sink(fd)
	case SourcePort, StallPort:
		w.source(fd, c, events)
	}
}

func (w *backendWorker) echo(fd int, c *conn) {
	if len(c.pending) > 0 {
		n, errno := send(fd, c.pending, unix.MSG_DONTWAIT)
		if errno != 0 && errno != unix.EAGAIN {
			w.b.end(fd)
			return
		}
		if c.pending = c.pending[max(n, 0):]; len(c.pending) > 0 {
			return
		}
		c.pending = nil
		epollMod(w.ep, fd, unix.EPOLLIN)
	}
	n, errno := recv(fd, w.buf, 0)
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 || n == 0 {
		w.b.end(fd)
		return
	}
	sent, errno := send(fd, w.buf[:n], 0)
	if errno == unix.EAGAIN {
		sent, errno = 0, 0
	}
	if errno != 0 {
		w.b.end(fd)
		return
	}
	if sent < n {
		c.pending = append([]byte(nil), w.buf[sent:n]...)
		epollMod(w.ep, fd, unix.EPOLLOUT)
	}
}

// sink drops what arrives without copying it.
func (w *backendWorker) sink(fd int) {
	n, errno := recv(fd, w.buf, unix.MSG_TRUNC)
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 || n == 0 {
		w.b.end(fd)
		return
	}
	w.b.count.sink.Add(uint64(n))
}

func (w *backendWorker) source(fd int, c *conn, events uint32) {
	if events&unix.EPOLLIN != 0 {
		n, errno := recv(fd, w.buf, 0)
		if errno != unix.EAGAIN && (errno != 0 || n == 0) {
			w.b.end(fd)
			return
		}
	}
	n, errno := send(fd, w.buf, 0)
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 {
		w.b.end(fd)
		return
	}
	w.b.count.source.Add(uint64(n))
}
