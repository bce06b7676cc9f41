// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"sluice/config"
)

const (
	lookUpLimit = 5 * time.Second // for all names of a file together
	lookUpAtOne = 16              // look-ups at a time
)

// lookUp finds the addresses of a name.
type lookUp func(ctx context.Context, network, host string) ([]netip.Addr, error)

// answer is what a look-up found.
type answer struct {
	addrs []netip.Addr
	err   error
}

// unresolved are the warnings of backends whose names don't resolve now, and of
// those that resolve to an address that their pool has already, in the order of
// the file.
func unresolved(ctx context.Context, c *config.Config, look lookUp) (all []config.Warning) {
	answers := lookAllUp(ctx, c, look)
	for _, p := range c.Pools {
		have := map[netip.AddrPort]string{}
		for _, b := range p.Backends {
			if a := b.Address; a.Addr.IsValid() {
				have[a.AddrPort()] = a.String()
			}
		}
		for _, b := range p.Backends {
			if b.Address.Name == "" {
				continue
			}
			warn := func(format string, args ...any) {
				all = append(all, config.Warning{File: c.File, Line: b.Pos.Line, Column: b.Pos.Column, Msg: fmt.Sprintf(format, args...)})
			}
			found := answers[b.Address.Name]
			switch {
			case found.err != nil:
				warn("%s doesn't resolve now: %s; its backend is down until it does", b.Address.Name, short(found.err))
			case len(found.addrs) == 0:
				warn("%s resolves to no address; its backend is down until it does", b.Address.Name)
			}
			for _, ip := range found.addrs {
				at := netip.AddrPortFrom(ip.Unmap(), b.Address.Port)
				if before, twice := have[at]; twice {
					warn("%s resolves to %s, which is %s of this pool, too", b.Address.Name, ip.Unmap(), before)
				}
				have[at] = b.Address.String()
			}
		}
	}
	return all
}

// lookAllUp looks up each name of the file once.
func lookAllUp(ctx context.Context, c *config.Config, look lookUp) map[string]answer {
	ctx, cancel := context.WithTimeout(ctx, lookUpLimit)
	defer cancel()
	answers := map[string]answer{}
	for _, p := range c.Pools {
		for _, b := range p.Backends {
			if b.Address.Name != "" {
				answers[b.Address.Name] = answer{}
			}
		}
	}
	var names []string
	for name := range answers {
		names = append(names, name)
	}
	turns := make(chan struct{}, lookUpAtOne)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range names {
		turns <- struct{}{}
		wg.Go(func() {
			addrs, err := look(ctx, "ip", name)
			mu.Lock()
			answers[name] = answer{addrs, err}
			mu.Unlock()
			<-turns
		})
	}
	wg.Wait()
	return answers
}

// short is why a look-up failed, without the name and the server.
func short(err error) string {
	var d *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &d) && d.IsNotFound:
		return "no such host"
	case errors.As(err, &d) && d.IsTimeout:
		return "no answer in time"
	case errors.As(err, &d):
		return d.Err
	}
	return err.Error()
}
