// SPDX-License-Identifier: Apache-2.0

package pool

// Find gives the backend with this address. One that the file doesn't have is made, as
// one that has been removed from it: sessions of a process before may still be on it,
// and it is shown while they are.
func (p *Pool) Find(a Addr) *Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.byID {
		if b.Addr == a {
			return b
		}
	}
	for _, b := range p.aside {
		if b.Addr == a {
			return b
		}
	}
	b := &Backend{ID: ids.next(), Addr: a, pool: p}
	b.configure(Spec{Addr: a})
	b.removed = true
	return b
}

// Resume counts a session that a process before has brought to the backend. It is no
// pick: the order goes on as if it hadn't been.
func (p *Pool) Resume(b *Backend) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.ordered() && b.spec.MaxConns > 0 {
		p.closeWindow() // which knows nothing of a backend that becomes full
	}
	b.total++
	if b.conns++; b.conns == 1 && b.removed {
		p.aside = append(p.aside, b)
	}
}
