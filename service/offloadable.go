// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"

	"sluice/config"
)

// wantsOffload says whether sessions of a listener may be forwarded, as far as the file
// decides.
func wantsOffload(c *config.Config) bool {
	pools := map[string]*config.Pool{}
	for _, p := range c.Pools {
		pools[p.Name] = p
	}
	for _, l := range c.Listeners {
		if c.Forward.MaxFlows > 0 && forbidsOffload(l, pools[l.Pool]) == "" {
			return true
		}
	}
	return false
}

// forbidsOffload is why the file lets no session of l, whose pool is p, be forwarded;
// "": it lets some.
func forbidsOffload(l *config.Listener, p *config.Pool) string {
	if why := forbidsFronts(l); why != "" {
		return why
	}
	why := ""
	for _, b := range p.Backends {
		switch {
		case b.Address.Path != "":
			why = "all its backends are unix sockets, whose bytes are in no packets"
		case b.Address.Addr.IsLoopback():
			why = "all its backends are on this host, so that their bytes pass no device"
		case b.Address.Addr.IsValid() && familyOf(b.Address.Addr, tcpFronts(l)) != "":
			why = "its clients come by one IP version and all its backends have the other"
		default:
			return ""
		}
	}
	return why
}

// forbidsFronts is as forbidsOffload, whatever the backends are.
func forbidsFronts(l *config.Listener) string {
	switch {
	case l.Datapath == config.Relay || l.Datapath == config.Splice:
		return "the file says " + string(l.Datapath)
	case l.UploadRate > 0 || l.DownloadRate > 0:
		return "the file limits the rate of its sessions"
	}
	fronts := tcpFronts(l)
	if len(fronts) == 0 {
		return "it listens on unix sockets only, whose bytes are in no packets"
	}
	for _, a := range fronts {
		if !a.Addr.IsLoopback() {
			return ""
		}
	}
	return "only clients on this host reach it, whose bytes pass no device"
}

// tcpFronts are the addresses of l that packets come to.
func tcpFronts(l *config.Listener) (fronts []config.Address) {
	for _, a := range l.Listen {
		if a.Path == "" {
			fronts = append(fronts, a)
		}
	}
	return fronts
}

// familyOf is why no client can come by the family of a backend's address; empty: one
// can.
func familyOf(a netip.Addr, fronts []config.Address) string {
	for _, f := range fronts {
		if f.Any || f.Addr.Is4() == a.Unmap().Is4() {
			return ""
		}
	}
	return "its clients come by the other IP version"
}
