// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/needs"
	"sluice/internal/netrig"
)

// offloadFormat is what a line says of a session that was forwarded.
const offloadFormat = `$status $end_reason $datapath $bytes_received $bytes_sent $bytes_spliced`

// onHosts is a sluice between a client's host and a backend's.
type onHosts struct {
	*instance
	rig      *netrig.Rig
	addr     netip.AddrPort
	backends []string
}

// startOnHosts serves two echoing backends of another host; options are the
// listener's.
func startOnHosts(t *testing.T, v6 bool, o netrig.Options, options, more string) *onHosts {
	t.Helper()
	return startOnHostsWith(t, v6, o, options, more, func(i *instance) { i.format = offloadFormat })
}

// startOnHostsWith also lets change adjust the instance.
func startOnHostsWith(t *testing.T, v6 bool, o netrig.Options, options, more string, change func(*instance)) *onHosts {
	t.Helper()
	needs.Offload(t)
	h := &onHosts{rig: netrig.New(t, o)}
	h.addr = netip.AddrPortFrom(h.rig.Front(v6), uint16(freePort(t)))
	for n := range 2 {
		ip := h.rig.Backend.V4[n]
		if v6 {
			ip = h.rig.Backend.V6[n]
		}
		l, err := h.rig.Backend.Listen(netip.AddrPortFrom(ip, 7000))
		if err != nil {
			t.Fatal(err)
		}
		h.backends = append(h.backends, l.Addr().String())
		serveOn(t, l, echo)
	}
	h.instance = startWith(t, user{}, h.file(options, more), change)
	return h
}

// file serves the backends with these options of the listener.
func (h *onHosts) file(options, more string) string {
	return fmt.Sprintf("%slisteners: [{name: l, listen: %q, backends: [%s]%s}]\n", more, h.addr, quoted(h.backends), options)
}

// dial connects from the client's host.
func (h *onHosts) dial() *net.TCPConn {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := h.rig.Client.Dial(ctx, netip.Addr{}, h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// forwarded is a session that is forwarded, after n messages of 8 bytes each way, the
// last of them forwarded.
func (h *onHosts) forwarded() (c *net.TCPConn, n int) {
	h.t.Helper()
	c = h.dial()
	eventually(h.t, func() string {
		h.exchange(c)
		n++
		if _, body := h.get("/flows"); !strings.Contains(body, `"offload"`) {
			return "the session isn't forwarded: " + body
		}
		return ""
	})
	h.exchange(c)
	n++
	return c, n
}

// acknowledged waits until both ends of the only session so far have said that they have
// n messages: a client may take 40 ms to say so of the last one.
func (h *onHosts) acknowledged(n int) {
	h.t.Helper()
	eventually(h.t, func() string {
		d := h.doc()
		l, b := d.Listeners[0], d.Pools[0].Backends
		if want := uint64(8 * n); l.BytesReceived != want || l.BytesSent != want || b[0].BytesReceived+b[1].BytesReceived != want || b[0].BytesSent+b[1].BytesSent != want {
			return fmt.Sprintf("%+v, %+v: want %d bytes each way", l, b, want)
		}
		return ""
	})
}

func (h *onHosts) exchange(c *net.TCPConn) {
	h.t.Helper()
	b := []byte("12345678")
	if _, err := c.Write(b); err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil {
		h.t.Fatal(err)
	}
}

// TestOffload: between hosts sessions are forwarded by default, and statistics and
// log are as for any other.
func TestOffload(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]netrig.Options{"two arms": {}, "one arm": {OneArm: true}} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %t", name, v6), func(t *testing.T) {
				h := startOnHosts(t, v6, o, "", "")
				c, n := h.forwarded()
				for range 20 {
					h.exchange(c)
				}
				n += 20
				h.acknowledged(n)
				if l := h.doc().Listeners[0]; l.Datapath != "offload" || l.Reason != "" || l.Active != 1 {
					t.Errorf("%+v, want offload and one session", l)
				}
				if sent, flows := h.metric(`sluice_forward_packets_total{outcome="sent"}`), h.metric("sluice_forward_flows"); sent < 40 || flows != 1 {
					t.Errorf("%v packets sent on for %v flows, want 40 at least for one", sent, flows)
				}
				h.lint()
				for _, name := range []string{"status", "flows"} {
					if out, errs, code := command(t, user{}, name, "-c", h.conf); code != 0 || !strings.Contains(out, " offload ") {
						t.Errorf("sluice %s says %q, %q, exit %d", name, out, errs, code)
					}
				}
				c.Close()
				line := strings.Fields(h.lines(1)[0])
				bytes := fmt.Sprint(8 * n)
				if len(line) != 6 || strings.Join(line[:3], " ") != "200 client_closed offload" || line[3] != bytes || line[4] != bytes || line[5] == "0" {
					t.Errorf("the line says %q, want 200 client_closed offload and %s bytes each way", line, bytes)
				}
				eventually(t, func() string { // late packets are sent on for a while
					if n := h.metric("sluice_forward_flows"); n != 0 {
						return fmt.Sprintf("%v records are still in use", n)
					}
					return ""
				})
			})
		}
	}
}

// TestOffloadMakesPairsFit: a client without timestamps that asks for ECN is forwarded
// like others, also once an edit has taken offload away and another has brought it back.
func TestOffloadMakesPairsFit(t *testing.T) {
	t.Parallel()
	h := startOnHosts(t, false, netrig.Options{}, "", "")
	h.rig.Client.Sysctl(t, "ipv4/tcp_timestamps", "0")
	h.rig.Client.Sysctl(t, "ipv4/tcp_ecn", "1")
	with := 0
	for _, options := range []string{"", ", datapath: splice", ""} {
		h.write(h.file(options, ""))
		want := "offload"
		if options != "" {
			want = "splice"
		}
		eventually(t, func() string {
			if l := h.doc().Listeners[0]; l.Datapath != want {
				return fmt.Sprintf("the listener: %+v", l)
			}
			return ""
		})
		if want == "splice" { // what is loaded goes, and is loaded anew
			eventually(t, func() string {
				if n := len(h.kernelObjects()["map_id"]); n >= with {
					return fmt.Sprintf("%d maps are left, %d with offload", n, with)
				}
				return ""
			})
			continue
		}
		c, _ := h.forwarded()
		with = len(h.kernelObjects()["map_id"])
		for _, outcome := range []string{"ecn", "plain"} {
			if n := h.metric(fmt.Sprintf(`sluice_forward_packets_total{outcome=%q}`, outcome)); n == 0 {
				t.Errorf("no SYN went without: %s", outcome)
			}
		}
		if l := h.doc().Listeners[0]; len(l.Fallbacks) != 0 {
			t.Errorf("fallbacks: %v", l.Fallbacks)
		}
		c.Close()
		eventually(t, func() string {
			if l := h.doc().Listeners[0]; l.Active != 0 {
				return fmt.Sprintf("%d sessions are left", l.Active)
			}
			return ""
		})
	}
}

// TestOffloadIsStopped: each signal that ends the process ends forwarded sessions with
// a reset and a line.
func TestOffloadIsStopped(t *testing.T) {
	t.Parallel()
	for name, signals := range map[string][]unix.Signal{"SIGINT": {unix.SIGINT}, "SIGTERM twice": {unix.SIGTERM, unix.SIGTERM}, "drain_timeout": {unix.SIGTERM}} {
		t.Run(name, func(t *testing.T) {
			h := startOnHosts(t, false, netrig.Options{}, "", "drain_timeout: 1s\n")
			c, n := h.forwarded()
			h.acknowledged(n)
			for _, s := range signals {
				h.signal(s)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v, want a reset", err)
			}
			if code := h.exitCode(); code != 0 {
				t.Errorf("exit %d", code)
			}
			if got, want := h.lines(1)[0], fmt.Sprintf("200 shutdown offload %d %d ", 8*n, 8*n); !strings.HasPrefix(got, want) {
				t.Errorf("the line says %q, want %q", got, want)
			}
		})
	}
}

// TestOffloadIsOff: without records nothing is forwarded, and that is the reason.
func TestOffloadIsOff(t *testing.T) {
	t.Parallel()
	h := startOnHosts(t, false, netrig.Options{}, "", "forward: {max_flows: 0}\n")
	if l := h.doc().Listeners[0]; l.Datapath == "offload" || !strings.Contains(l.Reason, "max_flows") {
		t.Errorf("%+v", l)
	}
	c := h.dial()
	for range 20 {
		h.exchange(c)
	}
	c.Close()
	if line := h.lines(1)[0]; strings.Contains(line, "offload") {
		t.Error(line)
	}
}

// TestOffloadIsKilled: nothing of ours is left in the kernel, so that the host's stack,
// which knows no such connection, resets what the ends still send; the next instance
// forwards again.
func TestOffloadIsKilled(t *testing.T) {
	t.Parallel()
	h := startOnHosts(t, false, netrig.Options{}, "", "")
	c, _ := h.forwarded()
	held := h.kernelObjects()
	h.signal(unix.SIGKILL)
	<-h.exited
	allGone(t, held)
	_, err := c.Write([]byte("12345678")) // a late acknowledgement of its may have told it already
	if _, late := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(late, syscall.ECONNRESET) {
		t.Errorf("the client sees %v, then %v, want a reset", err, late)
	}
	h.instance = startWith(t, user{}, h.file("", ""), func(i *instance) { i.format = offloadFormat })
	h.forwarded()
}
