// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// version is a kernel's, of the mainline or stable release that it was made
// from.
type version struct{ major, minor, patch int }

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

// kernel is the running kernel: what people call it (uname -r), and what it
// is made from. Those can differ: Debian's 6.1.0-56-amd64 is 6.1.192.
type kernel struct {
	release string
	version version // zero: can't be told
}

func (k kernel) String() string {
	if k.version == (version{}) {
		return k.release
	}
	return fmt.Sprintf("%s (%s)", k.version, k.release)
}

// running describes the running kernel.
func running() kernel {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return kernel{}
	}
	code, err := features.LinuxVersionCode()
	if err != nil {
		code = 0 // a kernel without a vDSO, or no /proc
	}
	return describe(code, unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Release[:]))
}

var (
	debianVersion = regexp.MustCompile(` Debian (\d+)\.(\d+)\.(\d+)`)
	mainVersion   = regexp.MustCompile(`^(\d+)\.(\d+)(?:\.(\d+))?`)
)

// describe goes by the version code that the kernel was compiled with, its
// last part being at most 255 (commit 9b82f13e7ef3); there, and where it
// can't be had, by what Debian
// writes into uname -v; else by uname -r, where some distributions put the
// number of their own first release.
func describe(code uint32, unameV, unameR string) kernel {
	k := kernel{release: unameR}
	coded := version{int(code >> 16), int(code >> 8 & 0xff), int(code & 0xff)}
	if code != 0 && coded.patch < 255 {
		k.version = coded
		return k
	}
	m := debianVersion.FindStringSubmatch(unameV)
	if m == nil {
		m = mainVersion.FindStringSubmatch(unameR)
	}
	if m != nil {
		k.version = version{number(m[1]), number(m[2]), number(m[3])}
	}
	if code != 0 && (k.version.major != coded.major || k.version.minor != coded.minor || k.version.patch < coded.patch) {
		k.version = coded
	}
	return k
}

// number is 0 for no digits; for too many, a number larger than any version's.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
