// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"

	"sluice/config"
	"sluice/pool"
)

// specs are a pool's backends as the file says, names replaced by the
// addresses they have now. A name without one is a backend that is down. If
// two give the same address, pool.Apply goes by the first.
func specs(p *config.Pool, lookup func(host string) []netip.Addr) []pool.Spec {
	out := make([]pool.Spec, 0, len(p.Backends))
	for _, b := range p.Backends {
		s := pool.Spec{
			Weight: b.Weight, MaxFails: b.MaxFails, FailTimeout: b.FailTimeout,
			MaxConns: b.MaxConns, Backup: b.Backup, State: b.State, SlowStart: b.SlowStart,
		}
		switch {
		case b.Address.Path != "":
			s.Addr.Unix = b.Address.Path
			out = append(out, s)
		case b.Address.Name == "":
			s.Addr.AddrPort = b.Address.AddrPort()
			out = append(out, s)
		default:
			ips := lookup(b.Address.Name)
			for _, ip := range ips {
				s.Addr.AddrPort = netip.AddrPortFrom(ip, b.Address.Port)
				out = append(out, s)
			}
			if len(ips) == 0 {
				s.Addr.Name = b.Address.String()
				s.State = config.Down
				out = append(out, s)
			}
		}
	}
	return out
}

func poolOptions(p *config.Pool) pool.Options {
	return pool.Options{Balance: p.Balance, TryEjected: p.TryEjected, CloseOnRemove: p.CloseOnRemove}
}

// hosts are the names in a configuration, each once.
func hosts(c *config.Config) []string {
	var out []string
	seen := map[string]bool{}
	for _, p := range c.Pools {
		for _, b := range p.Backends {
			if n := b.Address.Name; n != "" && !seen[n] {
				seen[n] = true
				out = append(out, n)
			}
		}
	}
	return out
}
