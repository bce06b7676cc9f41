// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// maxRules bounds how many rules of access are worked out: each change between
// allow and deny walks over all before it.
const maxRules = 2000

// rule is an nginx `allow` or `deny`: of a prefix, of clients of unix sockets, or of all.
type rule struct {
	allow, all, unix bool
	prefix           netip.Prefix
	text             string
}

// parseRule reads the argument of an allow or deny.
func parseRule(allow bool, s string) (rule, bool) {
	r := rule{allow: allow, text: s}
	switch s {
	case "all":
		r.all = true
		return r, true
	case "unix:":
		r.unix, r.text = true, "unix"
		return r, true
	}
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		r.prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		return r, true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return r, false
	}
	r.prefix = p.Masked()
	return r, true
}

// accepted is who gets in: addresses, and clients of unix sockets.
type accepted struct {
	addrs *netipx.IPSet
	unix  bool
}

func (a accepted) equal(o accepted) bool { return a.unix == o.unix && a.addrs.Equal(o.addrs) }

// inOrder is who gets in where the first rule that matches decides, as in
// nginx; without one, otherwise does.
func inOrder(rules []rule, otherwise bool) (accepted, error) {
	var b netipx.IPSetBuilder
	a := accepted{}
	apply := func(r rule) {
		if r.all || r.unix {
			a.unix = r.allow
		}
		prefixes := []netip.Prefix{r.prefix}
		if r.all {
			prefixes = everything()
		}
		for _, p := range prefixes {
			switch {
			case !p.IsValid():
			case r.allow:
				b.AddPrefix(p)
			default:
				b.RemovePrefix(p)
			}
		}
	}
	apply(rule{all: true, allow: otherwise})
	for _, r := range slices.Backward(rules) {
		apply(r)
	}
	var err error
	a.addrs, err = b.IPSet()
	return a, err
}

func everything() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
}

// sluicesRules are lists for sluice's allow and deny, where allow comes before
// deny and, if there is any, all others are refused, that accept exactly whom
// the rules in order accept: the rules as they are where that is the same, else
// prefixes worked out from them.
func sluicesRules(rules []rule) (allow, deny []string, err error) {
	want, err := inOrder(rules, true)
	if err != nil {
		return nil, nil, err
	}
	var allows, denies []rule
	for _, r := range rules {
		if r.allow {
			allows = append(allows, r)
		} else {
			denies = append(denies, r)
		}
	}
	for _, try := range [][2][]rule{{nil, nil}, {nil, denies}, {allows, nil}} {
		got, err := inOrder(append(slices.Clone(try[0]), try[1]...), try[0] == nil)
		if err == nil && got.equal(want) {
			return texts(try[0]), texts(try[1]), nil
		}
	}
	everybody, err := inOrder(nil, true)
	if err != nil {
		return nil, nil, err
	}
	var b netipx.IPSetBuilder
	b.AddSet(everybody.addrs)
	b.RemoveSet(want.addrs)
	refused, err := b.IPSet()
	if err != nil {
		return nil, nil, err
	}
	in, out := prefixes(want.addrs, want.unix), prefixes(refused, !want.unix)
	if len(in) > 0 && len(in) <= len(out) {
		return in, nil, nil
	}
	return nil, out, nil
}

func texts(rules []rule) (all []string) {
	for _, r := range rules {
		all = append(all, r.text)
	}
	return all
}

func prefixes(s *netipx.IPSet, unix bool) (all []string) {
	for _, p := range s.Prefixes() {
		all = append(all, p.String())
	}
	if unix {
		all = append(all, "unix")
	}
	return all
}
