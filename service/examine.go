// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/loader"
	"sluice/proxy"
	"sluice/stats"
)

// examination is what doctor has found out about a file so far.
type examination struct {
	c        *config.Config
	running  *running
	engine   *proxy.Engine
	resolved map[string][]netip.Addr
	findings []loader.Finding
}

// Examine tries what c, read from file, would need of the host, and undoes it:
// it binds the addresses, opens the access log if it is there already, looks at forward.pin, resolves
// the names (nil: by the system's resolver), looks for backends that are
// listeners of the same file, and says whose sessions could be offloaded. What a sluice that serves the file already has is
// fine. ok: sluice would start, and some listener has a backend that it could
// connect to.
func Examine(ctx context.Context, c *config.Config, file string, lookup LookupFunc) (findings []loader.Finding, ok bool) {
	engine, err := proxy.New(proxy.Options{Loops: 1, Log: zerolog.Nop()})
	if err != nil {
		return []loader.Finding{{Name: "event loops", Why: err.Error()}}, false
	}
	defer engine.Close()
	x := &examination{c: c, running: findRunning(c, file), engine: engine}
	ok = x.fronts()
	if c.AccessLog != nil {
		ok = x.tell(examineLog(c.AccessLog.Path)) && ok
	}
	if !c.Stats.Off {
		ok = (x.tell(x.stats()) || !c.Stats.Explicit) && ok
	}
	if c.Forward.Pin != "" {
		ok = x.tell(x.pin()) && ok
	}
	x.names(ctx, lookup)
	ok = x.backends() && ok
	x.offload()
	return x.findings, ok
}

// tell adds a finding and says whether it is a good one.
func (x *examination) tell(f loader.Finding) bool {
	x.findings = append(x.findings, f)
	return f.OK
}

// fronts tries the listen addresses. Neighbours of one range that fare alike
// are one finding.
func (x *examination) fronts() (ok bool) {
	ok = true
	for _, l := range x.c.Listeners {
		for i := 0; i < len(l.Listen); {
			first := i
			f := x.front(l, l.Listen[i])
			for i++; i < len(l.Listen) && l.ListenPos[i] == l.ListenPos[first]; i++ {
				if next := x.front(l, l.Listen[i]); next != f {
					break
				}
			}
			f.Name = fmt.Sprintf("listener %s, %s", l.Name, l.Listen[first])
			if i > first+1 {
				f.Name += fmt.Sprintf(" to %s", l.Listen[i-1])
			}
			ok = x.tell(f) && ok
		}
	}
	return ok
}

// front is the finding about one address, without a name.
func (x *examination) front(l *config.Listener, a config.Address) loader.Finding {
	front, err := x.engine.Bind(a, l.Backlog, l.Keepalive, false)
	if err == nil {
		front.Close(0)
		return loader.Finding{OK: true, Why: "can be bound"}
	}
	pid, own := x.running.holder(a)
	if own {
		return held(pid)
	}
	f := loader.Finding{Why: reason(err), Fix: bindFix(err)}
	if pid > 0 && errors.Is(err, unix.EADDRINUSE) {
		f.Fix = "stop " + nameOf(pid) + ", or choose another address"
	}
	return f
}

// reason leaves the address out, which the finding's name has.
func reason(err error) string {
	_, why, found := strings.Cut(err.Error(), ": ")
	if strings.HasPrefix(err.Error(), "listen ") && found {
		return why
	}
	return err.Error()
}

func held(pid int) loader.Finding {
	return loader.Finding{OK: true, Why: fmt.Sprintf("held by the running sluice, pid %d, which serves this file", pid)}
}

func bindFix(err error) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return "stop who has it (`ss -lntp` tells, as root), or choose another address"
	case errors.Is(err, unix.EACCES):
		return "run as root or grant CAP_NET_BIND_SERVICE, or choose a port above 1023"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "give the host this address, or listen on one that it has"
	}
	return ""
}

// stats tries the endpoint's address.
func (x *examination) stats() loader.Finding {
	name := "stats " + x.c.Stats.Address.String()
	srv, err := stats.NewServer(x.c.Stats.Address, New(Options{}), zerolog.Nop())
	if err == nil {
		srv.Close()
		return loader.Finding{Name: name, OK: true, Why: "can be bound"}
	}
	pid, own := x.running.pid, x.running.pid > 0 // it answered there
	if !own {
		pid, own = x.running.holder(x.c.Stats.Address)
	}
	if own {
		f := held(pid)
		f.Name = name
		return f
	}
	f := loader.Finding{Name: name, Why: err.Error(), Fix: "choose another address as stats, or off"}
	if pid > 0 {
		f.Why += " (" + nameOf(pid) + " has it)"
	}
	if !x.c.Stats.Explicit {
		f.Why += " (it is only the default: sluice would run without)"
	}
	return f
}

// names resolves those of the file.
func (x *examination) names(ctx context.Context, lookup LookupFunc) {
	if lookup == nil {
		lookup = systemLookup
	}
	list := hosts(x.c)
	addrs, errs := make([][]netip.Addr, len(list)), make([]error, len(list))
	var wg sync.WaitGroup
	slots := make(chan struct{}, resolveAtOne)
	for i, name := range list {
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, resolveLimit)
			defer cancel()
			addrs[i], errs[i] = lookup(ctx, name)
		}()
	}
	wg.Wait()
	x.resolved = map[string][]netip.Addr{}
	for i, name := range list {
		f := loader.Finding{Name: "name " + name}
		switch got := steady(addrs[i]); {
		case errs[i] != nil:
			f.Why = errs[i].Error()
		case len(got) == 0:
			f.Why = errNoAddress.Error()
		default:
			x.resolved[name] = got
			f.OK, f.Why = true, "is "+joined(got)
		}
		if !f.OK {
			f.Why += ": its backends are down until it resolves"
			f.Fix = "correct the name, or have the host's resolver know it (`getent ahosts " + name + "` asks it)"
		}
		x.tell(f)
	}
}

func joined(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// backends looks for those that lead back to a listener: a loop, in which each
// session makes another until the descriptors are gone. It says whether some
// listener has a backend that isn't one, and whose name, if any, resolves.
func (x *examination) backends() (usable bool) {
	own, err := hostAddresses()
	if err != nil {
		x.tell(loader.Finding{Name: "addresses of this host", Why: err.Error() + ": whether a backend is one of the listeners can't be told"})
	}
	ports := byPort(x.c)
	for _, p := range x.c.Pools {
		var fronts []config.Address
		for _, l := range x.c.Listeners {
			if l.Pool == p.Name {
				fronts = append(fronts, l.Listen...)
			}
		}
		for _, b := range p.Backends {
			list := targets(b, fronts, x.resolved)
			loop := x.loop(own, p, b, list, ports)
			usable = usable || !loop && len(fronts) > 0 && (len(list) > 0 || b.Address.Path != "")
		}
	}
	return usable
}

func (x *examination) loop(own ownAddresses, p *config.Pool, b config.Backend, list []netip.AddrPort, ports map[uint16][]fronted) bool {
	for _, t := range list {
		for _, front := range ports[t.Port()] {
			if !own.reaches(t, front.Address) {
				continue
			}
			f := loader.Finding{Name: fmt.Sprintf("pool %s, backend %s", p.Name, b.Address)}
			f.Why = fmt.Sprintf("it is listener %s, %s, of this file: its sessions would come back to sluice until the descriptors are used up", front.listener, front)
			if b.Address.Name != "" {
				f.Why = fmt.Sprintf("its address %s is listener %s, %s, of this file: its sessions would come back to sluice until the descriptors are used up",
					t, front.listener, front)
			}
			f.Fix = "write the address and port that the server itself listens on"
			x.tell(f)
			return true
		}
	}
	return false
}
