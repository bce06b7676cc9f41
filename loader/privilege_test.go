// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// keepEnv names the capabilities that a child of the tests keeps.
const keepEnv = "LOADER_TEST_KEEP"

func TestMain(m *testing.M) {
	if keep, ok := os.LookupEnv(keepEnv); ok {
		if err := keepOnly(keep); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Exit(child())
	}
	if how, ok := os.LookupEnv(instanceEnv); ok {
		if err := instance(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// keepOnly drops all capabilities but these, on all threads.
func keepOnly(names string) error {
	set := cap.NewSet()
	for _, name := range strings.Fields(names) {
		v, err := cap.FromName(strings.ToLower(name))
		if err != nil {
			return err
		}
		if err := set.SetFlag(cap.Permitted, true, v); err != nil {
			return err
		}
		if err := set.SetFlag(cap.Effective, true, v); err != nil {
			return err
		}
	}
	return set.SetProc()
}

// child prints what each path says with the privileges that are left.
func child() int {
	d, err := NewDispatch(zerolog.Nop())
	fmt.Println("dispatch:", verdictOf(err))
	if err == nil {
		d.Close()
	}
	report, err := Selftest(context.Background(), zerolog.Nop())
	fmt.Printf("selftest: %s: %s\n", report.Where, verdictOf(err))
	report, err = SelftestOffload(context.Background(), zerolog.Nop())
	fmt.Printf("offload: %s: %s\n", report.Where, verdictOf(err))
	for _, f := range Probe() {
		fmt.Printf("probe %s: %v: %s\n", f.Name, f.OK, f.Fix)
	}
	return 0
}

func verdictOf(err error) string {
	var (
		p *PermissionError
		k *KernelError
	)
	switch {
	case err == nil:
		return "yes"
	case errors.As(err, &k):
		return "refused: " + err.Error()
	case errors.As(err, &p) && errors.Is(err, ErrNotPermitted):
		return "lacks " + p.Capability
	}
	return "unexpected: " + err.Error()
}

// onThisKernel is what a line is where the kernel is too old: for splice that
// is said before privileges are looked at, for dispatch after.
func onThisKernel(line string) string {
	if err := CheckRelease(); err != nil {
		if head, _, ok := strings.Cut(line, ": lacks "); ok && strings.HasPrefix(head, "selftest: ") {
			return head + ": refused: " + err.Error()
		}
		if head, ok := strings.CutSuffix(line, ": yes"); ok && strings.HasPrefix(head, "selftest: ") {
			return head + ": refused: " + err.Error()
		}
		if strings.HasPrefix(line, "probe splice: ") {
			return "probe splice: false: " + fixFloor
		}
	}
	if withoutAtomics() {
		switch line {
		case "dispatch: yes":
			return "dispatch: refused: " + noAtomics
		case "probe dispatch: true: ":
			return "probe dispatch: false: " + fixAtomics
		}
	}
	return line
}

// What is missing is named, all that is missing and no more; with it, it works.
func TestPrivileges(t *testing.T) {
	for _, c := range []struct {
		keep string
		want []string
	}{
		{"", []string{
			"dispatch: lacks CAP_BPF",
			"selftest: loopback: lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
			"probe dispatch: false: run as root, or grant CAP_BPF",
			"probe splice: false: run as root, or grant CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
			"offload: " + packetsOnly + ": no right to make network namespaces: lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_NET_RAW",
			"probe offload: false: run as root, or grant CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_NET_RAW",
			"probe relay: true: ",
		}},
		{"CAP_BPF", []string{
			"dispatch: yes",
			"selftest: loopback: lacks CAP_NET_ADMIN, CAP_PERFMON",
		}},
		{"CAP_BPF CAP_NET_ADMIN", []string{
			"dispatch: yes",
			"selftest: loopback: lacks CAP_PERFMON",
		}},
		{"CAP_BPF CAP_NET_ADMIN CAP_PERFMON", []string{
			"dispatch: yes",
			"selftest: loopback: yes",
			"offload: " + packetsOnly + ": no right to make network namespaces: lacks CAP_NET_RAW",
			"probe offload: false: run as root, or grant CAP_NET_RAW",
			"probe dispatch: true: ",
			"probe splice: true: ",
		}},
		{"CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_RAW", []string{
			"offload: " + packetsOnly + ": no right to make network namespaces: yes",
			"probe offload: true: ",
		}},
		{"CAP_SYS_ADMIN CAP_NET_ADMIN CAP_NET_RAW", []string{
			"offload: own network namespaces: yes",
		}},
		{"CAP_SYS_ADMIN CAP_NET_ADMIN", []string{
			"dispatch: yes",
			"selftest: own network namespace: yes",
		}},
	} {
		t.Run("with "+c.keep, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), keepEnv+"="+c.keep)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, line := range c.want {
				line = onThisKernel(line)
				said := func(line string) bool { return strings.Contains("\n"+string(out), "\n"+line+"\n") }
				if line == "dispatch: yes" && running().version.before(6, 12) && !strings.Contains(c.keep, "CAP_PERFMON") &&
					!strings.Contains(c.keep, "CAP_SYS_ADMIN") && said("dispatch: lacks CAP_PERFMON") {
					continue // the verifier of 6.1 wants more
				}
				if !said(line) {
					t.Errorf("no line %q in\n%s", line, out)
				}
			}
		})
	}
}
