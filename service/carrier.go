// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"

	"sluice/grpc"
	"sluice/pool"
	"sluice/proxy"
	"sluice/session"
	"sluice/stats"
)

// carrier carries sessions: proxy's event loops do,
// and grpc's connections. Where the service has to do
// with all sessions it asks every carrier, and knows none by name.
type carrier interface {
	// Flush brings what moved since the last time into the counters.
	Flush()
	// Flows are the first limit live sessions in this order.
	Flows(limit int, by stats.FlowOrder) []session.Flow
	// Cut resets the sessions of these backends (200, removed). They are reset
	// when it returns.
	Cut(gone []*pool.Backend)
	// CutForbidden resets the sessions that these settings, by their listener's
	// name, would not let in, or not on their datapath (200, removed).
	CutForbidden(now map[string]*session.Settings)
	// Drain has those go whose sessions may end and who would stay all the same.
	Drain()
	// ResetAll resets every session (200, shutdown).
	ResetAll()
	// Close ends the carrier; what sessions are left are reset.
	Close() error
}

var (
	_ carrier = (*proxy.Engine)(nil)
	_ carrier = (*grpc.Engine)(nil)
)

// carriers are all that there are.
type carriers []carrier

func (c carriers) Flush() {
	for _, one := range c {
		one.Flush()
	}
}

func (c carriers) Flows(limit int, by stats.FlowOrder) []session.Flow {
	lists := make([][]session.Flow, 0, len(c))
	for _, one := range c {
		lists = append(lists, one.Flows(limit, by))
	}
	return session.FirstFlows(lists, limit, by)
}

func (c carriers) Cut(gone []*pool.Backend) {
	if len(gone) == 0 {
		return
	}
	for _, one := range c {
		one.Cut(gone)
	}
}

func (c carriers) CutForbidden(now map[string]*session.Settings) {
	if len(now) == 0 {
		return
	}
	for _, one := range c {
		one.CutForbidden(now)
	}
}

func (c carriers) Drain() {
	for _, one := range c {
		one.Drain()
	}
}

func (c carriers) ResetAll() {
	for _, one := range c {
		one.ResetAll()
	}
}

func (c carriers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
