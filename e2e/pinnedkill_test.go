// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// chat is a session of TestPinnedKills.
type chat struct {
	port         string
	bytes        int       // that came back
	failed       error     // before its end
	began, ended time.Time // by the client's clock
}

// kill is when a process was killed.
type kill struct{ from, to time.Time }

// TestPinnedKills: processes are killed while sessions come, are handed over and go, at
// whatever moment that is. A session that was served to its end has one line, with its
// bytes, whichever processes it saw; one that was cut off none, or one that says so. And
// nothing is left.
func TestPinnedKills(t *testing.T) {
	t.Parallel()
	p := startPinned(t, "")
	p.format = "$remote_port $end_reason $bytes_received $bytes_sent $datapath"
	p.write(p.body(""))
	var (
		clients sync.WaitGroup
		mu      sync.Mutex
		chats   []chat
		kills   []kill
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 24 {
		clients.Go(func() {
			for ctx.Err() == nil {
				c, err := p.rig.Client.Dial(ctx, netip.Addr{}, p.addr)
				if err != nil { // nobody listens just now
					time.Sleep(20 * time.Millisecond)
					continue
				}
				s := chat{port: strconv.Itoa(int(netip.MustParseAddrPort(c.LocalAddr().String()).Port())), began: time.Now()}
				c.SetDeadline(time.Now().Add(patience))
				b := make([]byte, 1+rand.IntN(4000))
				for range 1 + rand.IntN(60) {
					if _, s.failed = c.Write(b); s.failed == nil {
						_, s.failed = io.ReadFull(c, b)
					}
					if s.failed != nil {
						break
					}
					s.bytes += len(b)
					time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				}
				c.CloseWrite()
				if _, err := c.Read(b); s.failed == nil && err != io.EOF {
					s.failed = err
				}
				c.Close()
				s.ended = time.Now()
				mu.Lock()
				chats = append(chats, s)
				mu.Unlock()
			}
		})
	}
	for range 4 {
		time.Sleep(1500 * time.Millisecond)
		k := kill{from: time.Now()}
		p.stop(unix.SIGKILL)
		k.to = time.Now()
		kills = append(kills, k)
		p.again(p.body(""))
	}
	time.Sleep(time.Second)
	cancel()
	clients.Wait()
	p.stop(unix.SIGTERM)

	lines := map[string][]string{}
	for _, line := range readLines(t, p.access) {
		port, rest, _ := strings.Cut(line, " ")
		lines[port] = append(lines[port], rest)
	}
	across, cut := 0, 0
	for _, s := range chats {
		spans, lost := 0, false
		for _, k := range kills {
			if s.began.Before(k.to) && s.ended.After(k.from) {
				spans++
			}
			lost = lost || s.ended.Before(k.to) && k.from.Sub(s.ended) < 300*time.Millisecond // with the line that was about to be written
		}
		got, bytes := lines[s.port], strconv.Itoa(s.bytes)
		want := "client_closed " + bytes + " " + bytes + " "
		switch {
		case s.failed != nil && spans == 0:
			t.Errorf("a session that saw no kill failed: %v", s.failed)
		case s.failed != nil:
			cut++
			// The sockets that the kernel closed may have had an end answer with a reset.
			if len(got) > 1 || len(got) == 1 && !strings.HasPrefix(got[0], "internal ") && !strings.Contains(got[0], "_reset ") {
				t.Errorf("a session that failed (%v) has the lines %q", s.failed, got)
			}
		case lost && len(got) == 0:
		case len(got) != 1 || !strings.HasPrefix(got[0], want):
			t.Errorf("a session over %d kills, from %s to %s, has the lines %q, want %s", spans, s.began, s.ended, got, want)
		case spans > 0:
			across++
		}
	}
	t.Logf("%d sessions, %d of them over a kill, %d cut off", len(chats), across, cut)
	if across == 0 {
		t.Error("no session has seen two processes")
	}
}
