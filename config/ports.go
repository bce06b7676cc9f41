// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxRange is how many ports a range may have: each is a listening socket on
// each event loop.
const MaxRange = 1024

const listenForms = "ip:port, [ip6]:port, :port or unix:/path"

// ParseFronts reads what a listener listens on: what ParseListen reads, or a
// range of ports, first-last in place of the port, as an address for each.
func ParseFronts(s string) ([]Address, error) {
	colon := strings.LastIndexByte(s, ':')
	from, to, ranged := strings.Cut(s[colon+1:], "-")
	if strings.HasPrefix(s, "unix:") || colon < 0 || !ranged {
		a, err := ParseListen(s)
		return []Address{a}, err
	}
	a, err := ParseListen(s[:colon+1] + from)
	if err != nil {
		return nil, err
	}
	last, err := parsePort(to)
	switch {
	case err != nil:
		return nil, err
	case last < a.Port:
		return nil, fmt.Errorf("a range from %d down to %d, must be first-last", a.Port, last)
	case last-a.Port >= MaxRange:
		return nil, fmt.Errorf("a range of %d ports, must have %d at most", int(last-a.Port)+1, MaxRange)
	}
	all := make([]Address, 0, int(last-a.Port)+1)
	for port := int(a.Port); port <= int(last); port++ {
		a.Port = uint16(port)
		all = append(all, a)
	}
	return all, nil
}

// Fronts are the listener's addresses as the file writes them, a port range as
// one: a listener of a thousand ports is a word in statistics and logs.
func (l *Listener) Fronts() []string {
	var all []string
	for i := 0; i < len(l.Listen); {
		first, n := l.Listen[i], 1
		for i+n < len(l.Listen) && l.continues(i+n) {
			n++
		}
		s := first.String()
		if n > 1 {
			s += "-" + strconv.Itoa(int(l.Listen[i+n-1].Port))
		}
		all = append(all, s)
		i += n
	}
	return all
}

// continues tells whether address i comes of the same range as the one before.
func (l *Listener) continues(i int) bool {
	if len(l.ListenPos) != len(l.Listen) || l.ListenPos[i] != l.ListenPos[i-1] {
		return false
	}
	next := l.Listen[i-1]
	next.Port++
	return next.Path == "" && next.Port != 0 && l.Listen[i] == next
}
