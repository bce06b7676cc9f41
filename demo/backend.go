// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
)

// backend answers each line with its name.
type backend struct {
	name, addr string
	l          net.Listener
	wg         sync.WaitGroup
}

func (d *demo) addBackend(name string) error {
	l, err := listen()
	if err != nil {
		return err
	}
	b := &backend{name: name, addr: l.Addr().String(), l: l}
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Add(1)
			go func() {
				defer b.wg.Done()
				defer c.Close()
				b.answer(c)
			}()
		}
	}()
	d.backends = append(d.backends, b)
	return nil
}

func (b *backend) answer(c net.Conn) {
	for in := bufio.NewScanner(c); in.Scan(); {
		if _, err := fmt.Fprintf(c, "%s says: %s\n", b.name, in.Text()); err != nil {
			return
		}
	}
}

// closeBackends is for after the balancer has gone, and with it its sessions.
func (d *demo) closeBackends() {
	for _, b := range d.backends {
		b.l.Close()
		b.wg.Wait()
	}
}

// listen takes a port that is free; MPTCP sockets are left to others.
func listen() (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
}

// freePort is an address that was free a moment ago.
func freePort() (string, error) {
	l, err := listen()
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// conn is a client's connection.
type conn struct {
	net.Conn
	in *bufio.Reader
}

func dial(ctx context.Context, addr string) (*conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			c.Close()
			return nil, err
		}
	}
	return &conn{c, bufio.NewReader(c)}, nil
}

// ask sends a line and returns who answered.
func (c *conn) ask(line string) (name string, err error) {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	answer, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	name, _, _ = strings.Cut(answer, " says: ")
	return name, nil
}
