// SPDX-License-Identifier: Apache-2.0

package service

import "sluice/config"

// rung is a datapath of the ladder.
type rung struct {
	path config.Datapath
	// whyNot says why no session of l, whose pool is p, can have it, whoever its
	// clients are; "" if some can.
	whyNot func(l *config.Listener, p *config.Pool) string
}

// ladder lists the datapaths that this version has, best first. The last one
// is always there.
func (s *Service) ladder() []rung {
	return []rung{
		{config.Offload, s.whyNotOffload},
		{config.Splice, s.whyNotSplice},
		{config.Relay, func(*config.Listener, *config.Pool) string { return "" }},
	}
}

// bestFor is the best datapath that sessions of l may get, and why there is no
// better one: of all that can't be had the reason of the lowest. "": it is the best.
func (s *Service) bestFor(l *config.Listener, p *config.Pool) (path config.Datapath, reason string) {
	for _, r := range s.ladder() {
		why := r.whyNot(l, p)
		if why == "" {
			return r.path, reason
		}
		reason = why
	}
	return config.Relay, reason
}

func (s *Service) whyNotSplice(l *config.Listener, p *config.Pool) string {
	switch {
	case l.Datapath == config.Relay:
		return "the file says relay"
	case l.UploadRate > 0 || l.DownloadRate > 0:
		return "the file limits the rate of its sessions"
	case s.splice == nil:
		return s.noSplice
	case onlyUnix(l.Listen, func(a config.Address) string { return a.Path }):
		return "it listens on unix sockets only, which can't enter a sockmap"
	case onlyUnix(p.Backends, func(b config.Backend) string { return b.Address.Path }):
		return "all its backends are unix sockets, which can't enter a sockmap"
	}
	return ""
}

func onlyUnix[T any](list []T, path func(T) string) bool {
	for _, v := range list {
		if path(v) == "" {
			return false
		}
	}
	return true
}
