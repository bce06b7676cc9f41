// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/internal/sockopt"
	"sluice/pool"
	"sluice/session"
)

// backend is a connection to a backend.
type backend struct {
	eng  *Engine
	p    *peers
	link *link

	// These are under link.mu.
	most  uint32 // streams that it takes at a time
	there bool   // its SETTINGS have come
	away  bool   // it takes no more streams
	said  bool   // most is what it says
	idle  int64  // since when it has none
}

// connect makes a connection and reads it to its end.
func (p *peers) connect(conf *config.Listener) {
	e := p.g.eng
	w := &work{}
	fd, errno := -1, unix.Errno(0)
	deadline := time.Now().Add(conf.ConnectTimeout)
	taken := e.descriptors.TakeDescriptor()
	if !taken {
		errno = unix.EMFILE
	} else {
		fd, errno = dial(p.backend.Addr, conf)
	}
	var sock *socket
	if errno == 0 {
		var err error
		if sock, err = newSocket(fd, &e.mem); err == nil {
			stop := context.AfterFunc(e.ctx, func() { sock.close() }) // nobody waits for it at the end
			errno = sock.connected(deadline)
			stop()
		} else {
			errno = unix.ENOMEM
		}
	} else if fd >= 0 {
		unix.Close(fd)
	}
	if errno != 0 {
		if sock != nil {
			sock.close()
		}
		if taken {
			e.descriptors.GiveDescriptor()
		}
		f := session.FaultOf(errno)
		if f != session.BackendFault {
			e.tellLack(conf.Name, p.backend.Addr.String(), errno)
		}
		p.undialled()
		p.fail(f, errno.Error(), w)
		w.flush()
		return
	}
	b := &backend{eng: e, p: p, most: firstMost}
	b.link = newLink(e, sock, b, false)
	b.link.nextID = 1
	b.link.ctl = append(b.link.ctl, http2.ClientPreface...)
	b.link.ctl = appendSettings(b.link.ctl,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
	b.link.ctl = appendWindowUpdate(b.link.ctl, 0, connWindow-firstWindow)
	if conf.DeadPeer > 0 && p.backend.Addr.Unix == "" {
		sock.userTimeout(conf.DeadPeer)
	}
	if !e.addBackend(b) {
		sock.close()
		e.descriptors.GiveDescriptor()
		p.undialled()
		p.fail(session.Lack, "sluice stops", w)
		w.flush()
		return
	}
	p.g.calls.Backends.Add(1)
	timer := time.AfterFunc(time.Until(deadline), func() {
		b.link.mu.Lock()
		there := b.there
		b.link.mu.Unlock()
		if !there {
			w := &work{}
			b.link.fail(unix.ETIMEDOUT, w)
			w.flush()
		}
	})
	b.link.in.w.add(b.link)
	b.link.run()
	timer.Stop()
}

// undialled says that a connection that was being made is there, or won't be.
func (p *peers) undialled() {
	p.mu.Lock()
	p.dialing--
	p.mu.Unlock()
}

// dial begins to connect.
func dial(a pool.Addr, conf *config.Listener) (fd int, errno unix.Errno) {
	var sa unix.Sockaddr
	family := unix.AF_INET
	switch {
	case a.Unix != "":
		family, sa = unix.AF_UNIX, &unix.SockaddrUnix{Name: a.Unix}
	case !a.AddrPort.IsValid():
		return -1, unix.EHOSTUNREACH // a name without an address; the pool holds it as down
	case a.AddrPort.Addr().Is4():
		sa = &unix.SockaddrInet4{Port: int(a.AddrPort.Port()), Addr: a.AddrPort.Addr().As4()}
	default:
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.AddrPort.Port()), Addr: a.AddrPort.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, asErrno(err)
	}
	if family != unix.AF_UNIX {
		sockopt.NoDelay(fd)
		if conf.Keepalive > 0 {
			sockopt.Keepalive(fd, conf.Keepalive)
		}
	}
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fd, asErrno(err)
	}
	return fd, 0
}

func asErrno(err error) unix.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return unix.ETIMEDOUT
	}
	return unix.EIO
}

// connected waits until a socket that is being connected is, or can't be.
func (s *socket) connected(deadline time.Time) (errno unix.Errno) {
	if err := s.file.SetWriteDeadline(deadline); err != nil {
		return asErrno(err)
	}
	err := s.raw.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		if n == 0 && err == nil {
			return false
		}
		v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if errno = unix.Errno(v); err != nil {
			errno = asErrno(err)
		}
		return true
	})
	if err != nil {
		return asErrno(err)
	}
	_ = s.file.SetWriteDeadline(time.Time{}) // none can't fail on an open one
	return errno
}

// load is how many streams the connection has; ok false: it takes none now.
func (b *backend) load() (n int, ok bool) {
	l := b.link
	l.mu.Lock()
	defer l.mu.Unlock()
	n = len(l.streams)
	return n, b.takesLocked(n)
}

func (b *backend) takesLocked(n int) bool {
	l := b.link
	return b.there && !b.away && !l.dead && !l.closing && n < int(min(b.most, noLimit)) && l.nextID < 1<<31-1
}

// room is how many streams it could take more.
func (b *backend) room() int {
	l := b.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.streams); b.takesLocked(n) {
		return int(min(b.most, noLimit)) - n
	}
	return 0
}

// open opens the call's stream; nil: it can't any more.
func (b *backend) open(c *call, w *work) *stream {
	l := b.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if !b.takesLocked(len(l.streams)) {
		return nil
	}
	s := l.newStream(0, c)
	l.open(s, c.fields, c.fieldsEnd, w)
	return s
}

// idleSince is since when it has had no stream; busy: it has some, or isn't
// there yet.
func (b *backend) idleSince() (at int64, busy bool) {
	l := b.link
	l.mu.Lock()
	defer l.mu.Unlock()
	return b.idle, len(l.streams) > 0 || !b.there
}

// quit ends a connection without streams.
func (b *backend) quit(w *work) {
	l := b.link
	l.mu.Lock()
	if len(l.streams) > 0 || b.away {
		l.mu.Unlock()
		return
	}
	b.away = true
	l.mu.Unlock()
	b.p.remove(b)
	l.finishing(0, http2.ErrCodeNo, "", w)
}

func (b *backend) headers(id uint32, fields []hpack.HeaderField, end bool, blk *block, w *work) error {
	l := b.link
	l.mu.Lock()
	s := l.streams[id]
	idle := s == nil && l.isIdle(id)
	if s != nil && s.shutIn {
		s = nil
	}
	if s != nil && end && blk.bad == nil {
		l.shut(s, true, false, w)
	}
	l.mu.Unlock()
	switch {
	case idle:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case s == nil:
		return l.in.spend(1)
	case blk.bad != nil:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol, Cause: blk.bad}
	case blk.large:
		s.call.largeAnswer(s, w)
		return nil
	}
	s.call.answer(s, fields, end, w)
	return nil
}

func (b *backend) data(s *stream, v view, small []byte, end bool, w *work) {
	s.call.fromBackend(s, v, small, end, w)
}

func (b *backend) reset(s *stream, code http2.ErrCode, w *work) { s.call.backendReset(s, code, w) }

func (b *backend) broken(s *stream, w *work) {
	c := s.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spread != nil {
		c.spread.failed(s, "broke the rules of HTTP/2", w)
	} else if c.up == s && !c.over && !c.ending {
		c.brokenBackend(w)
	}
}

func (b *backend) setting(s http2.Setting) {
	if s.ID == http2.SettingMaxConcurrentStreams {
		b.link.mu.Lock()
		b.most, b.said = s.Val, true
		b.link.mu.Unlock()
	}
}

// noLimit is what a backend takes that says nothing of it.
const noLimit = 1<<31 - 1

func (b *backend) ready(w *work) {
	b.link.mu.Lock()
	b.there, b.idle = true, b.link.in.now
	if !b.said {
		b.most = noLimit
	}
	most := b.most
	b.link.mu.Unlock()
	p := b.p
	p.mu.Lock()
	p.dialing--
	p.most = most
	p.links = append(p.links, b)
	p.mu.Unlock()
	p.wake(w)
	p.dialForWaiting() // it may take fewer than was thought
}

func (b *backend) pong(*work) {}

// goAway is told that the backend takes no streams after last: they haven't been
// looked at.
func (b *backend) goAway(last uint32, code http2.ErrCode, w *work) {
	l := b.link
	l.mu.Lock()
	b.away = true
	var beyond []*stream
	for id, s := range l.streams {
		if id > last {
			beyond = append(beyond, s)
		}
	}
	none := len(l.streams) == 0
	l.mu.Unlock()
	b.p.remove(b)
	if code != http2.ErrCodeNo {
		b.eng.log.Debug().Str("backend", b.p.backend.Addr.String()).Str("code", code.String()).Msg("a backend ends a connection")
	}
	for _, s := range beyond {
		s.abandon(w)
		s.call.unprocessed(s, w)
	}
	if none {
		l.finishing(0, http2.ErrCodeNo, "", w)
	}
	b.p.wake(w)
	b.p.dialForWaiting()
}

// dialForWaiting makes connections for calls that are left without one.
func (p *peers) dialForWaiting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.waiting.Front(); e != nil {
		p.dialMore(e.Value.(waiter).c.Settings.Config)
	}
}

func (b *backend) freed(w *work) {
	l := b.link
	l.mu.Lock()
	left, away := len(l.streams), b.away
	if left == 0 {
		b.idle = b.eng.clock.Now()
	}
	l.mu.Unlock()
	if away && left == 0 {
		l.finishing(0, http2.ErrCodeNo, "", w)
	}
	if b.p.waits.Load() > 0 {
		b.p.wake(w)
	}
}

func (b *backend) lost(streams []*stream, written uint32, err error, w *work) {
	e, p := b.eng, b.p
	b.link.mu.Lock()
	there := b.there
	b.link.mu.Unlock()
	p.remove(b)
	e.removeBackend(b)
	p.g.calls.Backends.Add(-1)
	e.descriptors.GiveDescriptor()
	for _, s := range streams {
		s.call.backendLost(s, s.id >= written, err, w)
	}
	if !there {
		p.undialled()
		why := errText(err)
		if errors.Is(err, unix.ETIMEDOUT) {
			why = "timed out"
		}
		p.fail(session.BackendFault, why, w)
		return
	}
	p.wake(w)
	p.dialForWaiting()
}
