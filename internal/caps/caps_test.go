// SPDX-License-Identifier: Apache-2.0

package caps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sluice/vmtest/lacks"
)

const childEnv = "CAPS_TEST_CHILD"

// TestMain runs the child: what it drops, it drops for good.
func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		child(what)
		return
	}
	os.Exit(m.Run())
}

// child drops with several threads about and prints the status of each.
func child(what string) {
	for range 4 {
		go func() { runtime.LockOSThread(); select {} }()
	}
	runtime.Gosched()
	var err error
	switch what {
	case "drop":
		err = Drop(Needed()...)
	case "dac":
		err = DropFileOverride()
	case "nosetpcap":
		c := cap.GetProc()
		c.SetFlag(cap.Effective, false, cap.SETPCAP)
		c.SetFlag(cap.Permitted, false, cap.SETPCAP)
		if err = c.SetProc(); err == nil {
			err = Drop(Needed()...)
		}
	}
	if err != nil {
		fmt.Println("error:", err)
	}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, line := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
		fmt.Println("thread")
	}
}

func run(t *testing.T, what string) []map[string]string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var threads []map[string]string
	cur := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if line == "thread" {
			threads, cur = append(threads, cur), map[string]string{}
			continue
		}
		k, v, ok := strings.Cut(line, ": ")
		if !ok || k == "error" {
			t.Fatalf("unexpected output: %s", out)
		}
		cur[k] = v
	}
	if len(threads) < 4 {
		t.Fatalf("saw %d threads, want several: %s", len(threads), out)
	}
	return threads
}

func needRoot(t *testing.T) {
	if !Have(cap.SETPCAP) || !Have(cap.NET_ADMIN) || !Have(cap.DAC_OVERRIDE) {
		lacks.Skip(t, "root", "without capabilities there is nothing to drop")
	}
}

func TestDropOnEveryThread(t *testing.T) {
	needRoot(t)
	mask := uint64(1)<<unix.CAP_NET_ADMIN | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_NET_BIND_SERVICE
	kept := fmt.Sprintf("%016x", mask)
	none := fmt.Sprintf("%016x", 0)
	for _, th := range run(t, "drop") {
		for k, want := range map[string]string{"CapEff": kept, "CapPrm": kept, "CapBnd": kept, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1"} {
			if th[k] != want {
				t.Errorf("%s is %s, want %s", k, th[k], want)
			}
		}
	}
}

func TestDropFileOverride(t *testing.T) {
	needRoot(t)
	gone := uint64(1)<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	for _, th := range run(t, "dac") {
		for _, k := range []string{"CapEff", "CapPrm", "CapInh"} {
			var v uint64
			fmt.Sscanf(th[k], "%x", &v)
			if v&gone != 0 {
				t.Errorf("%s is %s: CAP_DAC_* is still there", k, th[k])
			}
		}
		var v uint64
		fmt.Sscanf(th["CapEff"], "%x", &v)
		if v&(1<<unix.CAP_NET_ADMIN) == 0 {
			t.Error("CAP_NET_ADMIN went too")
		}
	}
}

func TestWithoutTheRightToDropBounding(t *testing.T) {
	needRoot(t)
	for _, th := range run(t, "nosetpcap") {
		if th["NoNewPrivs"] != "1" || th["CapInh"] != fmt.Sprintf("%016x", 0) {
			t.Errorf("dropped too little: %v", th)
		}
	}
}
