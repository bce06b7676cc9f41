// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestForwardPortsOfTheKernel: ports that the host's kernel may give to others are
// refused at start, with the place in the file; what the refusal says to set helps, and
// keeps what was reserved before.
func TestForwardPortsOfTheKernel(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace with settings of its own")
	}
	const reservedBefore = "39000-39999"
	dir := tempDir(t, user{})
	body := fmt.Sprintf("forward: {ports: [\"20000-20999\", \"31000-31999\", \"32900-33000\"]}\nlisteners: [{name: l, listen: %q, backends: [%q]}]\n",
		"unix:"+filepath.Join(dir, "front"), "unix:"+filepath.Join(dir, "back"))
	launch := func(reserved string) *instance {
		i := prepare(t, user{}, body)
		i.stats = "unix:" + filepath.Join(i.dir, "stats") // the namespace has no loopback that is up
		i.write(body)
		i.wrap = `exec unshare --net /bin/sh -ec 'cd /proc/sys/net/ipv4; echo 31500 40000 > ip_local_port_range; echo ` +
			reserved + ` > ip_local_reserved_ports; exec "$0" "$@"' "$0" "$@"`
		i.launch(user{})
		return i
	}
	i := launch(reservedBefore)
	if code := i.exitCode(); code != 1 {
		t.Fatalf("exit %d, want 1", code)
	}
	said := i.stderr.String()
	m := regexp.MustCompile(`backends\.yaml:\d+:\d+: .*set net\.ipv4\.ip_local_reserved_ports=([0-9,-]*[0-9])`).FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("it doesn't say where, and what to set: %s", said)
	}
	if want := reservedBefore + ",31000-31999,32900-33000"; m[1] != want {
		t.Errorf("it says to set %s, want %s", m[1], want)
	}
	launch(m[1]).awaitReady()
}
