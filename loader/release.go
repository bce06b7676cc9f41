// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelRelease is uname -r.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// series is a stable series and its first release with the fix of
// CVE-2025-38165 (a remote peer can make the kernel panic when bytes are
// passed to userspace), the last of those that this data path can reach. No
// self-test can try that one, so the version is all there is to go by.
type series struct{ major, minor, patch int }

var fixed = [...]series{{6, 1, 142}, {6, 6, 94}, {6, 12, 34}, {6, 15, 3}}

// checkRelease refuses kernels on which splice isn't to be tried at all. The
// error is a *KernelError.
func checkRelease(release string) error {
	var v series
	base, _, _ := strings.Cut(release, "-")
	if n, _ := fmt.Sscanf(base, "%d.%d.%d", &v.major, &v.minor, &v.patch); n < 2 {
		return &KernelError{What: "splice", Missing: fmt.Sprintf("a version that can be read (%q)", release)}
	}
	last := fixed[len(fixed)-1]
	if v.major > last.major || v.major == last.major && v.minor > last.minor {
		return nil
	}
	for _, f := range fixed {
		if v.major == f.major && v.minor == f.minor && v.patch >= f.patch {
			return nil
		}
	}
	return &KernelError{
		What:    "splice",
		Missing: fmt.Sprintf("fixes to sockmap (it is %s; CVE-2025-38165)", release),
		Since:   "6.1.142, 6.6.94, 6.12.34 or 6.15.3",
	}
}
