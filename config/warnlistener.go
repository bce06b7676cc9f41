// SPDX-License-Identifier: Apache-2.0

package config

import "net/netip"

// listeners looks at each listener.
func (w *warner) listeners() {
	for i, l := range w.c.Listeners {
		n := w.root.value("listeners").item(i)
		w.limits(l, n)
		w.datapath(l, n)
		w.access(l, n)
		if at := n.get("access_log"); at != nil && l.AccessLog == LogNonempty && w.c.AccessLog == nil {
			w.warn(at.value.pos, "access_log of listener %s changes nothing, as the file has no access_log at its top level", quote(l.Name))
		}
	}
}

// limits looks at limits and times that never decide anything.
func (w *warner) limits(l *Listener, n *node) {
	if l.MaxConns > 0 && l.MaxConnsPerIP >= l.MaxConns {
		w.warn(n.value("max_conns_per_ip").pos, "max_conns_per_ip is never reached: max_conns is %d", l.MaxConns)
	}
	if l.IdleTimeout == 0 && l.MaxConns+l.MaxConnsPerIP > 0 && l.Keepalive == 0 && l.DeadPeer == 0 && l.MaxAge == 0 {
		w.warn(n.value("idle_timeout").pos, "with idle_timeout: 0 a client that has vanished keeps its place among max_conns or max_conns_per_ip for ever; keepalive finds it out")
	}
	if l.IdleTimeout > 0 && l.Keepalive >= l.IdleTimeout {
		w.warn(n.value("keepalive").pos, "keepalive never probes: idle_timeout ends a session after %s, before the first probe", short(l.IdleTimeout))
	}
	if l.TryTimeout > 0 && l.TryTimeout <= l.ConnectTimeout && l.Tries != 1 {
		w.warn(n.value("next_upstream", "timeout").pos, "an attempt that times out is the last one: connect_timeout is %s, and no other begins after this", short(l.ConnectTimeout))
	}
}

// datapath looks at a datapath that is asked for and can't be had.
func (w *warner) datapath(l *Listener, n *node) {
	at := n.value("datapath").pos
	switch {
	case l.Datapath != Offload && l.Datapath != Splice:
	case l.UploadRate+l.DownloadRate > 0:
		w.warn(at, "sessions with upload_rate or download_rate are relayed, whatever datapath says")
	case l.Datapath == Offload && w.c.Forward.MaxFlows == 0:
		w.warn(at, "there is no offload with max_flows: 0 of forward")
	}
}

// covers tells whether r names all clients that o names.
func (r Rule) covers(o Rule) bool {
	switch {
	case r.All:
		return true
	case r.Unix || o.All || o.Unix:
		return r.Unix && o.Unix
	}
	return r.Prefix.Addr().Is4() == o.Prefix.Addr().Is4() && r.Prefix.Bits() <= o.Prefix.Bits() && r.Prefix.Contains(o.Prefix.Addr())
}

// everybody tells whether rules name all clients.
func everybody(rules []Rule) bool {
	v4, v6 := false, false
	for _, r := range rules {
		v4 = v4 || r.All || r.Prefix == netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		v6 = v6 || r.All || r.Prefix == netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return v4 && v6
}

// maxCompared bounds how many rules of a list are compared with each other.
const maxCompared = 1000

// access looks at rules that hide each other.
func (w *warner) access(l *Listener, n *node) {
	if len(l.Allow) > maxCompared || len(l.Deny) > maxCompared {
		return
	}
	for key, rules := range map[string][]Rule{"allow": l.Allow, "deny": l.Deny} {
		w.hidden(key, rules, n.value(key))
	}
	switch {
	case len(l.Allow) == 0:
		if everybody(l.Deny) {
			w.warn(n.value("deny").pos, "deny refuses everybody, and allow is empty")
		}
		return
	case !l.mayComeBy(l.Allow):
		w.warn(n.value("allow").pos, "nobody who is in allow can come by the addresses of listener %s, and all others are refused", quote(l.Name))
	}
	if everybody(l.Deny) {
		return // which says what holds for all who aren't in allow
	}
	for i, d := range l.Deny {
		at := n.value("deny").item(i).pos
		inside := false
		for _, a := range l.Allow {
			inside = inside || a.covers(d)
		}
		if inside {
			w.warn(at, "deny %s changes nothing: allow comes first, and accepts all of it", d)
		} else {
			w.warn(at, "deny %s changes nothing: with allow, all who aren't in it are refused anyway", d)
		}
	}
}

// hidden finds rules that another one of the same list covers.
func (w *warner) hidden(key string, rules []Rule, list *node) {
	for i, r := range rules {
		for j, o := range rules {
			if i != j && o.covers(r) && (!r.covers(o) || j < i) {
				w.warn(list.item(i).pos, "%s %s changes nothing: %s at %s covers it", key, r, o, placeOf(list.item(j).pos))
				break
			}
		}
	}
}

// mayComeBy tells whether a client that one of the rules names can connect to
// one of the listener's addresses.
func (l *Listener) mayComeBy(rules []Rule) bool {
	for _, r := range rules {
		for _, a := range l.Listen {
			switch {
			case r.All, r.Unix && a.Path != "":
				return true
			case r.Unix || a.Path != "":
			case a.Any || a.Addr.Is4() == r.Prefix.Addr().Is4():
				return true
			}
		}
	}
	return false
}
