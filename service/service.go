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

	"sluice/config"
	"sluice/internal/sdnotify"
	"sluice/internal/watch"
	"sluice/loader"
	"sluice/pool"
	"sluice/proxy"
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
	events  *eventLog
	started time.Time
	kernel  string

	// These belong to Run's goroutine once it has started.
	watch      *watch.Watcher
	engine     *proxy.Engine
	dispatch   *loader.Dispatch
	splice     *loader.Splice
	accessLog  *stats.AccessLog
	stats      *statsServer
	names      *names
	loops      int // event_loops at start
	lastLoad   time.Time
	closing    []*front
	noDispatch string // why there is none
	noSplice   string

	// mu guards what the statistics read too. Only Run's goroutine writes it.
	mu        sync.Mutex
	cfg       *config.Config
	pools     map[string]*poolEntry
	gone      []*poolEntry // removed, with live sessions
	listeners map[string]*listenerEntry
	fronts    map[config.Address]*front
	conf      stats.ConfigStats
	reloads   struct{ ok, refused uint64 }

	stopping atomic.Bool
	ready    chan struct{} // closed once all ports are served
}

// poolEntry is a pool and its window.
type poolEntry struct {
	pool  *pool.Pool
	board bool
	slot  uint32
	close bool // on_remove: close
}

// listenerEntry is what lives as long as a listener's name.
type listenerEntry struct {
	cfg      *config.Listener
	counters *stats.Listener
	limits   *proxy.Limits
	datapath config.Datapath
	reason   string
}

// front is a listen address that is bound.
type front struct {
	*proxy.Front
	addr       config.Address
	dispatched bool
}

// New prepares a service; nothing is opened before Run.
func New(o Options) *Service {
	w := &levelWriter{out: o.LogWriter}
	w.set(zerolog.InfoLevel)
	log := zerolog.New(w).With().Timestamp().Logger()
	if o.LogWriter == nil {
		log = zerolog.Nop()
	}
	return &Service{
		opts: o, log: log, level: w, events: newEventLog(log), started: time.Now(), kernel: Kernel(),
		pools: map[string]*poolEntry{}, listeners: map[string]*listenerEntry{}, fronts: map[config.Address]*front{},
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
