// SPDX-License-Identifier: Apache-2.0

// Package load is the harness's own load generator: a client and an
// echo, source and sink backend on raw epoll, made so that they cost the box
// as little as they can. Each runs as a process of its own.
package load

import (
	"net/netip"
	"time"
)

// The ports of a backend host, one for each kind of service.
const (
	EchoPort   = 9000 // answers each message with itself
	SourcePort = 9001 // sends as fast as it can until the other side half-closes
	SinkPort   = 9002 // swallows; closes at the end of stream
	StallPort  = 9003 // as SourcePort, by way of balancers that aren't tuned for bulk
)

// Kind names what a client does.
type Kind string

// The kinds of load.
const (
	KeepAlive Kind = "keepalive" // Conns connections, each sends its next request when the answer is there
	Paced     Kind = "paced"     // Rate requests a second, spread over Conns connections, sent on schedule
	ConnRate  Kind = "connrate"  // connections of Messages requests each; Conns at a time; the client closes
	BulkDown  Kind = "bulkdown"  // Conns streams from the backend to the client
	BulkUp    Kind = "bulkup"    // Conns streams from the client to the backend
	Hold      Kind = "hold"      // opens Steps connections in turn, Messages times a byte each way, and holds them
	Stall     Kind = "stall"     // Steps connections to a source, Gap apart, that are never read
)

// Spec is one run of the client.
type Spec struct {
	Kind    Kind
	Targets []netip.AddrPort // used in turn
	Sources []netip.Addr     // client addresses, used in turn; empty: the kernel's choice
	Conns   int
	Workers int           // threads
	Size    int           // bytes of a message
	Rate    float64       // events a second for Paced, and for ConnRate if not 0
	Warmup  time.Duration // before the window
	Window  time.Duration // that is measured
	Steps   []int         // for Hold and Stall: connections held after each step
	Gap     time.Duration // for Stall: between two of its connections

	Messages int // for ConnRate and Hold: those of a connection, the next once the answer is there; 0: one
}

// Event is what a client writes on its standard output, a line of JSON each.
type Event struct {
	Event  string  // start and end (of the window), step (held Count), result
	Count  int     `json:",omitempty"`
	Result *Result `json:",omitempty"`
}

// Result is what a client saw in its window.
type Result struct {
	Seconds   float64
	Done      uint64 // requests or connections
	Bytes     uint64 // bulk: in the window, at the client
	Total     uint64 // bulk: from the first byte to the last
	Short     int    // bulk: streams that did not end in an orderly way
	Lost      int    // connections that broke
	Missed    int    // paced: events sent late because every connection was busy
	Errors    map[string]int
	Latency   Latency
	ClientCPU float64 // busiest client thread, in cores
	Fatal     string  `json:",omitempty"`
}

// Latency is a summary of a histogram, in microseconds.
type Latency struct {
	P50, P90, P99, P999, Max, Mean float64
}

// BackendStats is the backend's answer to the line "stats".
type BackendStats struct {
	Nanos      int64  // monotonic clock
	SinkBytes  uint64 // received on the sink port
	SourceSent uint64 // sent on the source port
	Accepted   uint64
	Open       int64
	CPU        float64 // seconds of the whole process
}
