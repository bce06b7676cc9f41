// SPDX-License-Identifier: Apache-2.0

package loader

import "fmt"

// fixed are the first releases, by stable series, with the fix of
// CVE-2025-38165 (a remote peer can make the kernel panic when bytes are
// passed to userspace), the last of those that this data path can reach. No
// self-test can try that one, so the version is all there is to go by. Series
// between them ended without the fix; those after the last have it.
var fixed = [...]version{{6, 1, 142}, {6, 6, 94}, {6, 12, 34}, {6, 15, 3}}

// CheckRelease refuses, by a *KernelError, kernels on which splice isn't to
// be tried at all: those older than 6.1.142, 6.6.94, 6.12.34 and 6.15.3 in
// their series. It needs no privilege. Selftest checks this first.
func CheckRelease() error { return checkRelease(running()) }

func checkRelease(k kernel) error {
	v := k.version
	if v == (version{}) {
		return &KernelError{What: "splice", Missing: fmt.Sprintf("a version that can be read (%q)", k.release)}
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
		Missing: fmt.Sprintf("fixes to sockmap (it is %s; CVE-2025-38165)", k),
		Since:   "6.1.142, 6.6.94, 6.12.34 or 6.15.3",
	}
}
