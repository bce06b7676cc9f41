// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kvmPatience is how long a kernel may take to its first word on the console
// under KVM, where it takes a few tenths of a second. Nested virtualisation that
// is broken lets a machine be made and then never executes an instruction.
const kvmPatience = 5 * time.Second

// accelArgs are QEMU's options for KVM where that works, else for software
// emulation. la57 is off because emulating a fifth level of page tables costs time
// and shows nothing. mode is auto, kvm or tcg.
func accelArgs(cache *Cache, mode, image string) ([]string, error) {
	kvm := []string{"-accel", "kvm", "-cpu", "host"}
	tcg := []string{"-accel", "tcg,thread=multi", "-cpu", "max,la57=off"}
	switch mode {
	case "kvm":
		return kvm, nil
	case "tcg":
		return tcg, nil
	case "", "auto":
	default:
		return nil, fmt.Errorf("-accel %s: there are auto, kvm and tcg", mode)
	}
	why, err := cache.kvm(image)
	if err != nil {
		return nil, err
	}
	if why == "" {
		return kvm, nil
	}
	return tcg, nil
}

// kvm says why KVM can't be used, empty if it can. It is tried once for each boot
// of this machine; the answer is kept in the cache.
func (c *Cache) kvm(image string) (why string, err error) {
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		return "no access to /dev/kvm", nil
	}
	l, err := c.lock("kvm")
	if err != nil {
		return "", err
	}
	defer l.Close()
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, "kvm")
	if text, err := os.ReadFile(path); err == nil {
		boot, answer, _ := strings.Cut(string(text), "\n")
		if boot == strings.TrimSpace(string(id)) {
			return answer, nil
		}
	}
	why = tryKVM(image)
	return why, os.WriteFile(path, []byte(strings.TrimSpace(string(id))+"\n"+why), 0o644)
}

// tryKVM boots the kernel, without anything to run, and waits for its first word.
func tryKVM(image string) string {
	ctx, cancel := context.WithTimeout(context.Background(), kvmPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "kvm", "-cpu", "host", "-m", "256", "-serial", "stdio",
		"-kernel", image, "-append", "console=ttyS0 panic=-1")
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case strings.Contains(text, "Linux version"):
		return ""
	case ctx.Err() != nil:
		return fmt.Sprintf("/dev/kvm is there, but a guest says nothing within %v", kvmPatience)
	default:
		return fmt.Sprintf("qemu with KVM: %v: %s", err, strings.TrimSpace(text))
	}
}
