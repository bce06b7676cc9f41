// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"sluice/config"
	"sluice/loader"
)

// offload says of each backend whether its sessions could be offloaded, as far as
// routes and devices go now: whether the host can offload at all is loader.Probe's to
// say. Pools no listener of which may offload are left out.
func (x *examination) offload() {
	reach, err := loader.NewReach()
	if err != nil {
		x.tell(loader.Finding{Name: "devices of this host", Why: err.Error() + ": which sessions could be offloaded can't be told"})
		return
	}
	defer reach.Close()
	note := ""
	if any, err := loader.AnyPolicy(); err == nil && any {
		note = "; not what a policy of IPsec applies to, and this host has some"
	}
	for _, p := range x.c.Pools {
		fronts := offloadable(x.c, p.Name)
		if len(fronts) == 0 {
			continue
		}
		for _, b := range p.Backends {
			f := x.offloadTo(reach, b, fronts)
			f.Name = fmt.Sprintf("offload to pool %s, backend %s", p.Name, b.Address)
			if f.OK {
				f.Why += note
			}
			x.tell(f)
		}
	}
}

// pin is the finding about forward.pin.
func (x *examination) pin() loader.Finding {
	f := loader.Finding{Name: "forward.pin " + x.c.Forward.Pin, OK: true, Why: "forwarded sessions outlive the process"}
	err := loader.LookAtPin(x.c.Forward.Pin)
	switch {
	case errors.Is(err, loader.ErrPinned) && x.running.pid > 0:
		f.Why = fmt.Sprintf("held by the running sluice, pid %d, which serves this file", x.running.pid)
	case errors.Is(err, loader.ErrPinned):
		f.OK, f.Why, f.Fix = false, loader.ErrPinned.Error(), "stop it, or name another path"
	case errors.Is(err, fs.ErrPermission):
		f.Why = "can't be looked at without more rights: " + err.Error()
	case err != nil:
		f.OK, f.Why, f.Fix = false, err.Error(), "mount a BPF filesystem, or name a path on one"
	}
	return f
}

// offloadable are the listen addresses by which a pool's sessions come that may be
// offloaded, as far as the file decides.
func offloadable(c *config.Config, pool string) (fronts []config.Address) {
	for _, l := range c.Listeners {
		if l.Pool == pool && c.Forward.MaxFlows > 0 && forbidsFronts(l) == "" {
			fronts = append(fronts, tcpFronts(l)...)
		}
	}
	return fronts
}

const noFix = "none is needed: its sessions are spliced or relayed"

// offloadTo is the finding about one backend, without a name.
func (x *examination) offloadTo(reach *loader.Reach, b config.Backend, fronts []config.Address) loader.Finding {
	if b.Address.Path != "" {
		return loader.Finding{Why: "it is a unix socket, whose bytes are in no packets", Fix: noFix}
	}
	var addrs []netip.Addr
	for _, t := range targets(b, fronts, x.resolved) {
		if !slices.Contains(addrs, t.Addr()) {
			addrs = append(addrs, t.Addr())
		}
	}
	if len(addrs) == 0 {
		return loader.Finding{Why: "unknown: its name doesn't resolve", Fix: "have the host's resolver know it (`getent ahosts " + b.Address.Name + "` asks it)"}
	}
	var by, not []string
	for _, a := range addrs {
		device, why := reach.To(a)
		if why == "" {
			why = familyOf(a, fronts)
		}
		switch {
		case why == "":
			if device = "by " + device; !slices.Contains(by, device) {
				by = append(by, device)
			}
		case len(addrs) > 1:
			not = append(not, a.String()+": "+why)
		default:
			not = append(not, why)
		}
	}
	if len(by) == 0 {
		return loader.Finding{Why: strings.Join(not, "; "), Fix: noFix}
	}
	f := loader.Finding{OK: true, Why: strings.Join(by, ", ")}
	if len(not) > 0 {
		f.Why += "; but not at " + strings.Join(not, "; ")
	}
	return f
}
