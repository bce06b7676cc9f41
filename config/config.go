// SPDX-License-Identifier: Apache-2.0

// Package config turns backends.yaml into a Config: strict decoding, defaults,
// validation with line and column, and the reverse (Dump). It is pure: it
// binds, opens and resolves nothing, and imports nothing else of this module.
package config

import (
	"net/netip"
	"time"
)

// Config is a whole, valid backends.yaml with every default filled in.
type Config struct {
	File         string     // as given by the user
	AccessLog    *AccessLog // nil: no access log
	Stats        Stats
	Log          Log
	DrainTimeout time.Duration
	EventLoops   int // 0: one for each CPU the process may run on
	Forward      Forward
	Pools        []*Pool // in file order; pools written inline in a listener come after, named as the listener
	Listeners    []*Listener
}

// Position is a place in the file, both counted from 1.
type Position struct{ Line, Column int }

// AccessLog says where session lines go and how they look.
type AccessLog struct {
	Path   string // "-" is stdout
	Format string // "proxy", "json" or a template of nginx $variables
	Pos    Position
}

// Stats is where the statistics endpoint listens.
type Stats struct {
	Off      bool
	Address  Address // meaningful unless Off
	Explicit bool    // written in the file, so a failed bind is fatal
	Pos      Position
}

// Log configures sluice's own log.
type Log struct{ Level string } // trace, debug, info, warn, error

// Address is something to listen on or to connect to.
// Exactly one of Path, Name and Addr is set.
type Address struct {
	Addr netip.Addr // a literal address, unmapped; unspecified with Any for ":port" and "[::]:port"
	Any  bool       // the wildcard of both families (":p", "[::]:p")
	Name string     // a host name to resolve (backends only)
	Port uint16     // 0 only in a backend that is Portless
	Path string     // a unix socket
}

// Balance names a pool's rule.
type Balance string

// The balancing rules.
const (
	RoundRobin Balance = "round_robin"
	LeastConn  Balance = "least_conn"
	RandomTwo  Balance = "random_two"
	Hash       Balance = "hash"
)

// State is what the file says of a backend.
type State string

// The states a file can give a backend.
const (
	Up    State = "up"
	Drain State = "drain"
	Down  State = "down"
)

// Pool is a named group of backends with one balancing rule.
type Pool struct {
	Name          string
	Balance       Balance
	TryEjected    bool          // all_ejected: try
	CloseOnRemove bool          // on_remove: close, so at the edit
	CloseAfter    time.Duration // on_remove: a duration, after which what is left is closed. 0: drained for ever, or CloseOnRemove
	Backends      []Backend
	Pos           Position
}

// Backend is one server address in a pool.
type Backend struct {
	Address     Address
	Weight      int
	MaxFails    int
	FailTimeout time.Duration
	MaxConns    int // 0: no limit
	Backup      bool
	State       State
	SlowStart   time.Duration // how long it climbs to its share when it comes (back); 0: it has it at once
	Pos         Position
}

// Datapath is the highest rung a listener's sessions may use.
type Datapath string

// The rungs.
const (
	Auto    Datapath = "auto"
	NAT     Datapath = "nat"
	Offload Datapath = "offload"
	Splice  Datapath = "splice"
	Relay   Datapath = "relay"
	// CallsPath is what calls go by; no file says it.
	CallsPath Datapath = "grpc"
)

// ProxyHeader is what is sent to a backend before the client's bytes.
type ProxyHeader string

// PROXY protocol headers.
const (
	ProxyOff ProxyHeader = "off"
	ProxyV1  ProxyHeader = "v1"
	ProxyV2  ProxyHeader = "v2"
)

// LogMode says which sessions of a listener get a line in the access log.
type LogMode string

// The modes of a listener's access_log.
const (
	LogOn       LogMode = "on"
	LogOff      LogMode = "off"
	LogNonempty LogMode = "nonempty" // none for a session of status 200 without a byte of its client
)

// Wants tells whether a session that ended with status, after its client had
// sent received bytes, gets a line.
func (m LogMode) Wants(status int, received uint64) bool {
	switch m {
	case LogOn:
		return true
	case LogNonempty:
		return status != 200 || received > 0
	}
	return false
}

// Listener is one front, on one address or more.
type Listener struct {
	Name           string
	Listen         []Address  // a port range is an address for each of its ports
	ListenPos      []Position // one for each of Listen; those of a range are equal
	Pool           string     // always set: an inline pool has the listener's name
	Datapath       Datapath
	ConnectTimeout time.Duration
	IdleTimeout    time.Duration // 0: none
	Tries          int           // 0: as many as there are backends
	TryTimeout     time.Duration // 0: no limit
	ProxyAccept    bool
	ProxySend      ProxyHeader
	Allow, Deny    []Rule
	MaxConns       int
	MaxConnsPerIP  int
	// Keepalive is the idle time before the first probe; each tenth of it, and
	// 1 s at least, another follows, and three in vain end the session. 0: off.
	Keepalive       time.Duration
	DeadPeer        time.Duration // how long sent bytes may go without an acknowledgement; 0: as long as the kernel tries
	HalfClose       bool          // an end of stream leaves the other direction open
	OnDatapathClose bool          // an edit that forbids a session's datapath, or its client, ends it
	MaxAge          time.Duration // 0: none
	UploadRate      int64         // bytes a second of one session, client to backend; 0: no limit
	DownloadRate    int64         // backend to client
	Backlog         int
	AccessLog       LogMode
	GRPC            *GRPC // nil: protocol tcp
	Pos             Position
}

// Protocol is the word for what the listener balances.
func (l *Listener) Protocol() string {
	if l.GRPC != nil {
		return "grpc"
	}
	return "tcp"
}
