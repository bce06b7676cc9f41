// SPDX-License-Identifier: Apache-2.0

// Package stats turns counters and live state into JSON, metrics and tables,
// and serves them at the statistics endpoint.
package stats

import (
	"time"

	"sluice/pool"
)

// Source is the running instance, as the statistics endpoint sees it. All three
// are called from several goroutines at once.
type Source interface {
	Snapshot() *Snapshot // current figures, the caller's to keep
	// Flows are the first limit live sessions in this order.
	Flows(limit int, by FlowOrder) []Flow
	Stopping() bool // draining after a signal
}

// Snapshot is the whole state at one moment: /stats as JSON, and what /metrics
// is made of.
type Snapshot struct {
	Version       string          `json:"version"`
	Kernel        string          `json:"kernel"`
	PID           int             `json:"pid"`
	UptimeSeconds float64         `json:"uptime_seconds"`
	Config        ConfigStats     `json:"config"`
	AccessLog     AccessLogStats  `json:"access_log"`
	Listeners     []ListenerStats `json:"listeners"`
	Pools         []PoolStats     `json:"pools"`

	GoVersion      string    `json:"-"`
	Started        time.Time `json:"-"`
	ReloadsOK      uint64    `json:"-"` // since start, the first load not counted
	ReloadsRefused uint64    `json:"-"`

	// Left are listeners that the file has no longer, with sessions left: for their series.
	Left []ListenerStats `json:"-"`

	// What the programs in the kernel did; nil where they aren't loaded.
	Dispatch []OutcomeCount `json:"-"`
	Splice   []OutcomeCount `json:"-"`
	Forward  *ForwardStats  `json:"-"`
}

// ForwardStats is what the program did that forwards sessions packet by packet.
type ForwardStats struct {
	Packets  []OutcomeCount
	Flows    int // records in use: those of live sessions, and of ended ones whose late packets are still sent on
	MaxFlows int
}

// OutcomeCount is how often a program in the kernel did something.
type OutcomeCount struct {
	Outcome string
	Count   uint64
}

// ConfigStats says what configuration is in force and how the last load went.
type ConfigStats struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"`        // the last load was taken over
	Error    string    `json:"error"`     // why not, else ""
	LoadedAt time.Time `json:"loaded_at"` // of the last load that was taken over
}

// AccessLogStats are the access log's counters.
type AccessLogStats struct {
	Lines   uint64 `json:"lines"`   // whole lines written
	Dropped uint64 `json:"dropped"` // lines that couldn't be
}

// ListenerStats are a listener's figures.
type ListenerStats struct {
	Name     string   `json:"name"`
	Listen   []string `json:"listen"`
	Pool     string   `json:"pool"`
	Protocol string   `json:"protocol"`
	Datapath string   `json:"datapath"` // the best rung its sessions may use
	Reason   string   `json:"reason"`   // why it isn't a better one, else ""
	// Fallbacks are sessions for which a better datapath would have paid and
	// couldn't be had, by reason.
	Fallbacks     map[string]uint64 `json:"fallbacks"`
	Active        int64             `json:"active"`
	Total         uint64            `json:"total"`
	BytesReceived uint64            `json:"bytes_received"` // from clients
	BytesSent     uint64            `json:"bytes_sent"`     // to clients
	// Connections are those of clients that are open; nil where they are the sessions.
	Connections *int64 `json:"connections,omitempty"`

	Sessions []SessionCount `json:"-"`
	Calls    *CallStats     `json:"-"` // nil: sessions are connections
}

// PoolStats are a pool's figures.
type PoolStats struct {
	Name     string         `json:"name"`
	Balance  string         `json:"balance"`
	Backends []BackendStats `json:"backends"`
}

// BackendStats are a backend's figures.
type BackendStats struct {
	Address        string  `json:"address"`
	State          string  `json:"state"` // up, ejected, failing, drain, down or removed
	Weight         int     `json:"weight"`
	Backup         bool    `json:"backup"`
	Active         uint64  `json:"active"`
	Total          uint64  `json:"total"`
	Failed         uint64  `json:"failed"`
	BytesReceived  uint64  `json:"bytes_received"`  // from the backend
	BytesSent      uint64  `json:"bytes_sent"`      // to the backend
	ConnectSeconds float64 `json:"connect_seconds"` // sum over the attempts that succeeded

	// ConnectBuckets is cumulative; its bounds are pool.ConnectBounds, Total is +Inf.
	ConnectBuckets []uint64 `json:"-"`
}

// NewPoolStats converts what a pool says of its backends.
func NewPoolStats(name, balance string, backends []pool.BackendStats) PoolStats {
	p := PoolStats{Name: name, Balance: balance, Backends: make([]BackendStats, 0, len(backends))}
	for _, b := range backends {
		p.Backends = append(p.Backends, BackendStats{
			Address:        b.Address,
			State:          b.State,
			Weight:         b.Weight,
			Backup:         b.Backup,
			Active:         b.Active,
			Total:          b.Total,
			Failed:         b.Failed,
			BytesReceived:  b.Received,
			BytesSent:      b.Sent,
			ConnectSeconds: b.ConnectSeconds,
			ConnectBuckets: b.ConnectBuckets,
		})
	}
	return p
}

// Flow is one live session, as /flows shows it.
type Flow struct {
	ID            uint64  `json:"id"`
	Listener      string  `json:"listener"`
	Pool          string  `json:"pool"`
	Backend       string  `json:"backend"` // "" before one was picked
	Client        string  `json:"client"`  // ip:port, or unix:
	Datapath      string  `json:"datapath"`
	Reason        string  `json:"reason"` // why no better datapath; "": none is better
	AgeSeconds    float64 `json:"age_seconds"`
	IdleSeconds   float64 `json:"idle_seconds"`
	BytesReceived uint64  `json:"bytes_received"` // from the client
	BytesSent     uint64  `json:"bytes_sent"`     // to the client
}

// MaxFlows is how many sessions /flows shows at most.
const MaxFlows = 10000

// FlowOrder says which sessions /flows shows first.
type FlowOrder string

// The orders.
const (
	NewestFirst FlowOrder = "new"
	MostBytes   FlowOrder = "bytes" // both directions together
	LongestIdle FlowOrder = "idle"
	OldestFirst FlowOrder = "age"
)

// Valid tells whether it is one of the orders.
func (o FlowOrder) Valid() bool {
	switch o {
	case NewestFirst, MostBytes, LongestIdle, OldestFirst:
		return true
	}
	return false
}
