// SPDX-License-Identifier: Apache-2.0

// Package accesslog turns the record of an ended session into one line of a
// file: formats, nginx's variables and ours, the one queue that orders the
// lines, rotation, and what happens when a file takes no more.
package accesslog

import (
	"net/netip"
	"time"
)

// EndReason says who or what ended a session ($end_reason).
type EndReason string

// The reasons, as written in the log.
const (
	ClientClosed  EndReason = "client_closed"
	BackendClosed EndReason = "backend_closed"
	ClientReset   EndReason = "client_reset"
	BackendReset  EndReason = "backend_reset"
	IdleTimeout   EndReason = "idle_timeout"
	MaxAge        EndReason = "max_age"
	DeadPeer      EndReason = "dead_peer"
	CheckFailed   EndReason = "check_failed"
	NoBackend     EndReason = "no_backend"
	ConnectFailed EndReason = "connect_failed"
	Denied        EndReason = "denied"
	Limited       EndReason = "limited"
	BadHeader     EndReason = "bad_header"
	HeaderTimeout EndReason = "header_timeout"
	Removed       EndReason = "removed"
	Shutdown      EndReason = "shutdown"
	Internal      EndReason = "internal"
	Cancelled     EndReason = "cancelled" // of a call: its client has given it up
	Deadline      EndReason = "deadline"  // of a call: its time was over
)

// Peer is an address a session touches: an IP socket or a unix one.
// The zero Peer prints as "-".
type Peer struct {
	AddrPort netip.AddrPort
	Unix     bool   // a unix socket
	Path     string // its path, empty for an unnamed client
}

// Attempt is one try to reach a backend.
type Attempt struct {
	Addr          string // as nginx prints it; a pool's name for "nobody could be picked"
	Connected     bool
	GotByte       bool
	BytesSent     uint64        // to the backend, an outgoing PROXY header included
	BytesReceived uint64        // from the backend
	Connect       time.Duration // from the attempt's start; valid if Connected
	FirstByte     time.Duration // valid if GotByte
	Session       time.Duration // whole attempt
}

// Record is one session at its end; who fills it in may reuse it after Write.
type Record struct {
	ID              uint64 // $connection
	Listener        string
	Pool            string
	Client          Peer           // $remote_addr, $remote_port
	Server          Peer           // $server_addr, $server_port: the local end of the client's connection
	ProxyAddr       netip.AddrPort // from an accepted PROXY header; zero: none
	Start           time.Time
	End             time.Time // when its last byte or packet came; zero: when its line is written
	Status          int
	Reason          EndReason
	Datapath        string // "nat", "splice", "relay", "grpc"; "" (printed "-") if no backend was reached
	BytesReceived   uint64 // from the client
	BytesSent       uint64 // to the client
	BytesSpliced    uint64 // of both directions, moved by the kernel
	Attempts        []Attempt
	ClientRTT       time.Duration // <= 0: not measurable
	UpstreamRTT     time.Duration // <= 0: not measurable
	UpstreamRetrans int64         // < 0: not measurable
	RPC             *RPC          // nil: a plain TCP session
}

// RPC is what a record of a gRPC call has beside a session's.
type RPC struct {
	Method string // /package.Service/Method
	Status int    // the gRPC status code; < 0: the call ended without one
}
