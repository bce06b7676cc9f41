// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestLocalEnd: who the two ends of a client's connection are in the log, on
// each kind of front, with a PROXY header and without, is what nginx says.
func TestLocalEnd(t *testing.T) {
	t.Parallel()
	const format = `$remote_addr|$server_addr|$server_port|$proxy_protocol_addr|$proxy_protocol_port`
	backend := tcp(t, answer)
	var blocks, listeners strings.Builder
	var ours, theirs []dialer
	var fronts, names []string
	front := func(kind string) dialer { return (&sample{front: kind}).dialer(t, user{}) }
	for _, kind := range []string{"tcp", "tcp6", "unix"} {
		for _, header := range []bool{false, true} {
			a, b := front(kind), front(kind)
			theirs, ours = append(theirs, a), append(ours, b)
			fronts, names = append(fronts, (&sample{}).listen(a)), append(names, fmt.Sprintf("%s, header %t", kind, header))
			option, more := "", ""
			if header {
				option, more = " proxy_protocol", ", proxy_protocol: {accept: true}"
			}
			fmt.Fprintf(&blocks, "\tserver {\n\t\tlisten %s%s;\n\t\tset_real_ip_from 0.0.0.0/0; set_real_ip_from ::/0; set_real_ip_from unix:;\n\t\tproxy_pass %s;\n\t}\n",
				(&sample{}).listen(a), option, backend.addr)
			fmt.Fprintf(&listeners, "  - {name: %q, listen: %q, backends: [%q]%s}\n", names[len(names)-1], (&sample{}).listen(b), backend.addr, more)
		}
	}
	nginxLog := nginxWith(t, "'"+format+"'", blocks.String(), fronts)
	i := startWith(t, user{}, "listeners:\n"+listeners.String(), func(i *instance) { i.format = format })
	for k, name := range names {
		act := talk
		if strings.HasSuffix(name, "true") {
			act = talkAfter("PROXY TCP4 192.0.2.7 192.0.2.8 4711 19585\r\n")
		}
		act(t, theirs[k])
		act(t, ours[k])
		a := masked(awaitLines(t, nginxLog, k+1)[k], theirs[k])
		b := masked(i.lines(k + 1)[k], ours[k])
		if a != b {
			t.Errorf("%s: nginx %q, sluice %q", name, a, b)
		}
	}
}

// masked is a line without the address that only one of the two listens on.
func masked(line string, d dialer) string {
	if d.network == "unix" {
		return strings.ReplaceAll(line, d.addr, "FRONT")
	}
	_, port, _ := net.SplitHostPort(d.addr)
	return strings.ReplaceAll(line, port, "FRONT")
}
