// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/config"
)

// front is the endpoint's listening socket.
type front struct {
	net.Listener
	path string      // of a unix socket
	file os.FileInfo // that socket's, as we made it
	once sync.Once
}

func listen(addr config.Address) (*front, error) {
	f := &front{path: addr.Path}
	network, where := "unix", addr.Path
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if addr.Path == "" {
			return nil
		}
		// bind(2) gives the file the mode of the socket, so it is never more
		// open than it is to be.
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o660) }), err)
	}}
	lc.SetMultipathTCP(false)
	switch {
	case addr.Path != "":
		if err := removeStale(addr.Path); err != nil {
			return nil, fmt.Errorf("statistics at %s: %w", addr, err)
		}
	case addr.Any:
		network, where = "tcp", addr.String()
	case addr.Addr.IsValid():
		network, where = "tcp", addr.AddrPort().String()
	default:
		return nil, fmt.Errorf("statistics at %s: must be an IP address or a unix socket", addr)
	}
	var err error
	if f.Listener, err = lc.Listen(context.Background(), network, where); err != nil {
		return nil, fmt.Errorf("statistics at %s can't be bound, choose another address or `off`: %w", addr, err)
	}
	if addr.Path == "" {
		return f, nil
	}
	f.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err = os.Chmod(addr.Path, 0o660); err == nil { // the umask took part in bind
		f.file, err = os.Lstat(addr.Path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("statistics at %s: %w", addr, err), f.Close())
	}
	return f, nil
}

// removeStale unlinks a unix socket on which nobody listens.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file that is no socket; remove it, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("%w; stop who listens there, or choose another path", unix.EADDRINUSE)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w, by all appearances: %w", unix.EADDRINUSE, err)
	}
	return os.Remove(path)
}

// Close closes the socket, and unlinks its path unless somebody else has taken
// it since.
func (f *front) Close() error {
	err := f.Listener.Close()
	f.once.Do(func() {
		if f.file == nil {
			return
		}
		if now, statErr := os.Lstat(f.path); statErr == nil && os.SameFile(now, f.file) {
			err = errors.Join(err, os.Remove(f.path))
		}
	})
	return err
}

// bounded accepts only as many connections as may be open at once.
type bounded struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newBounded(l net.Listener, limit int) *bounded {
	return &bounded{Listener: l, places: make(chan struct{}, limit), closed: make(chan struct{})}
}

// Accept waits for a place first, then for a connection.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	return &boundedConn{Conn: c, places: b.places}, nil
}

// Close ends an Accept that waits.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type boundedConn struct {
	net.Conn
	places chan struct{}
	once   sync.Once
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.places })
	return err
}
