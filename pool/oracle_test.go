// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/config"
)

// peer and rrPeers are an independent model of nginx's
// ngx_stream_upstream_round_robin.c and ngx_stream_upstream_least_conn_module.c,
// written as the C is: plain, one pick at a time. Two things differ from the C:
// a session that has come to the backups looks at the primaries again (the
// order of last resorts is per pick), and the end of a session isn't a success.
type peer struct {
	addr             Addr
	weight, cw, ew   int
	maxFails, conns  int
	maxConns, fails  int
	accessed         int64
	checked, timeout int64
	down             bool
}

type rrPeers struct {
	peers  []*peer
	next   *rrPeers
	single bool
	least  bool
}

func newOracle(specs []Spec, least bool) *rrPeers {
	r, backup := &rrPeers{least: least}, &rrPeers{least: least}
	for _, s := range specs {
		p := &peer{addr: s.Addr, weight: s.Weight, ew: s.Weight, maxFails: s.MaxFails, maxConns: s.MaxConns,
			timeout: int64(s.FailTimeout / time.Second), down: s.State != config.Up}
		if s.Backup {
			backup.peers = append(backup.peers, p)
		} else {
			r.peers = append(r.peers, p)
		}
	}
	r.single = len(r.peers) == 1 && len(backup.peers) == 0
	if len(backup.peers) > 0 {
		r.next = backup
	}
	return r
}

func (r *rrPeers) skip(p *peer, tried map[*peer]bool, now int64) bool {
	return tried[p] || p.down ||
		(p.maxFails != 0 && p.fails >= p.maxFails && now-p.checked <= p.timeout) ||
		(p.maxConns != 0 && p.conns >= p.maxConns)
}

func (r *rrPeers) get(tried map[*peer]bool, now int64) *peer {
	var best *peer
	if r.single {
		p := r.peers[0]
		if !p.down && !tried[p] && (p.maxConns == 0 || p.conns < p.maxConns) {
			best = p
		}
	} else if r.least {
		best = r.getLeast(tried, now)
	} else {
		best = r.getRR(tried, now)
	}
	if best == nil {
		if r.next != nil {
			return r.next.get(tried, now)
		}
		return nil
	}
	if now-best.checked > best.timeout {
		best.checked = now
	}
	best.conns++
	tried[best] = true
	return best
}

func (r *rrPeers) getRR(tried map[*peer]bool, now int64) *peer {
	var best *peer
	total := 0
	for _, p := range r.peers {
		if r.skip(p, tried, now) {
			continue
		}
		p.cw += p.ew
		total += p.ew
		if p.ew < p.weight {
			p.ew++
		}
		if best == nil || p.cw > best.cw {
			best = p
		}
	}
	if best != nil {
		best.cw -= total
	}
	return best
}

func (r *rrPeers) getLeast(tried map[*peer]bool, now int64) *peer {
	var best *peer
	many, at, total := false, 0, 0
	for i, p := range r.peers {
		if r.skip(p, tried, now) {
			continue
		}
		if best == nil || p.conns*best.weight < best.conns*p.weight {
			best, many, at = p, false, i
		} else if p.conns*best.weight == best.conns*p.weight {
			many = true
		}
	}
	if best == nil {
		return nil
	}
	if many {
		for _, p := range r.peers[at:] {
			if r.skip(p, tried, now) || p.conns*best.weight != best.conns*p.weight {
				continue
			}
			p.cw += p.ew
			total += p.ew
			if p.ew < p.weight {
				p.ew++
			}
			if p.cw > best.cw {
				best = p
			}
		}
	}
	best.cw -= total
	return best
}

func (r *rrPeers) failed(p *peer, now int64) {
	if !r.single {
		p.fails++
		p.accessed, p.checked = now, now
		if p.maxFails != 0 {
			p.ew -= p.weight / p.maxFails
		}
		if p.ew < 0 {
			p.ew = 0
		}
	}
	p.conns--
}

func (r *rrPeers) connected(p *peer) {
	if p.accessed < p.checked {
		p.fails = 0
	}
}

// pair is one session in both worlds.
type pair struct {
	s     State
	b     *Backend
	tried map[*peer]bool
	p     *peer
}

// history runs random sessions in both worlds and compares them pick by pick.
type history struct {
	t       *testing.T
	r       *rand.Rand
	pool    *Pool
	board   *fakeBoard
	oracle  *rrPeers
	now     time.Time
	trying  []*pair
	serving []*pair
	log     []string
	viaBPF  int
	bounded int // of those, beside an ejected backend
}

func (h *history) pick(s *pair) {
	want := h.oracle.get(s.tried, h.now.Unix())
	var id uint32
	var bpf bool
	if h.board != nil && len(s.tried) <= 1 && s.s.Tried() == 0 && h.r.IntN(2) == 0 {
		id, bpf = h.board.bpf(h.now)
	}
	if bpf {
		h.viaBPF++
		if !h.board.until.IsZero() {
			h.bounded++
		}
		s.b = h.pool.Redeem(&s.s, id, h.now)
	} else {
		s.b = h.pool.Pick(&s.s, h.now)
	}
	s.p = want
	name := func(p *peer) string {
		if p == nil {
			return "nobody"
		}
		return p.addr.String()
	}
	got := "nobody"
	if s.b != nil {
		got = s.b.Addr.String()
	}
	h.log = append(h.log, fmt.Sprintf("%s pick %s (bpf %v)", h.now.Sub(t0), got, bpf))
	if got != name(want) {
		h.t.Fatalf("picked %s, nginx picks %s\n%v", got, name(want), h.log[max(0, len(h.log)-30):])
	}
	if s.b != nil {
		h.trying = append(h.trying, s)
	}
}

func (h *history) remove(from *[]*pair) *pair {
	i := h.r.IntN(len(*from))
	s := (*from)[i]
	*from = append((*from)[:i], (*from)[i+1:]...)
	return s
}

func (h *history) step(failOdds int) {
	switch x := h.r.IntN(20); {
	case x < 9 || len(h.trying)+len(h.serving) == 0:
		h.pick(&pair{tried: map[*peer]bool{}})
	case x < 14 && len(h.trying) > 0:
		s := h.remove(&h.trying)
		if h.r.IntN(100) < failOdds {
			h.log = append(h.log, "failed "+s.b.Addr.String())
			h.pool.Failed(s.b, "refused", h.now)
			h.oracle.failed(s.p, h.now.Unix())
			h.pick(s)
			return
		}
		h.log = append(h.log, "connected "+s.b.Addr.String())
		h.pool.Connected(s.b, 0, h.now)
		h.oracle.connected(s.p)
		h.serving = append(h.serving, s)
	case x < 17 && len(h.serving) > 0:
		s := h.remove(&h.serving)
		h.pool.Release(s.b, h.now)
		s.p.conns--
	case x == 17:
		h.now = h.now.Add(time.Duration(h.r.IntN(4)) * time.Second)
	case x == 18:
		h.pool.Tick(h.now)
	default:
		h.now = h.now.Add(time.Duration(h.r.IntN(120)) * time.Millisecond)
	}
}

func randomSpecs(r *rand.Rand, limits bool) (specs []Spec) {
	for i := range 1 + r.IntN(6) {
		s := spec(i, 1+r.IntN(9))
		if r.IntN(10) == 0 {
			s.Weight = 1 + r.IntN(65535)
		}
		s.MaxFails = r.IntN(4)
		s.FailTimeout = time.Duration(r.IntN(6)) * time.Second
		s.Backup = i > 0 && r.IntN(4) == 0
		if r.IntN(8) == 0 {
			s.State = config.Down
		}
		if limits && r.IntN(3) == 0 {
			s.MaxConns = 1 + r.IntN(3)
		}
		specs = append(specs, s)
	}
	return specs
}

func TestAgainstNginxModel(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 30
	}
	for _, balance := range []config.Balance{config.RoundRobin, config.LeastConn} {
		for _, withBoard := range []bool{false, true} {
			for _, failOdds := range []int{0, 2, 40} {
				t.Run(fmt.Sprintf("%s/board=%v/fail=%d%%", balance, withBoard, failOdds), func(t *testing.T) {
					t.Parallel()
					viaBPF, bounded := 0, 0
					for seed := range seeds {
						r := rand.New(rand.NewPCG(seed, 7))
						specs := randomSpecs(r, seed%2 == 0)
						h := &history{t: t, r: r, now: t0, oracle: newOracle(specs, balance == config.LeastConn)}
						var board Board
						if withBoard {
							h.board = &fakeBoard{}
							board = h.board
						}
						h.pool, _ = newPool(t, board, Options{Balance: balance}, specs)
						for range 1500 {
							h.step(failOdds)
						}
						viaBPF += h.viaBPF
						bounded += h.bounded
					}
					if expect := withBoard && balance == config.RoundRobin; expect != (viaBPF > 1000) {
						t.Errorf("%d picks came from the board", viaBPF)
					}
					if expect := withBoard && balance == config.RoundRobin && failOdds > 0; expect != (bounded > 100) {
						t.Errorf("%d picks came from a board while somebody was ejected", bounded)
					}
				})
			}
		}
	}
}

// The closed form by which a window moves the weights on equals the picks.
func TestWindowMovesWeightsAsPicksDo(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		specs := randomSpecs(r, false)
		plain, _ := newPool(t, nil, Options{}, specs)
		board := &fakeBoard{}
		windowed, _ := newPool(t, board, Options{}, specs)
		for _, p := range []*Pool{plain, windowed} {
			p.closeWindow()
			for i, b := range p.primary.all {
				b.effectiveWeight = b.weight * int64(i%3) / 2 // some have to climb
				b.effectiveWeight = min(b.effectiveWeight, b.weight)
			}
			p.openWindow(t0)
		}
		n := r.IntN(windowPicks + 1)
		for range n {
			if !board.isOpen() {
				break
			}
			serve(plain, t0)
			board.bpf(t0)
		}
		windowed.closeWindow()
		for i, b := range plain.primary.all {
			w := windowed.primary.all[i]
			if b.currentWeight != w.currentWeight || b.effectiveWeight != w.effectiveWeight {
				t.Fatalf("seed %d after %d picks: backend %d has %d/%d, want %d/%d", seed, n, i,
					w.currentWeight, w.effectiveWeight, b.currentWeight, b.effectiveWeight)
			}
		}
	}
}
