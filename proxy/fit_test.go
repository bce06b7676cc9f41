// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config"
	"sluice/internal/needs"
	"sluice/internal/netrig"
	"sluice/pool"
)

// peculiar is what hosts have or haven't, for the time of a test.
type peculiar struct {
	v6, oneArm              bool
	clientTime, backendTime bool // timestamps
	ecn                     bool // all hosts ask for it
}

func (p peculiar) String() string {
	return fmt.Sprintf("IPv6 %t/one arm %t/timestamps of client %t, backend %t/ECN %t", p.v6, p.oneArm, p.clientTime, p.backendTime, p.ecn)
}

// hosts sets them up so.
func (p peculiar) hosts(t *testing.T) {
	t.Helper()
	h := elsewhere(t, netrig.Options{OneArm: p.oneArm}, p.v6)
	for host, on := range map[*netrig.Host]bool{h.Client: p.clientTime, h.Backend: p.backendTime} {
		if !on {
			host.Sysctl(t, "ipv4/tcp_timestamps", "0")
		}
	}
	if p.ecn {
		for _, host := range []*netrig.Host{h.Client, h.Backend, h.Balancer} {
			host.Sysctl(t, "ipv4/tcp_ecn", "1")
		}
	}
}

// share has sessions of some messages and a few hundred KiB, which come back right, and
// says how many of them were forwarded and why the others weren't.
func (r *rig) share(sessions int) (forwarded int, fell string) {
	r.t.Helper()
	before, was := len(r.ended(0)), r.settings.Counters.Snapshot().Fallbacks
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			c, err := r.connect()
			if err == nil {
				err = exact(c, uint64(i))
			}
			if err != nil {
				r.t.Errorf("session %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, s := range r.ended(before + sessions)[before:] {
		if s.Datapath == "offload" {
			forwarded++
		}
		if s.Status != 200 || s.BytesReceived != exactBytes || s.BytesSent != exactBytes {
			r.t.Errorf("%d, received %d, sent %d", s.Status, s.BytesReceived, s.BytesSent)
		}
	}
	r.empty()
	var reasons []string
	for why, n := range r.settings.Counters.Snapshot().Fallbacks {
		if n > was[why] {
			reasons = append(reasons, fmt.Sprint(why, " ", n-was[why]))
		}
	}
	return forwarded, strings.Join(reasons, ", ")
}

const (
	exactMessages = 40
	exactBulk     = 256 << 10
	exactBytes    = exactMessages*64 + exactBulk
)

// exact exchanges random bytes with an echo, in turns and at once.
func exact(c *net.TCPConn, seed uint64) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	sent, got := make([]byte, exactBulk), make([]byte, exactBulk)
	for i := range exactMessages + 1 {
		n := 64
		if i == exactMessages {
			n = exactBulk
		}
		random.Read(sent[:n])
		failed := make(chan error, 1)
		go func() {
			_, err := c.Write(sent[:n])
			failed <- err
		}()
		if _, err := io.ReadFull(c, got[:n]); err != nil {
			return err
		}
		if err := <-failed; err != nil {
			return err
		}
		if !bytes.Equal(sent[:n], got[:n]) {
			return fmt.Errorf("message %d is another", i)
		}
	}
	return nil
}

// TestPairsAreMadeToFit: both legs get along without what the client hasn't, and clients
// come without the ECN that the backend's leg hasn't. The client's leg is there before the
// backend's: of timestamps that a backend hasn't the first session tells.
func TestPairsAreMadeToFit(t *testing.T) {
	needs.Offload(t)
	const sessions = 25
	all, forwarded := 0, 0
	for _, p := range []peculiar{
		{clientTime: true, backendTime: true},
		{backendTime: true},
		{backendTime: true, v6: true, oneArm: true},
		{},
		{clientTime: true, backendTime: true, ecn: true},
		{clientTime: true, backendTime: true, ecn: true, v6: true},
		{backendTime: true, ecn: true},
		{backendTime: true, ecn: true, v6: true},
		{ecn: true, oneArm: true},
		{clientTime: true},
		{clientTime: true, ecn: true, v6: true, oneArm: true},
	} {
		t.Run(p.String(), func(t *testing.T) {
			p.hosts(t)
			r := newRig(t, "offload", []string{serve(t, echo)}, nil)
			if p.clientTime && !p.backendTime {
				if n, fell := r.share(1); n != 0 || fell != "timestamps 1" {
					t.Errorf("the first: %d forwarded, fell: %q", n, fell)
				}
			}
			n, fell := r.share(sessions)
			all, forwarded = all+sessions, forwarded+n
			if n != sessions || fell != "" {
				t.Errorf("%d of %d sessions were forwarded; fell: %q", n, sessions, fell)
			}
			r.nothingPlain()
		})
	}
	t.Logf("%d of %d sessions were forwarded", forwarded, all)
}

// nothingPlain sees that no SYN is kept plain any more.
func (r *rig) nothingPlain() {
	r.t.Helper()
	if n := r.engine.offload.Load().plain.Load(); n != 0 {
		r.t.Errorf("%d SYNs are plain still", n)
	}
}

// TestPairsThatAreNotMadeToFit: without what makes them fit they don't.
func TestPairsThatAreNotMadeToFit(t *testing.T) {
	needs.Offload(t)
	const sessions = 10
	for _, c := range []struct {
		peculiar
		plain, marked bool
		why           string
	}{
		{peculiar{backendTime: true}, false, true, "timestamps"},
		{peculiar{clientTime: true, backendTime: true, ecn: true}, false, true, "ecn"}, // ours has it
		{peculiar{clientTime: true, backendTime: true, ecn: true}, true, false, ""},    // both have it
		{peculiar{backendTime: true, ecn: true}, false, true, "timestamps"},
	} {
		t.Run(fmt.Sprintf("%s/plain %t, marked %t", c.peculiar, c.plain, c.marked), func(t *testing.T) {
			c.hosts(t)
			r := newRigOf(t, "offload", []string{serve(t, echo)}, nil, Options{Loops: 2, Offload: newOffloadOf(t, 1024, c.plain)})
			r.comeAsTheyAre(!c.marked)
			want, why := sessions, ""
			if c.why != "" {
				want, why = 0, fmt.Sprint(c.why, " ", sessions)
			}
			if n, fell := r.share(sessions); n != want || fell != why {
				t.Errorf("%d sessions were forwarded, not %d; fell: %q, not %q", n, want, fell, why)
			}
		})
	}
	t.Run("a client with ECN, no host else", func(t *testing.T) {
		p := peculiar{clientTime: true, backendTime: true}
		p.hosts(t)
		ground(t).Client.Sysctl(t, "ipv4/tcp_ecn", "1")
		r := newRig(t, "offload", []string{serve(t, echo)}, nil)
		if n, fell := r.share(sessions); n != sessions || fell != "" {
			t.Errorf("%d sessions were forwarded; fell: %q", n, fell)
		}
		r.comeAsTheyAre(true)
		if n, fell := r.share(sessions); n != 0 || fell != fmt.Sprint("ecn ", sessions) {
			t.Errorf("%d sessions were forwarded; fell: %q", n, fell)
		}
	})
}

// comeAsTheyAre has clients come with ECN, behind the front's back.
func (r *rig) comeAsTheyAre(yes bool) {
	r.t.Helper()
	if !yes {
		return
	}
	o := r.engine.offload.Load()
	for _, a := range r.front.markedAddrs() {
		if err := o.Forward.RemoveFront(a); err != nil {
			r.t.Fatal(err)
		}
	}
}

// That a backend has no timestamps is learnt from the first session; those with it and
// with the pool's others are forwarded from then on, until there is another pool.
func TestTimestampsAreLearnt(t *testing.T) {
	needs.Offload(t)
	peculiar{clientTime: true}.hosts(t)
	r := newRig(t, "offload", []string{serve(t, echo), serve(t, echo)}, nil)
	plain := func() uint64 {
		for _, o := range r.outcomes() {
			if o.Name == "plain" {
				return o.Count
			}
		}
		return 0
	}
	if n, fell := r.share(1); n != 0 || fell != "timestamps 1" {
		t.Errorf("the first: %d forwarded, fell: %q", n, fell)
	}
	for _, on := range []string{"0", "1"} {
		ground(t).Backend.Sysctl(t, "ipv4/tcp_timestamps", on)
		before := plain()
		if n, fell := r.share(10); n != 10 || fell != "" {
			t.Errorf("timestamps of the backends %s: %d forwarded, fell: %q", on, n, fell)
		}
		if n := plain() - before; n != 20 {
			t.Errorf("%d SYNs were made plain of 10 each way", n)
		}
	}
	other := *r.settings
	other.Pool = pool.New("other", nil, nil)
	r.front.Serve(&other)
	r.front.Serve(r.settings)
	before := plain()
	if n, fell := r.share(10); n != 10 || fell != "" || plain() != before {
		t.Errorf("after another pool: %d forwarded, fell: %q, %d SYNs plain", n, fell, plain()-before)
	}
}

// A host that asks for ECN only since sessions are forwarded is found out by the first
// that doesn't fit.
func TestECNIsLearnt(t *testing.T) {
	needs.Offload(t)
	peculiar{clientTime: true, backendTime: true}.hosts(t)
	r := newRig(t, "offload", []string{serve(t, echo)}, nil)
	h := ground(t)
	for _, host := range []*netrig.Host{h.Backend, h.Balancer} {
		host.Sysctl(t, "ipv4/tcp_ecn", "1")
	}
	for i, want := range []struct {
		forwarded int
		fell      string
	}{{0, "ecn 1"}, {1, ""}, {1, ""}} {
		if n, fell := r.share(1); n != want.forwarded || fell != want.fell {
			t.Errorf("session %d: %d forwarded, fell %q; want %+v", i, n, fell, want)
		}
	}
	r.nothingPlain()
}

// However a dial of a plain SYN ends, the next one from its port is as usual; until then
// what keeps it plain is in use.
func TestPlainSYNsAreForgotten(t *testing.T) {
	needs.Offload(t)
	peculiar{backendTime: true}.hosts(t)
	h := ground(t)
	for _, c := range []struct {
		name, backend string
		status        int
	}{
		{"connected", serve(t, echo), 200},
		{"refused", refusing(t), 502},
		{"silent", serve(t, echo), 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "offload", []string{c.backend}, func(l *config.Listener) { l.ConnectTimeout = time.Second })
			o := r.engine.offload.Load()
			if c.name == "silent" { // its link address is known by now
				h.Impair(t, netrig.Impairment{Loss: 100}, netrig.FromBackend)
			}
			conn := r.dial()
			defer conn.Close()
			switch c.name {
			case "connected":
				warm(t, conn)
				conn.Close()
			case "silent":
				for end := time.Now().Add(10 * time.Second); o.plain.Load() != 1; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatal("no SYN is kept plain")
					}
				}
				if err := r.engine.SetOffload(nil); !errors.Is(err, errOffloadInUse) {
					t.Errorf("%v, though a SYN is kept plain", err)
				}
			}
			if s := r.ended(1)[0]; s.Status != c.status {
				t.Errorf("status %d, not %d", s.Status, c.status)
			}
			r.nothingPlain()
			for _, n := range o.Forward.Outcomes() {
				if n.Name == "plain" && n.Count == 0 {
					t.Error("no SYN was plain")
				}
			}
		})
	}
}
