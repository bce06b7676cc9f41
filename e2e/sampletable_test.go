// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// allSamples are the lines of nginx's log that sluice promises to write, and a
// few more situations of the same kind.
func allSamples(t *testing.T) []sample {
	answers, closes := tcp(t, answer), tcp(t, answerAndClose)
	second := tcp(t, answer)
	v6 := serve(t, "tcp", fmt.Sprintf("[::1]:%d", freePort(t)), answer)
	local := serve(t, "unix", unixPath(t), answer)
	atEOF, six, resets := tcp(t, answerAtEOF), tcp(t, sixForOne), tcp(t, answerAndReset)
	ok := []server{{addr: answers.addr}}
	dead := func() server { return server{addr: refusing(t)} }
	return []sample{
		{name: "normal", servers: ok, lines: 1, act: talk},
		{name: "backend closes", servers: []server{{addr: closes.addr}}, lines: 1, act: talkToEnd},
		{name: "connect and close", servers: ok, lines: 1, act: comeAndGo},
		{name: "first refused", servers: []server{dead(), {addr: answers.addr}}, lines: 1, act: talk},
		{name: "first timed out", servers: []server{{addr: silent(t)}, {addr: answers.addr}}, lines: 1, least: 1, act: talk,
			nginx: "proxy_connect_timeout 1s;", yaml: ", connect_timeout: 1s"},
		{name: "all refused", servers: []server{dead(), dead()}, lines: 1, act: watch},
		{name: "all ejected", servers: []server{dead(), dead()}, lines: 3, act: times(3, watch)},
		{name: "one refused always", servers: []server{dead()}, lines: 3, act: times(3, watch)},
		{name: "refused and full", lines: 2, act: hold(watch), servers: []server{
			{addr: answers.addr, nginx: "max_conns=1", yaml: ", max_conns: 1"}, dead()}},
		{name: "max_conns", servers: []server{{addr: answers.addr, nginx: "max_conns=1", yaml: ", max_conns: 1"}}, lines: 2, act: hold(watch)},
		{name: "down", servers: []server{{addr: answers.addr, nginx: "down", yaml: ", state: down"}}, lines: 1, act: watch},
		{name: "one down", servers: []server{{addr: second.addr, nginx: "down", yaml: ", state: down"}, {addr: answers.addr}}, lines: 2, act: times(2, talk)},
		{name: "backup", lines: 3, act: times(3, talk), servers: []server{
			{addr: answers.addr, nginx: "backup", yaml: ", backup: true"}, dead()}},
		{name: "one try", servers: []server{dead(), dead(), dead()}, lines: 1, act: watch,
			nginx: "proxy_next_upstream_tries 1;", yaml: ", next_upstream: {tries: 1}"},
		{name: "weights", lines: 7, act: times(7, talk), servers: []server{
			{addr: answers.addr, nginx: "weight=5", yaml: ", weight: 5"}, {addr: second.addr}, {addr: v6.addr}}},
		{name: "weights and a dead one", lines: 9, act: times(9, talk), servers: []server{
			{addr: refusing(t), nginx: "weight=3 max_fails=2", yaml: ", weight: 3, max_fails: 2"}, {addr: second.addr}, {addr: answers.addr, nginx: "weight=2", yaml: ", weight: 2"}}},
		{name: "deny all", servers: ok, lines: 1, act: watch, nginx: "deny all;", yaml: ", deny: [0.0.0.0/0]"},
		{name: "allow", servers: ok, lines: 1, act: talk, nginx: "allow 127.0.0.0/8; deny all;", yaml: ", allow: [127.0.0.0/8]"},
		{name: "allow others", servers: ok, lines: 1, act: watch, nginx: "allow 192.0.2.0/24; deny all;", yaml: ", allow: [192.0.2.0/24]"},
		{name: "deny everybody", servers: ok, lines: 1, act: watch, nginx: "deny all;", yaml: ", deny: [all]"},
		{name: "allow before deny everybody", servers: ok, lines: 1, act: talk, nginx: "allow 127.0.0.1; deny all;", yaml: ", allow: [127.0.0.1], deny: [all]"},
		{name: "allow unix only", servers: ok, lines: 1, act: watch, nginx: "allow unix:; deny all;", yaml: ", allow: [unix]"},
		{name: "unix client and deny all", front: "unix", servers: ok, lines: 1, act: watch, nginx: "deny all;", yaml: ", deny: [all]"},
		{name: "unix client and deny unix", front: "unix", servers: ok, lines: 1, act: watch, nginx: "deny unix:;", yaml: ", deny: [unix]"},
		{name: "unix client and deny addresses", front: "unix", servers: ok, lines: 1, act: talk, nginx: "deny 0.0.0.0/0; deny ::/0;", yaml: ", deny: [0.0.0.0/0, '::/0']"},
		{name: "unix client and allow unix", front: "unix", servers: ok, lines: 1, act: talk, nginx: "allow unix:; deny all;", yaml: ", allow: [unix], deny: [all]"},
		{name: "unix client and allow all", front: "unix", servers: ok, lines: 1, act: talk, nginx: "allow all;", yaml: ", allow: [all]"},
		{name: "unix client and allow addresses", front: "unix", servers: ok, lines: 1, act: watch, nginx: "allow 127.0.0.0/8; deny all;", yaml: ", allow: [127.0.0.0/8]"},
		{name: "limit_conn", servers: ok, lines: 2, act: hold(watch), nginx: "limit_conn clients 1;", yaml: ", max_conns_per_ip: 1"},
		{name: "bad header", servers: ok, lines: 1, act: say("hello\r\n"), nginx: "PROXY_ACCEPT;", yaml: ", proxy_protocol: {accept: true}"},
		{name: "no header", servers: ok, lines: 1, act: comeAndGo, nginx: "PROXY_ACCEPT;", yaml: ", proxy_protocol: {accept: true}"},
		{name: "header", servers: ok, lines: 1, act: talkAfter("PROXY TCP4 192.0.2.7 192.0.2.8 4711 19585\r\n"),
			nginx: "PROXY_ACCEPT; set_real_ip_from 127.0.0.0/8;", yaml: ", proxy_protocol: {accept: true}"},
		{name: "header v6", servers: ok, lines: 1, act: talkAfter("PROXY TCP6 2001:db8::7 2001:db8::8 4711 19585\r\n"),
			nginx: "PROXY_ACCEPT; set_real_ip_from 127.0.0.0/8;", yaml: ", proxy_protocol: {accept: true}"},
		{name: "unknown header", servers: ok, lines: 1, act: talkAfter("PROXY UNKNOWN\r\n"),
			nginx: "PROXY_ACCEPT; set_real_ip_from 127.0.0.0/8;", yaml: ", proxy_protocol: {accept: true}"},
		{name: "idle", servers: []server{{addr: six.addr}}, lines: 1, least: 1, act: oneForSix,
			nginx: "proxy_timeout 1s;", yaml: ", idle_timeout: 1s"},
		{name: "proxy_protocol on", servers: ok, lines: 1, act: talk, nginx: "proxy_protocol on;", yaml: ", proxy_protocol: {send: v1}"},
		{name: "v6 upstream", servers: []server{{addr: v6.addr}}, lines: 1, act: talk},
		{name: "v6 client", front: "tcp6", servers: ok, lines: 1, act: talk},
		{name: "unix client", front: "unix", servers: ok, lines: 1, act: talk},
		{name: "unix upstream", servers: []server{{addr: local.addr}}, lines: 1, act: talk},
		{name: "refused after bytes", servers: []server{dead(), dead()}, lines: 1, act: say("hello")},
		{name: "half-close", servers: []server{{addr: atEOF.addr}}, lines: 1, act: closeThenRead},
		{name: "no half-close", servers: []server{{addr: atEOF.addr}}, lines: 1, act: closeThenRead,
			nginx: "proxy_half_close off;", yaml: ", half_close: false"},
		{name: "client resets", servers: ok, lines: 1, act: talkAndReset},
		{name: "backend resets", servers: []server{{addr: resets.addr}}, lines: 2, act: times(2, talkToReset)},
	}
}

// The backends.

func readHello(c net.Conn) bool {
	var got []byte
	b := make([]byte, 256)
	for !bytes.HasSuffix(got, []byte("hello")) { // a PROXY header may come before it
		n, err := c.Read(b)
		if err != nil {
			return false
		}
		got = append(got, b[:n]...)
	}
	return true
}

func answer(c net.Conn) {
	if readHello(c) {
		c.Write([]byte("response!"))
		io.Copy(io.Discard, c)
	}
}

func answerAndClose(c net.Conn) {
	if readHello(c) {
		c.Write([]byte("response!"))
	}
}

func answerAndReset(c net.Conn) {
	if readHello(c) {
		c.Write([]byte("response!"))
		time.Sleep(200 * time.Millisecond) // for the answer to be on its way: a reset overtakes
		c.(*net.TCPConn).SetLinger(0)
	}
}

func answerAtEOF(c net.Conn) {
	io.Copy(io.Discard, c)
	c.Write([]byte("response!"))
}

func sixForOne(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
		c.Write([]byte("sixsix"))
		io.Copy(io.Discard, c)
	}
}

// The clients. Each says what it saw, as far as that is no matter of chance.

// talk sends five bytes, reads nine, and closes.
func talk(t *testing.T, d dialer) string {
	c := d.dial(t)
	defer c.Close()
	return exchange(c)
}

func exchange(c net.Conn) string {
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		return how(err)
	}
	b := make([]byte, 9)
	n, err := io.ReadFull(c, b)
	if err != nil {
		return string(b[:n]) + " " + how(err)
	}
	return string(b)
}

func talkToEnd(t *testing.T, d dialer) string {
	c := d.dial(t)
	defer c.Close()
	return exchange(c) + " " + rest(c)
}

// talkToReset doesn't say how it ended: nginx makes a backend's reset an end.
func talkToReset(t *testing.T, d dialer) string {
	c := d.dial(t)
	defer c.Close()
	got := exchange(c)
	rest(c)
	return got
}

func talkAndReset(t *testing.T, d dialer) string {
	c := d.dial(t)
	got := exchange(c)
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	return got
}

func talkAfter(header string) func(*testing.T, dialer) string {
	return func(t *testing.T, d dialer) string {
		c := d.dial(t)
		defer c.Close()
		c.Write([]byte(header))
		return exchange(c)
	}
}

func closeThenRead(t *testing.T, d dialer) string {
	c := d.dial(t)
	defer c.Close()
	c.Write([]byte("hello"))
	c.(*net.TCPConn).CloseWrite()
	return rest(c)
}

func comeAndGo(t *testing.T, d dialer) string {
	d.dial(t).Close()
	return ""
}

// watch says nothing and waits for the end.
func watch(t *testing.T, d dialer) string {
	c := d.dial(t)
	defer c.Close()
	return rest(c)
}

// say speaks to somebody who doesn't listen. Whether the end is clean then is
// a matter of chance.
func say(words string) func(*testing.T, dialer) string {
	return func(t *testing.T, d dialer) string {
		c := d.dial(t)
		defer c.Close()
		c.Write([]byte(words))
		got, _, _ := strings.Cut(rest(c), " ")
		return got
	}
}

func oneForSix(t *testing.T, d dialer) string {
	c := d.dial(t)
	defer c.Close()
	c.Write([]byte("1"))
	return rest(c)
}

// rest reads to the end.
func rest(c net.Conn) string {
	c.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	if err == nil {
		err = io.EOF
	}
	return fmt.Sprintf("%q %s", b, how(err))
}

func how(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "end"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	}
	return err.Error()
}

func times(n int, act func(*testing.T, dialer) string) func(*testing.T, dialer) string {
	return func(t *testing.T, d dialer) string {
		var saw []string
		for range n {
			saw = append(saw, act(t, d))
			time.Sleep(20 * time.Millisecond) // the order of ends is the order of lines
		}
		return strings.Join(saw, "; ")
	}
}

// hold keeps one session open during another one's.
func hold(second func(*testing.T, dialer) string) func(*testing.T, dialer) string {
	return func(t *testing.T, d dialer) string {
		c := d.dial(t)
		saw := exchange(c)
		saw += "; " + second(t, d)
		time.Sleep(20 * time.Millisecond)
		c.Close()
		return saw
	}
}
