// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Shell boots the kernel and gives the program this terminal, until the program
// ends. Ctrl-C goes to the guest; Ctrl-A x ends it. The timeout doesn't count.
func Shell(cache *Cache, s *Spec) error {
	accel, err := accelArgs(cache, s.Accel, s.Kernel.Image)
	if err != nil {
		return err
	}
	m, err := newMachine()
	if err != nil {
		return err
	}
	defer m.Close()
	g := &guestSpec{Command: s.Command, Dir: s.Dir, Env: append(guestEnv(s), "TERM="+os.Getenv("TERM")), Shell: true}
	if err := writeImage(m.initramfs(), s, g); err != nil {
		return fmt.Errorf("pack the guest: %w", err)
	}
	log := m.socket("console.log")
	cmd := exec.Command(qemu, append(m.args(s, accel),
		"-chardev", "stdio,id=tty,mux=on,signal=off", "-device", "virtconsole,chardev=tty",
		"-mon", "chardev=tty,mode=readline", "-serial", "file:"+log)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", qemu, err)
	}
	if text, err := os.ReadFile(log); err == nil {
		var t tail
		_, _ = t.Write(text) // keeps, never fails
		if !poweredOff(t.lines(5)) {
			return fmt.Errorf("the guest's kernel died; the end of its log:\n%s", t.lines(logLines))
		}
	}
	return nil
}

// poweredOff says whether a kernel log ends with an orderly end.
func poweredOff(end string) bool {
	return strings.Contains(end, "reboot: Power down") || strings.Contains(end, "reboot: System halted")
}
