// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"

	"sluice/pool"
	"sluice/stats"
)

// Path is the datapath of a session at one moment.
type Path uint8

// The paths.
const (
	Nowhere Path = iota // no backend has it yet
	Relay
	Splice
	Offload
	GRPC // a call of a connection that carries many
)

// String is the path's name, "-" for none.
func (p Path) String() string {
	switch p {
	case Relay:
		return "relay"
	case Splice:
		return "splice"
	case Offload:
		return "offload"
	case GRPC:
		return "grpc"
	}
	return "-"
}

// Flow is a live session at one moment: small values only, so that who carries
// it takes little time over it. Settings, pool and backend are shared, and
// safe to read from anywhere.
type Flow struct {
	ID                   uint64
	FromClient, ToClient uint64 // payload bytes
	Begun, Last          int64  // when it arrived and when a byte last moved, ns
	Path                 Path
	fell                 Fallback

	settings *Settings
	pool     *pool.Pool
	backend  *pool.Backend // nil: none was picked
	client   netip.AddrPort
}

// Flow is the session now. last is when a byte last moved.
func (s *Session) Flow(t Totals, path Path, last int64) Flow {
	if !s.HasBackend() {
		path = Nowhere
	}
	return Flow{
		ID: s.ID, FromClient: t.FromClient, ToClient: t.ToClient, Begun: s.begun, Last: last, Path: path, fell: s.fell,
		settings: s.Settings, pool: s.pool, backend: s.Backend, client: s.Client,
	}
}

// Describe is the flow as /flows shows it, at now.
func (f *Flow) Describe(now int64) stats.Flow {
	out := stats.Flow{
		ID:            f.ID,
		Listener:      f.settings.Config.Name,
		Pool:          f.pool.Name(),
		Client:        "unix:",
		Datapath:      f.Path.String(),
		Reason:        f.reason(),
		AgeSeconds:    nanoseconds(now - f.Begun).Seconds(),
		IdleSeconds:   nanoseconds(now - f.Last).Seconds(),
		BytesReceived: f.FromClient,
		BytesSent:     f.ToClient,
	}
	if f.client.IsValid() {
		out.Client = f.client.String()
	}
	if f.backend != nil {
		out.Backend = f.backend.Addr.String()
	}
	return out
}

// notYet is the reason of a session that may still get a better datapath.
const notYet = "it has not had the traffic that a better datapath pays for"

// reason is why there is no better datapath; "" where none is better.
func (f *Flow) reason() string {
	better := f.settings.OffloadAllowed && f.Path != Offload || f.settings.SpliceAllowed && f.Path == Relay
	switch {
	case f.Path == Nowhere || f.Path == Offload || f.Path == GRPC:
		return ""
	case f.fell != NoFallback:
		return f.fell.String()
	case better:
		return notYet
	}
	return f.settings.Reason
}
