// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"slices"
	"strings"

	"sluice/config"
)

// zone is a limit_conn_zone.
type zone struct {
	key     string
	counted []*listener // whose sessions are counted in it
}

func (x *nginx) zone(d *directive) {
	z := &zone{key: d.arg(0)}
	for _, o := range d.args[min(1, len(d.args)):] {
		if name, v := option(o); name == "zone" {
			label, _, _ := strings.Cut(v, ":")
			x.zones[label] = z
			return
		}
	}
	x.lose(d, "has no zone=NAME:SIZE")
}

// limits carries over limit_conn.
func (x *nginx) limits(l *listener, s *scope) {
	if s.on("limit_conn_dry_run") {
		x.lose(s.last("limit_conn_dry_run"), "sluice has no limits that only count, so limit_conn isn't carried over")
		return
	}
	for _, d := range s.all("limit_conn") {
		z := x.zones[d.arg(0)]
		n, ok := count(d.arg(1), 1, 1<<31-1)
		if z == nil || !ok {
			x.lose(d, "is not a limit of a limit_conn_zone of this file")
			continue
		}
		switch key := strings.Trim(z.key, "${}"); key {
		case "binary_remote_addr", "remote_addr", "proxy_protocol_addr":
			l.maxConnsPerIP = least(l.maxConnsPerIP, n)
			z.counted = append(z.counted, l)
			if len(z.counted) > 1 {
				x.lose(d, "the zone counts a client's connections to several servers together, sluice for each listener by itself")
			}
		case "server_port", "server_addr":
			if !single(l.listen, key == "server_addr") {
				x.lose(d, "sluice counts the sessions of a listener, not of each of its addresses")
				continue
			}
			l.maxConns = least(l.maxConns, n)
		default:
			x.lose(d, "sluice limits by the client's address, or by listener")
		}
	}
}

// single tells whether there is one port, and with address one address.
func single(listen []string, address bool) bool {
	if len(listen) != 1 || strings.HasPrefix(listen[0], "unix:") {
		return false
	}
	fronts, err := config.ParseFronts(listen[0])
	return err == nil && len(fronts) == 1 && !(address && fronts[0].Wildcard())
}

// least is the lower of two limits, where 0 is none.
func least(a, b int) int {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// inOrderOfLines puts directives of several names in the order of the file.
func inOrderOfLines(lists ...[]*directive) []*directive {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b *directive) int { return a.order - b.order })
	return all
}
