// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestFullDisk: lines that can't be written are counted, sessions go on, and
// the end isn't delayed.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	addr := front(t)
	i := startWith(t, user{}, one(addr, tcp(t, answer).addr), func(i *instance) { i.access = "/dev/full" })
	for range 20 {
		if got := talk(t, dialer{"tcp", addr}); got != "response!" {
			t.Fatalf("got %q", got)
		}
	}
	eventually(t, func() string {
		if d := i.doc(); d.AccessLog.Dropped != 20 || d.AccessLog.Lines != 0 {
			return fmt.Sprintf("access_log %+v, want 20 dropped and none written", d.AccessLog)
		}
		return ""
	})
	began := time.Now()
	i.signal(15)
	if code := i.exitCode(); code != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("exit code %d after %s", code, time.Since(began))
	}
}

// TestJSONLog: one object a line, with the variables' names.
func TestJSONLog(t *testing.T) {
	t.Parallel()
	addr := front(t)
	b := tcp(t, answer).addr
	dead := refusing(t)
	i := startWith(t, user{}, one(addr, dead, b), func(i *instance) { i.format = "json" })
	talk(t, dialer{"tcp", addr})
	var line map[string]any
	if err := json.Unmarshal([]byte(i.lines(1)[0]), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"remote_addr": "127.0.0.1", "protocol": "TCP", "status": 200.0, "bytes_sent": 9.0, "bytes_received": 5.0, "upstream_addr": dead + ", " + b,
		"upstream_bytes_sent": "0, 5", "listener": "l", "pool": "l", "datapath": "relay", "end_reason": "client_closed", "bytes_spliced": 0.0,
	} {
		if line[key] != want {
			t.Errorf("%s is %v (%T), want %v", key, line[key], line[key], want)
		}
	}
}

// TestDescriptors: at the limit accepting stops, while statistics and edits
// still have theirs, and goes on when a session has ended.
func TestDescriptors(t *testing.T) {
	addr := front(t)
	b := tcp(t, echo)
	i := startWith(t, user{}, one(addr, b.addr), func(i *instance) { i.wrap = "ulimit -n 200; exec \"$0\" \"$@\"" })
	var clients []*pinger
	for range 100 { // 200 descriptors of its own would be needed
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, &pinger{Conn: c})
	}
	served := make([]bool, len(clients))
	n := 0
	for k, c := range clients {
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond / time.Duration(1+(k-n)*2)))
		one := make([]byte, 1)
		if got, _ := c.Read(one); got == 1 {
			served[k] = true
			n++
		}
	}
	if n < 20 || n > 68 {
		t.Errorf("%d of 100 sessions served with 200 descriptors, of which 64 are kept back", n)
	}
	other := tcp(t, echo)
	i.write(one(addr, other.addr, b.addr))
	i.loaded("l", other.addr, b.addr)
	for k, c := range clients { // those that are served leave; the others get in
		if served[k] {
			c.Close()
		}
	}
	for k, c := range clients {
		if !served[k] {
			c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Errorf("client %d wasn't served when there was room: %v", k, err)
				break
			}
			c.Close()
		}
	}
	i.lines(100)
}

// TestStatsAddress: an address of the file that can't be had is fatal; the
// default one, taken by somebody else, isn't.
func TestStatsAddress(t *testing.T) {
	taken, err := net.Listen("tcp", front(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := front(t)
	body := one(addr, tcp(t, answer).addr)
	i := prepare(t, user{}, body)
	i.stats = taken.Addr().String()
	i.write(body)
	i.launch(user{})
	if code := i.exitCode(); code != 1 || !strings.Contains(i.stderr.String(), i.stats) {
		t.Errorf("exit code %d, want 1 and a word of %s: %s", code, i.stats, i.stderr)
	}
	if !ownNamespace(t) {
		t.Log("the default address isn't this test's to take")
		return
	}
	std, err := net.Listen("tcp", "127.0.0.1:9585")
	if err != nil {
		t.Fatal(err)
	}
	defer std.Close()
	i = prepare(t, user{}, body)
	i.writeRaw(body)
	i.launch(user{})
	i.awaitReady()
	if got := talk(t, dialer{"tcp", addr}); got != "response!" {
		t.Errorf("got %q", got)
	}
	warned := false
	for _, e := range i.stderr.entries(t) {
		warned = warned || e["level"] == "warn" && strings.Contains(fmt.Sprint(e), "127.0.0.1:9585")
	}
	if !warned {
		t.Error("no warning that there is no endpoint")
	}
}

// TestNames: each address of a name is a backend of its own, logged as ip:port.
func TestNames(t *testing.T) {
	t.Parallel()
	b := tcp(t, answer)
	_, port, _ := net.SplitHostPort(b.addr)
	if list, err := net.LookupHost("localhost"); err != nil || !strings.Contains(strings.Join(list, " "), "127.0.0.1") {
		t.Skipf("localhost is no name for 127.0.0.1 here: %v %v", list, err)
	}
	addr := front(t)
	i := start(t, one(addr, "localhost:"+port))
	if got := talk(t, dialer{"tcp", addr}); got != "response!" {
		t.Errorf("got %q", got)
	}
	if line := i.lines(1)[0]; !strings.Contains(line, "127.0.0.1:"+port) || strings.Contains(line, "localhost") {
		t.Errorf("line %q", line)
	}
}

// TestEventLoopsStay: the one key that an edit can't change is a warning, and
// the rest of the edit is taken.
func TestEventLoopsStay(t *testing.T) {
	t.Parallel()
	a, b := tcp(t, answer).addr, tcp(t, answer).addr
	addr := front(t)
	i := start(t, one(addr, a))
	i.write("event_loops: 7\n" + one(addr, a, b))
	i.loaded("l", a, b)
	eventually(t, func() string {
		for _, e := range i.stderr.entries(t) {
			if e["level"] == "warn" && strings.Contains(fmt.Sprint(e), "event_loops") {
				return ""
			}
		}
		return "no warning that names event_loops"
	})
}
