// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Rule is an entry of allow or deny: All, or Unix, or the clients of a Prefix.
type Rule struct {
	Prefix netip.Prefix
	All    bool // every client, also of a unix socket
	Unix   bool // clients of a unix socket
}

const ruleForms = "a CIDR such as 10.0.0.0/8 or 2001:db8::/32, an address, all or unix"

// Matches tells whether the rule names this client. A client of a unix socket
// has no address: netip.Addr{}. A v4-mapped address must come unmapped.
func (r Rule) Matches(client netip.Addr) bool {
	switch {
	case r.All:
		return true
	case r.Unix:
		return !client.IsValid()
	}
	return r.Prefix.Contains(client)
}

// String is the rule as the file writes it.
func (r Rule) String() string {
	switch {
	case r.All:
		return "all"
	case r.Unix:
		return "unix"
	}
	return r.Prefix.String()
}

// parseRule reads an entry of allow or deny.
func parseRule(s string) (Rule, error) {
	switch s {
	case "all":
		return Rule{All: true}, nil
	case "unix":
		return Rule{Unix: true}, nil
	}
	prefix, err := parsePrefix(s)
	return Rule{Prefix: prefix}, err
}

// parsePrefix reads a CIDR, or a single address as nginx does. Bits beyond the
// mask mean nothing, and v4-mapped ones are IPv4.
func parsePrefix(s string) (netip.Prefix, error) {
	bad := fmt.Errorf("is %s, must be "+ruleForms, quote(s))
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, bad
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, bad
	}
	if addr := prefix.Addr(); addr.Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, bad
		}
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}
