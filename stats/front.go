// SPDX-License-Identifier: Apache-2.0

package stats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/internal/unixsock"
)

// front is the endpoint's listening socket.
type front struct {
	net.Listener
	file *unixsock.File // of a unix socket
	once sync.Once
}

func listen(addr config.Address) (*front, error) {
	f := &front{}
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
		if err := unixsock.RemoveStale(addr.Path); err != nil {
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
	f.file, err = unixsock.Bound(addr.Path)
	if err == nil {
		err = os.Chmod(addr.Path, 0o660) // the umask took part in bind
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("statistics at %s: %w", addr, err), f.Close())
	}
	return f, nil
}

// Close closes the socket, and unlinks its path unless somebody else has taken
// it since.
func (f *front) Close() error {
	err := f.Listener.Close()
	f.once.Do(func() { err = errors.Join(err, f.file.Unlink()) })
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
