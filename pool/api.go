// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"sluice/config"
)

// Options are a pool's settings beside its backends.
type Options struct {
	Balance       config.Balance // empty: round robin
	TryEjected    bool           // all_ejected: try
	CloseOnRemove bool           // on_remove: close; the pool only remembers it
}

// Spec is what the file says of one backend.
type Spec struct {
	Addr        Addr
	Weight      int // below 1 counts as 1
	MaxFails    int // 0: never ejected
	FailTimeout time.Duration
	MaxConns    int // 0: no limit
	Backup      bool
	State       config.State  // empty: up
	SlowStart   time.Duration // how long it climbs to its share when it comes (back); 0: it has it at once
}

// EventKind says what happened to a backend or a pool.
type EventKind int

// The kinds of events.
const (
	Ejected EventKind = iota // a backend has just had max_fails failures
	Back                     // an ejected backend is in again
	NoLive                   // nobody could be picked; Backend is empty
	Failure                  // an attempt failed at a backend that is never ejected
)

// String is the event as the log words it.
func (k EventKind) String() string {
	switch k {
	case Ejected:
		return "backend ejected"
	case Back:
		return "backend back"
	case Failure:
		return "attempt failed"
	}
	return "no live backend"
}

// Event is told to the function given to New. A backend that stays ejected
// because its probes fail is told once; NoLive is told for each pick in vain,
// Failure for each attempt.
type Event struct {
	Kind    EventKind
	Pool    string
	Backend string // its address
	Why     string // of Ejected and Failure: how the last attempt failed
}

// Pool is a named group of backends with one balancing rule. All methods may
// be called from any goroutine.
type Pool struct {
	name    string
	onEvent func(Event)

	newTable func([]tableEntry) *maglev // newMaglev, but in tests

	mu       sync.Mutex
	opts     Options
	specs    []Spec
	primary  list
	backup   list
	byID     map[uint32]*Backend // current backends
	aside    []*Backend          // removed, with live sessions, oldest first
	retired  bool                // all are removed, and picked all the same
	tries    int
	single   bool // one primary and no backup: nginx never ejects it
	stamp    uint64
	left     uint64 // sessions and attempts that were given back
	win      window
	random   func(n int64) int64 // in [0, n)
	start    time.Time           // of the whole-second clock
	hasStart bool
}

// list is the primaries or the backups, in the order of the file.
type list struct {
	all    []*Backend
	ranges []weightRange // of those that are up, for random_two
	total  int64         // their weights
	slow   []*Backend    // those in slow start
	table  *maglev       // nil unless balance is hash
	member []*Backend    // what the table's numbers mean
}

// New makes an empty pool. board is nil where no dispatch program shares the
// order; the pool doesn't own it. onEvent may be nil and is called without the
// pool's lock.
func New(name string, board Board, onEvent func(Event)) *Pool {
	return &Pool{
		name:    name,
		onEvent: onEvent,
		byID:    map[uint32]*Backend{},
		win:     window{board: board},
		random:  rand.Int64N,

		newTable: newMaglev,
	}
}

// Name is the pool's name in the file.
func (p *Pool) Name() string { return p.name }

// Options are those of the last Commit.
func (p *Pool) Options() Options {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opts
}

// Tries is how many attempts a session may make where the file sets no limit:
// as in nginx, the number of backends that are not down, backups included.
func (p *Pool) Tries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tries
}

// Backends lists the current backends, primaries and then backups in the order
// of the file, then removed ones that still have sessions.
func (p *Pool) Backends() []*Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired {
		return append([]*Backend(nil), p.aside...)
	}
	out := make([]*Backend, 0, len(p.primary.all)+len(p.backup.all)+len(p.aside))
	out = append(out, p.primary.all...)
	out = append(out, p.backup.all...)
	return append(out, p.aside...)
}

// Tick is housekeeping, about once a second while there are sessions: it
// reopens the window once the pool is steady again. A window's end isn't its
// business: the board and each pick keep to it by themselves.
func (p *Pool) Tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reopen(now)
}

// Close closes the board's window for good. Sessions that are still connecting
// may go on picking.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeWindow()
	p.win.board = nil
}

// seconds is nginx's clock, whole seconds since 1970, except that a step of
// the wall clock doesn't shorten or prolong an ejection.
func (p *Pool) seconds(now time.Time) int64 {
	if !p.hasStart {
		p.start, p.hasStart = now, true
	}
	since := now.Sub(p.start) + time.Duration(p.start.Nanosecond())
	sec := int64(since / time.Second)
	if since < 0 && since%time.Second != 0 {
		sec-- // round down, also before the start
	}
	return p.start.Unix() + sec
}

// begins is when the clock of seconds comes to sec, the zero time for never: a
// backend can be out for longer than a time.Duration holds.
func (p *Pool) begins(sec int64) time.Time {
	left := sec - p.start.Unix()
	if sec == math.MaxInt64 || left > math.MaxInt64/int64(time.Second) {
		return time.Time{}
	}
	return p.start.Add(time.Duration(left)*time.Second - time.Duration(p.start.Nanosecond()))
}

func (p *Pool) tell(events []Event) {
	if p.onEvent == nil {
		return
	}
	for _, e := range events {
		p.onEvent(e)
	}
}
