// SPDX-License-Identifier: Apache-2.0

// Package service runs a sluice: it starts everything in order, takes edits of
// the file over while sessions run, obeys signals, and gives up privileges.
package service

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/accesslog"
	"sluice/config"
	"sluice/grpc"
	"sluice/internal/rawtcp"
	"sluice/internal/sdnotify"
	"sluice/internal/srcports"
	"sluice/internal/watch"
	"sluice/loader"
	"sluice/pool"
	"sluice/proxy"
	"sluice/session"
	"sluice/stats"
)

// keptBack are descriptors that sessions never get: for reloads, the log and
// the statistics.
const keptBack = 64

// Options say what to run and how it is connected to the outside.
type Options struct {
	ConfigFile string
	LogWriter  zerolog.LevelWriter // sluice's own log; the file's log.level filters it. Nil: nowhere
	Notify     sdnotify.Notifier
	Version    string
	// Unprivileged leaves BPF, the self-test and privileges alone: every
	// session is relayed, and the process stays as it is. For demonstrations
	// and tests within another program.
	Unprivileged bool
	// AfterReload, if not nil, is told of each load of the file after the
	// first, on the service's goroutine: nil or why it was refused.
	AfterReload func(error)
	// Resolve looks a host name up; nil: the system's resolver.
	Resolve LookupFunc
}

// Service is one running sluice. New makes it, Run runs it once.
type Service struct {
	opts    Options
	log     zerolog.Logger
	level   *levelWriter
	queue   *logQueue
	events  *eventLog
	started time.Time
	kernel  string

	// These belong to Run's goroutine once it has started.
	watch       *watch.Watcher
	sessions    *session.Registry
	engine      *proxy.Engine // binds the fronts
	calls       *grpc.Engine  // carries what comes of listeners of protocol grpc
	carriers    carriers      // these two
	fds         int           // descriptors for sessions and listening sockets
	sockets     int           // listening sockets of an address
	dispatch    *loader.Dispatch
	splice      *loader.Splice
	accessLog   *accesslog.Log
	stats       *statsServer
	names       *names
	loops       int              // event_loops at start
	closing     []*front         // serving their accept queues
	left        []*listenerEntry // removed, and with series until their last session has ended
	cuts        *time.Timer      // when sessions of removed backends are to be cut
	noDispatch  string           // why there is none
	noSplice    string
	offload     *offload         // nil: there is none
	raw         *rawtcp.Sender   // nil: no session can be forwarded
	portRanges  []srcports.Range // that forwarded sessions are dialled from
	forwardConf config.Forward   // as it was at start
	noOffload   string           // why there is none
	pin         *loader.Pin      // where flows outlive the process; nil: they don't
	adopted     bool             // what a process before has left is taken over

	// offloadMu keeps offload from being closed while statistics read it. Only Run's
	// goroutine changes it.
	offloadMu sync.RWMutex

	// mu guards what the statistics read too. Only Run's goroutine writes it.
	mu        sync.Mutex
	cfg       *config.Config
	pools     map[string]*poolEntry
	gone      []*poolEntry                // removed, with live sessions
	removed   map[*pool.Backend]time.Time // since when, while they have sessions
	listeners map[string]*listenerEntry
	fronts    map[config.Address]*front
	view      *view
	conf      stats.ConfigStats
	reloads   struct{ ok, refused uint64 }

	stopping atomic.Bool
	ready    chan struct{} // closed once all ports are served
}

// poolEntry is a pool and its window.
type poolEntry struct {
	pool  *pool.Pool
	board *loader.Board // nil: its picks are made at accept
	onRemove
}

// listenerEntry is what lives as long as a listener's name.
type listenerEntry struct {
	cfg      *config.Listener
	settings *session.Settings // of one of its fronts
	counters *stats.Listener
	limits   *session.Limits
	datapath config.Datapath
	reason   string
	told     string // what its last line in the log said
	leftAt   time.Time
}

// New prepares a service; nothing is opened before Run.
func New(o Options) *Service {
	queue := newLogQueue(o.LogWriter)
	w := &levelWriter{out: queue}
	w.set(zerolog.InfoLevel)
	log := zerolog.New(w).With().Timestamp().Logger()
	if o.LogWriter == nil {
		log = zerolog.Nop()
	}
	return &Service{
		opts: o, log: log, level: w, queue: queue, events: newEventLog(log), started: time.Now(), kernel: Kernel(),
		pools: map[string]*poolEntry{}, listeners: map[string]*listenerEntry{}, fronts: map[config.Address]*front{},
		removed: map[*pool.Backend]time.Time{}, cuts: time.NewTimer(time.Hour),
		conf: stats.ConfigStats{File: o.ConfigFile}, ready: make(chan struct{}),
	}
}

// Ready is closed once all ports are bound and served. If Run fails it never is.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Kernel is the release of the running kernel.
func Kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Version is the version that the build recorded, with the revision if there
// is no tag.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version != "" && version != "(devel)" {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// GoVersion is what the binary was built with.
func GoVersion() string { return runtime.Version() }

func pid() int { return os.Getpid() }
