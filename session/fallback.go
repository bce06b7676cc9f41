// SPDX-License-Identifier: Apache-2.0

package session

// Fallback is why a session didn't get, or lost, a better datapath when moving
// to it would have paid.
type Fallback uint8

// The fallbacks.
const (
	NoFallback   Fallback = iota
	MapFull               // as many sessions are spliced as there is room for
	HalfClosed            // its client had sent its FIN already
	MapError              // the kernel refused it, or lost bytes of it
	Unix                  // one of its sockets is a unix one
	Rate                  // the file limits the rate of its sessions
	LocalClient           // its client's packets never pass a device
	LocalBackend          // likewise
	Device                // packets come by a device that isn't hooked, or go by another
	Xfrm                  // a policy of IPsec applies
	Timestamps            // one of its connections has them
	ECN                   // likewise
	MSS                   // one side may send segments that the other can't take
	WindowScale           // a window of one side can't be said in the other's unit
	TableFull             // as many sessions are forwarded as there is room for
	NoPorts               // no port of our own was free toward its backend
	Busy                  // there was no moment with nothing under way
	Order                 // its sockets' numbers don't add up
)

// String is the word for it in metrics and statistics, "" for none.
func (f Fallback) String() string {
	words := [...]string{
		"", "map_full", "half_closed", "map_error", "unix", "rate", "local_client", "local_backend", "device", "xfrm",
		"timestamps", "ecn", "mss", "wscale", "table_full", "ports", "busy", "order",
	}
	if int(f) < len(words) {
		return words[f]
	}
	return ""
}

// Fell says that the session has fallen back. The first time is counted.
func (s *Session) Fell(why Fallback) {
	if s.fell == NoFallback {
		s.fell = why
		s.Settings.Counters.Fallback(why.String())
	}
}
