// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindHint: an edit that is refused for its addresses says what to do.
func TestBindHint(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EADDRINUSE:    "another process",
		unix.EACCES:        "CAP_NET_BIND_SERVICE",
		unix.EADDRNOTAVAIL: "no such address",
		unix.EMFILE:        "raise LimitNOFILE",
		unix.ENOMEM:        "cannot allocate memory",
	} {
		if err := bindHint(errno); !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %q, want it to say %q", errno, err, want)
		}
	}
}
