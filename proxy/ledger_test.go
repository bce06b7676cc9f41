// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"sluice/accesslog"
)

// ledger compares what the records say of a torture's sessions with what their ends
// have counted: by client address, as a port is used again.
type ledger struct {
	mu      sync.Mutex
	clients map[netip.AddrPort]*account
}

type account struct {
	recorded, counted [2]uint64 // from the client, to the client
	sessions, records int
	talked, forwarded int
	cut               bool // by a reset, which may overtake any number of bytes
}

func (l *ledger) of(client netip.AddrPort) *account {
	client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
	a := l.clients[client]
	if a == nil {
		if l.clients == nil {
			l.clients = map[netip.AddrPort]*account{}
		}
		a = &account{}
		l.clients[client] = a
	}
	return a
}

// counted is told how a client found that its session went.
func (l *ledger) counted(c net.Conn, p plan, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(c.LocalAddr().(*net.TCPAddr).AddrPort())
	a.sessions++
	if err != nil || p.Ending == clientResets || p.Ending == backendResets {
		a.cut = true
	}
	if p.Chat >= talk && err == nil {
		a.talked++
	}
	said := 16 * uint64(p.Chat)
	a.counted[0] += planSize + said + uint64(p.Up)
	a.counted[1] += said + uint64(p.Down)
}

func (l *ledger) recorded(s *accesslog.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(s.Client.AddrPort)
	a.records++
	a.recorded[0] += s.BytesReceived
	a.recorded[1] += s.BytesSent
	if s.Datapath == "offload" {
		a.forwarded++
	}
}

// talked is how many sessions talked enough to be forwarded, and how many of them
// weren't.
func (l *ledger) talked() (talked, stayed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.clients {
		talked += a.talked
		stayed += max(0, a.talked-a.forwarded)
	}
	return talked, stayed
}

// wrong is each client of which the two differ, and how many were compared.
func (l *ledger) wrong() (wrong []string, compared int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for client, a := range l.clients {
		if a.records != a.sessions || !a.cut && a.recorded != a.counted {
			wrong = append(wrong, fmt.Sprintf("%s: %+v", client, *a))
		}
		if !a.cut {
			compared++
		}
	}
	return wrong, compared
}

// tally is what a torture keeps of its records.
type tally struct {
	o                         ordeal
	v                         *verdicts
	sessions, mapped, spliced atomic.Int64
	ledger                    ledger
}

func (t *tally) add(s *accesslog.Record, _ bool) {
	t.sessions.Add(1)
	t.ledger.recorded(s)
	t.spliced.Add(int64(s.BytesSpliced))
	if s.Datapath != "relay" {
		t.mapped.Add(1)
	}
	fine := s.Status == 200 && s.Reason != accesslog.Internal
	if t.o.endings <= clientResets {
		fine = fine && (s.Reason == accesslog.ClientClosed || s.Reason == accesslog.BackendClosed)
	}
	if !fine {
		t.v.add("record", plan{}, fmt.Errorf("%+v", *s))
	}
}
