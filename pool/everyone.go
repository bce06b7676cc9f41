// SPDX-License-Identifier: Apache-2.0

package pool

// Everyone gives a session every backend that the file wants sessions on, in the
// file's order and counted active there: ejected, failing, full and backup ones
// included. The order of picks doesn't notice. Each is given back by exactly one
// Failed or Release. Empty: there is none, and NoLive has been told.
func (p *Pool) Everyone() (all []*Backend) {
	p.mu.Lock()
	at := make(map[Addr]*Backend, len(p.byID))
	for _, b := range p.byID {
		at[b.Addr] = b
	}
	for _, s := range p.specs {
		b := at[s.Addr]
		if b == nil || !b.up || b.removed && !p.retired {
			continue
		}
		if b.conns++; b.conns == 1 && b.removed {
			p.aside = append(p.aside, b)
		}
		all = append(all, b)
	}
	p.mu.Unlock()
	if len(all) == 0 {
		p.tell([]Event{{Kind: NoLive, Pool: p.name}})
	}
	return all
}
