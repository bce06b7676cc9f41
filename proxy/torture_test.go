// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/internal/netrig"
	"sluice/session"
)

// A torture session's plan travels in its first bytes, so that both sides know
// what to send, what to expect, and how to end.
type plan struct {
	Seed       uint64
	Chat       uint32 // small messages each way first: enough of them lead into the map
	Up, Down   uint32 // bytes after that
	Ending     uint32
	SlowClient uint32 // reads that are followed by a pause
	SlowServer uint32
	CutAt      uint32 // for resets: after how many bytes of the sender's own
	Piece      uint32 // bytes of a write, at most
}

const (
	clientFirst = iota // the client half-closes when it has sent; the backend goes on
	backendFirst
	bothAtOnce
	clientResets
	backendResets
	endings
)

const planSize = 8 + 8*4

// most is how much one side sends at most.
const most = 16 << 20

// ordeal is what a torture is made of.
type ordeal struct {
	sessions int
	most     uint32 // bytes that a side sends
	endings  uint32 // only those before
	loss     int    // packets of a hundred that the client's leg loses, each way; on hosts, each hop
	workers  int    // sessions at a time; 0: 64
	tight    bool   // only sizes that a small, losing network carries in a second or two

	// first, if it isn't nil, is told of both ends of a session that is played before the
	// others, and then why that one wasn't forwarded; "" if it was, or on other datapaths.
	first func(client, backend *net.TCPConn, fell string)
	// all has every later session forwarded that talks a little, but those that fall for
	// these reasons; nil: no matter.
	all []string
}

// talk is how many messages lead into being forwarded for certain.
const talk = 8

func (p plan) encode() []byte {
	var b bytes.Buffer
	binary.Write(&b, binary.BigEndian, p)
	return b.Bytes()
}

func (o ordeal) plan(r *rand.Rand) plan {
	size := func() uint32 {
		if o.tight && r.IntN(8) > 0 {
			return r.Uint32N(8 << 10)
		}
		switch r.IntN(4) {
		case 0:
			return 0
		case 1:
			return r.Uint32N(2048)
		case 2:
			return r.Uint32N(256 << 10)
		}
		if r.IntN(16) == 0 {
			return r.Uint32N(o.most)
		}
		return r.Uint32N(min(o.most, 1<<20))
	}
	p := plan{Seed: r.Uint64(), Up: size(), Down: size(), Ending: r.Uint32N(o.endings)}
	if r.IntN(3) > 0 {
		p.Chat = r.Uint32N(60)
	}
	if r.IntN(4) == 0 {
		p.SlowClient = 1 + r.Uint32N(20)
	}
	if r.IntN(4) == 0 {
		p.SlowServer = 1 + r.Uint32N(20)
	}
	p.Piece = 64 << 10
	if r.IntN(4) == 0 {
		p.Piece = 1 + r.Uint32N(600)
		p.Up, p.Down = min(p.Up, 500*p.Piece), min(p.Down, 500*p.Piece)
	}
	switch p.Ending {
	case clientResets:
		p.CutAt = r.Uint32N(p.Up + 1)
	case backendResets:
		p.CutAt = r.Uint32N(p.Down + 1)
	}
	return p
}

// stream is endless, seeded, and has no period that a lost piece could hide in.
type stream struct {
	r   *rand.ChaCha8
	key [32]byte
}

func newStream(seed uint64, side byte) *stream {
	var k [32]byte
	binary.BigEndian.PutUint64(k[:], seed)
	k[8] = side
	return &stream{rand.NewChaCha8(k), k}
}

// place says where in the stream b belongs, if it is a piece of it: what came
// instead of the right bytes tells loss, repetition and overtaking apart.
func (s *stream) place(b []byte, upTo uint32) string {
	b = b[:min(len(b), 12)]
	all := make([]byte, upTo)
	rand.NewChaCha8(s.key).Read(all)
	if at := bytes.Index(all, b); len(b) == 12 && at >= 0 {
		return fmt.Sprintf("those of %d", at)
	}
	return fmt.Sprintf("%x, not of this stream", b)
}

func (s *stream) Read(b []byte) (int, error) { return s.r.Read(b) }

func sendAll(c *net.TCPConn, s *stream, n, piece, cutAt uint32, cut bool) error {
	buf := make([]byte, piece)
	left := n
	if cut {
		left = min(left, cutAt)
	}
	for left > 0 {
		k := min(left, uint32(len(buf)))
		s.Read(buf[:k])
		if _, err := c.Write(buf[:k]); err != nil {
			return err
		}
		left -= k
	}
	if cut {
		c.SetLinger(0)
		return c.Close()
	}
	return c.CloseWrite()
}

// wrongBytes is a stream that isn't what was sent.
type wrongBytes struct {
	at   uint32
	came string
}

func (e *wrongBytes) Error() string {
	return fmt.Sprintf("wrong bytes at %d: %s", e.at, e.came)
}

// readAll checks every byte and returns how many came.
func readAll(c io.Reader, s *stream, slow uint32) (uint32, error) {
	buf, want := make([]byte, 32<<10), make([]byte, 32<<10)
	total := uint32(0)
	for {
		n, err := c.Read(buf)
		s.Read(want[:n])
		if !bytes.Equal(buf[:n], want[:n]) {
			at := 0
			for buf[at] == want[at] {
				at++
			}
			return total, &wrongBytes{total + uint32(at), s.place(buf[at:n], most)}
		}
		total += uint32(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if slow > 0 {
			slow--
			time.Sleep(3 * time.Millisecond)
		}
	}
}

func chat(c net.Conn, rounds uint32, speaks bool) error {
	b := make([]byte, 16)
	for i := range rounds {
		binary.BigEndian.PutUint64(b, uint64(i))
		if speaks {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint64(b); got != uint64(i) {
			return fmt.Errorf("chat: message %d instead of %d", got, i)
		}
		if !speaks {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// verdicts collects what the backends found.
type verdicts struct {
	mu  sync.Mutex
	bad []string
}

func (v *verdicts) add(who string, p plan, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.bad) < 20 {
		v.bad = append(v.bad, fmt.Sprintf("%s: %+v: %v", who, p, err))
	}
}

// side plays one side of a plan; what it returns is a reader's error.
func (v *verdicts) side(who string, c *net.TCPConn, p plan, client bool) error {
	out, in := newStream(p.Seed, 'd'), newStream(p.Seed, 'u')
	size, expect, slow := p.Down, p.Up, p.SlowServer
	reset := p.Ending == clientResets || p.Ending == backendResets
	cut, first := p.Ending == backendResets, p.Ending == backendFirst
	if client {
		out, in = in, out
		size, expect, slow = expect, size, p.SlowClient
		cut, first = p.Ending == clientResets, p.Ending == clientFirst
	}
	if err := chat(c, p.Chat, client); err != nil {
		if !reset || !errors.Is(err, syscall.ECONNRESET) { // a reset overtakes what waits to be sent
			v.add(who, p, err)
		}
		return err
	}
	sent := make(chan error, 1)
	send := func() { sent <- sendAll(c, out, size, p.Piece, p.CutAt, cut) }
	if first || cut || p.Ending == bothAtOnce || reset {
		go send()
	}
	got, err := readAll(c, in, slow)
	if !(first || cut || p.Ending == bothAtOnce || reset) {
		go send() // only once the other side has finished
	}
	sendErr := <-sent
	if reset {
		if _, ok := err.(*wrongBytes); ok {
			v.add(who, p, err)
		}
		return err
	}
	switch {
	case err != nil:
		v.add(who, p, fmt.Errorf("after %d bytes: %w", got, err))
	case sendErr != nil:
		v.add(who, p, fmt.Errorf("send: %w", sendErr))
	case got != expect:
		v.add(who, p, fmt.Errorf("%d bytes of %d, and a clean end", got, expect))
	}
	return err
}

// tortureSessions is how many sessions a torture takes when nobody asks for more.
func tortureSessions(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_TORTURE")); err == nil {
		return n
	}
	if testing.Short() {
		return usual / 6
	}
	return usual
}

// TestTorture: random sizes both ways, half-close from either side, resets at
// random moments, slow readers, 64 at a time; every byte is checked at both
// ends, and nothing is left. SLUICE_TORTURE=20000 is the long form.
func TestTorture(t *testing.T) {
	datapaths(t, func(t *testing.T, path string) {
		t.Parallel()
		ordeal{sessions: tortureSessions(2000), most: most, endings: endings}.run(t, path)
	})
}

func (o ordeal) run(t *testing.T, path string) {
	var v verdicts
	tally := tally{o: o, v: &v}
	met := make(chan *net.TCPConn, 1)
	backend := func(c net.Conn) {
		if o.first != nil {
			select {
			case met <- c.(*net.TCPConn):
			default:
			}
		}
		var p plan
		c.SetDeadline(time.Now().Add(patience))
		b := make([]byte, planSize)
		if _, err := io.ReadFull(c, b); err != nil {
			return // a reset overtook it; any other loss the client finds
		}
		binary.Read(bytes.NewReader(b), binary.BigEndian, &p)
		v.side("backend", c.(*net.TCPConn), p, false)
	}
	options := Options{Loops: 2, Sessions: session.NewRegistry(session.Options{Record: tally.add})}
	if o.tight && path == "splice" {
		options.Splice = smallMark(t)
	}
	if path == "offload" {
		options.Offload = newOffload(t, min(16*o.sessions, 8192)) // a record stays for a second after its session
	}
	r := newRigOf(t, path, []string{serve(t, backend), serve(t, backend)}, nil, options)
	switch h := ground(t); {
	case o.loss == 0:
	case h != nil: // a filter on a socket sees nothing of what is forwarded
		h.Impair(t, netrig.Impairment{Loss: o.loss})
	default:
		for _, fd := range r.front.fds {
			loseOn(t, int(fd), o.loss) // the sockets that it accepts inherit that
		}
	}
	if o.first != nil {
		o.firstSession(t, r, &tally, met)
	}
	before := r.settings.Counters.Snapshot().Fallbacks
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	begun := time.Now()
	reports := time.NewTicker(time.Minute)
	defer reports.Stop()
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range cmp.Or(o.workers, 64) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			for next.Add(1) <= int64(o.sessions) {
				o.session(t, r, &tally, o.plan(rnd))
				select {
				case <-reports.C:
					t.Logf("%d sessions in %.0f s", tally.sessions.Load(), time.Since(begun).Seconds())
				default:
				}
			}
		})
	}
	wg.Wait()
	r.emptyWithin(patience)
	for _, b := range v.bad {
		t.Error(b)
	}
	wrong, compared := tally.ledger.wrong()
	for _, w := range wrong[:min(len(wrong), 20)] {
		t.Error("records and ends differ: ", w)
	}
	if compared < o.sessions/10 {
		t.Errorf("the bytes of %d clients were compared, of %d sessions", compared, o.sessions)
	}
	if r.engine.splice != nil {
		t.Logf("%+v", r.engine.splice.Counts())
	}
	if o := r.engine.offload.Load(); o != nil {
		t.Logf("%+v, sessions that stayed below: %v", o.Forward.Outcomes(), r.settings.Counters.Snapshot().Fallbacks)
	}
	if path == "offload" && o.all != nil {
		o.fell(t, r, &tally, before)
	}
	if n := tally.sessions.Load(); n != int64(o.sessions) {
		t.Errorf("%d records of %d sessions", n, o.sessions)
	}
	mapped := tally.mapped.Load()
	if path != "relay" && mapped < int64(o.sessions/10) {
		t.Errorf("only %d of %d sessions left their loop", mapped, o.sessions)
	}
	t.Logf("%d sessions, %d of them moved by the kernel, %d bytes, %.0f s", o.sessions, mapped, tally.spliced.Load(), time.Since(begun).Seconds())
}

// firstSession plays the one that o.first is told of, which counts for nothing else.
func (o ordeal) firstSession(t *testing.T, r *rig, sum *tally, met chan *net.TCPConn) {
	c, err := r.connect()
	if err != nil {
		t.Fatal(err)
	}
	p := plan{Seed: 1, Chat: 3 * talk, Up: 10_000, Down: 10_000, Ending: clientFirst, Piece: 1000}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(p.encode()); err != nil {
		t.Fatal(err)
	}
	backend := <-met
	met <- nil // no further one
	o.first(c, backend, "")
	err = sum.v.side("client", c, p, true)
	sum.ledger.counted(c, p, err)
	c.Close()
	r.emptyWithin(patience)
	var reasons []string
	for why := range r.settings.Counters.Snapshot().Fallbacks {
		reasons = append(reasons, why)
	}
	o.first(nil, nil, strings.Join(reasons, ", "))
	sum.sessions.Add(-1)
	sum.ledger = ledger{}
}

// fell checks who wasn't forwarded, and why.
func (o ordeal) fell(t *testing.T, r *rig, sum *tally, before map[string]uint64) {
	allowed := uint64(0)
	for why, n := range r.settings.Counters.Snapshot().Fallbacks {
		n -= before[why]
		switch {
		case slices.Contains(o.all, why):
			allowed += n
		case why != session.HalfClosed.String() && n > 0: // those end before it pays
			t.Errorf("%d sessions stayed below for %s", n, why)
		}
	}
	talked, stayed := sum.ledger.talked()
	if uint64(stayed) > allowed || talked < o.sessions/4 {
		t.Errorf("of %d sessions that talked %d stayed below, %d of them for a reason", talked, stayed, allowed)
	}
}

// session plays one client. One that hangs is described before it is closed.
func (o ordeal) session(t *testing.T, r *rig, sum *tally, p plan) {
	c, err := r.connect()
	if err != nil {
		sum.v.add("client", p, err)
		return
	}
	defer c.Close()
	if o.loss > 0 && ground(t) == nil {
		lose(t, c, o.loss)
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err = c.Write(p.encode()); err != nil {
		sum.v.add("client", p, err)
	} else if err = sum.v.side("client", c, p, true); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Logf("a session of %s hangs:\n%s", c.LocalAddr(), r.left())
	}
	sum.ledger.counted(c, p, err)
}

// patience is how long a session may take, and its ends to part. Where packets are
// lost, a round trip may take seconds, and TCP waits for a multiple of it, doubled with
// each loss: more than half a minute after the third, once in some thousand sessions.
const patience = 3 * time.Minute
