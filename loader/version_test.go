// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"testing"
)

// code is LINUX_VERSION_CODE.
func code(major, minor, patch uint32) uint32 { return major<<16 | minor<<8 | patch }

func TestDescribe(t *testing.T) {
	const debian61 = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-09-14)"
	for _, c := range []struct {
		name           string
		code           uint32
		unameV, unameR string
		want           version
		text           string
	}{
		{"the code goes first", code(6, 1, 192), "Debian 5.10.1-1", "6.1.0-56-amd64", version{6, 1, 192}, "6.1.192 (6.1.0-56-amd64)"},
		{"the code's last part is full", code(5, 10, 255), "", "5.10.0-46-cloud-amd64", version{5, 10, 255}, "5.10.255 (5.10.0-46-cloud-amd64)"},
		{"it is full, Debian knows", code(5, 10, 255), "#1 SMP Debian 5.10.261-1 (2026-09-14)", "5.10.0-46-amd64", version{5, 10, 261}, "5.10.261 (5.10.0-46-amd64)"},
		{"it is full, so does the name", code(6, 1, 255), "#1 SMP", "6.1.300", version{6, 1, 300}, "6.1.300 (6.1.300)"},
		{"it is full, and the name another's", code(6, 1, 255), "#1 SMP", "5.15.300", version{6, 1, 255}, "6.1.255 (5.15.300)"},
		{"Debian's uname -v", 0, debian61, "6.1.0-56-cloud-amd64", version{6, 1, 192}, "6.1.192 (6.1.0-56-cloud-amd64)"},
		{"Debian's, a whole", 0, "#1 SMP Debian 6.12.117-1~bpo12+1 (2026-10-01)", "6.12.117+bpo-amd64", version{6, 12, 117}, "6.12.117 (6.12.117+bpo-amd64)"},
		{"uname -r", 0, "#1 SMP PREEMPT Thu Jan 1 00:00:00 UTC 2026", "6.18.44-fc", version{6, 18, 44}, "6.18.44 (6.18.44-fc)"},
		{"more than 255", 0, "", "6.1.300", version{6, 1, 300}, "6.1.300 (6.1.300)"},
		{"a candidate", 0, "", "6.16-rc1", version{6, 16, 0}, "6.16.0 (6.16-rc1)"},
		{"of another kind", 0, "", "what", version{}, "what"},
		{"nothing", 0, "", "", version{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := describe(c.code, c.unameV, c.unameR)
			if k.version != c.want || k.String() != c.text {
				t.Errorf("%+v, %q instead of %+v, %q", k.version, k, c.want, c.text)
			}
		})
	}
}

// The test's own kernel can be told, and by more than its name: uname -r may
// have another third number, never other first ones.
func TestRunning(t *testing.T) {
	k := running()
	byName := describe(0, "", k.release)
	if k.version.major != byName.version.major || k.version.minor != byName.version.minor || k.version.major == 0 {
		t.Errorf("%s", k)
	}
	t.Log(k)
}

func TestCheckRelease(t *testing.T) {
	for release, ok := range map[string]bool{
		"4.19.0": false, "5.4.300": false, "5.10.255": false, "5.15.200": false, "5.19.17": false, "6.0.19": false,
		"6.1.0-56-amd64": false, "6.1.141": false, "6.1.142-1-cloud": true, "6.1.192": true, "6.1.255": true,
		"6.2.16": false, "6.3.13": false, "6.4.16": false, "6.5.13": false, "6.6.93": false, "6.6.94": true, "6.6.150": true,
		"6.7.12": false, "6.8.0-50-generic": false, "6.8.12": false, "6.9.12": false, "6.10.14": false, "6.11.11": false,
		"6.12.33+deb13": false, "6.12.34": true, "6.12.117+deb13-cloud-amd64": true, "6.13.12": false, "6.14.11": false,
		"6.15-rc1": false, "6.15.2": false, "6.15.3": true, "6.16-rc1": true, "6.18.44-fc": true, "7.0": true, "7.2.13": true,
		"": false, "what": false,
	} {
		err := checkRelease(describe(0, "", release))
		if (err == nil) != ok {
			t.Errorf("%q: %v", release, err)
		}
		if err != nil && !errors.Is(err, ErrKernel) {
			t.Errorf("%q: not a kernel error: %v", release, err)
		}
	}
	if err := checkRelease(describe(code(6, 1, 192), "", "6.1.0-56-amd64")); err != nil {
		t.Errorf("Debian 12's: %v", err)
	}
}
