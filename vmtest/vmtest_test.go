// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCopyUntil(t *testing.T) {
	const marker = "\x00end-1"
	for _, c := range []struct {
		name, in, want string
		found          bool
	}{
		{"marker alone", marker, "", true},
		{"text before", "ok\n" + marker, "ok\n", true},
		{"after it", "a" + marker + "b", "a", true},
		{"beginnings of it", "\x00\x00end\x00end-" + marker, "\x00\x00end\x00end-", true},
		{"cut short", "text\x00end", "text\x00end", false},
		{"nothing", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for what, r := range map[string]func() *bytes.Buffer{"at once": func() *bytes.Buffer { return bytes.NewBufferString(c.in) }} {
				var whole, single bytes.Buffer
				found, err := copyUntil(&whole, r(), []byte(marker))
				if err != nil || found != c.found || whole.String() != c.want {
					t.Errorf("%s: %q %v %v, want %q %v", what, whole.String(), found, err, c.want, c.found)
				}
				found, err = copyUntil(&single, iotest.OneByteReader(r()), []byte(marker))
				if err != nil || found != c.found || single.String() != c.want {
					t.Errorf("byte by byte: %q %v %v, want %q %v", single.String(), found, err, c.want, c.found)
				}
			}
		})
	}
}

// The archive is read back by an unpacker that isn't ours.
func TestCPIO(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skipf("sluice-lacks: busybox: %v", err)
	}
	host := filepath.Join(t.TempDir(), "odd name")
	if err := os.WriteFile(host, []byte("12345"), 0o640); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	c := newCPIO(&b)
	for _, err := range []error{
		c.data("/etc/a/b", 0o644, "hello"), c.file("/bin/odd name", host), c.symlink("/bin/link", "odd name"),
		c.data("/etc/a/b", 0o644, "a second one is left out"), c.dir("/tmp", 0o700), c.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	cmd := exec.Command("busybox", "cpio", "-i", "-d")
	cmd.Dir, cmd.Stdin = dir, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]string{}
	for _, name := range []string{"etc/a/b", "bin/odd name", "bin/link"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		got[name] = string(text)
	}
	if diff := cmp.Diff(map[string]string{"etc/a/b": "hello", "bin/odd name": "12345", "bin/link": "12345"}, got); diff != "" {
		t.Error(diff)
	}
	if st, err := os.Stat(filepath.Join(dir, "bin/odd name")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
}

func TestPackages(t *testing.T) {
	all, err := Packages()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"5.10", "6.1", "6.12", "sid"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := Find(&Cache{dir: t.TempDir()}, "2.4", "", false); err == nil || !strings.Contains(err.Error(), "there are 5.10, 6.1") {
		t.Errorf("unknown kernel: %v", err)
	}
	if _, err := Find(&Cache{dir: t.TempDir()}, "./none", "", false); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing image: %v", err)
	}
}

func TestTestArguments(t *testing.T) {
	args := []string{"-test.v=true", "-test.timeout=2m0s", "-test.coverprofile=/x/c.out", "-test.trace=t.out"}
	if got := TestTimeout(args); got != 2*time.Minute+30*time.Second {
		t.Error(got)
	}
	if got := TestTimeout(nil); got != defaultTimeout {
		t.Error(got)
	}
	if diff := cmp.Diff([]string{"/x/c.out", "/d/t.out"}, TestOutputs(args, "/d")); diff != "" {
		t.Error(diff)
	}
	env := []string{"PATH=/x", "GODEBUG=a=1", "SLUICE_X=1", "SLUICE_VM_CACHE=/c", "HOME=/h"}
	if diff := cmp.Diff([]string{"GODEBUG=a=1", "SLUICE_X=1"}, PassedOn(env)); diff != "" {
		t.Error(diff)
	}
}
