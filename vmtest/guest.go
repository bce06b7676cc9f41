// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InGuest says whether this process is process 1 of a guest, whose main is Guest.
func InGuest() bool {
	if os.Getpid() != 1 {
		return false
	}
	_, err := os.Stat(guestSpecPath)
	return err == nil
}

// Guest is process 1 of the guest: it makes the place a place to run in, runs the
// program, reports, and switches the machine off. It doesn't return.
func Guest() {
	if err := guest(); err != nil {
		fmt.Println("vmtest: process 1:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("vmtest: power off:", err)
	}
	os.Exit(1) // a panic, which ends the machine as well
}

func guest() error {
	text, err := os.ReadFile(guestSpecPath)
	if err != nil {
		return err
	}
	var g guestSpec
	if err := json.Unmarshal(text, &g); err != nil {
		return err
	}
	if err := mountAll(); err != nil {
		return err
	}
	for _, m := range g.Modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	if g.Shell {
		if err := furnish(); err != nil {
			return err
		}
		return g.shell()
	}
	control, err := openPort(portControl)
	if err != nil {
		return err
	}
	defer control.Close()
	report := json.NewEncoder(control)
	code, err := g.run(control, report)
	if err != nil {
		return report.Encode(event{Kind: eventError, Text: err.Error()})
	}
	for _, path := range g.Bring {
		if data, err := os.ReadFile(path); err == nil {
			if err := report.Encode(event{Kind: eventFile, Path: path, Data: data}); err != nil {
				return err
			}
		}
	}
	if err := report.Encode(code); err != nil {
		return err
	}
	// The host pulls the plug once it has read that; switching off here could
	// take the end of it along.
	time.Sleep(time.Minute)
	return nil
}

// run runs the program to its end and sends its output's end markers.
func (g *guestSpec) run(control *os.File, report *json.Encoder) (event, error) {
	if err := furnish(); err != nil {
		return event{}, err
	}
	out, err := openPort(portOut)
	if err != nil {
		return event{}, err
	}
	errOut := out
	if g.Split {
		if errOut, err = openPort(portErr); err != nil {
			return event{}, err
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return event{}, err
	}
	before, err := taint()
	if err != nil {
		return event{}, err
	}
	if err := report.Encode(event{Kind: eventReady, Release: release()}); err != nil {
		return event{}, err
	}
	pid, err := g.start(null, out, errOut)
	if err != nil {
		return event{}, err
	}
	go obey(control, pid)
	status, err := reap(pid)
	if err != nil {
		return event{}, err
	}
	after, err := taint()
	if err != nil {
		return event{}, err
	}
	done := event{Kind: eventExit, Code: status.ExitStatus(), Taint: after &^ before}
	if status.Signaled() {
		done.Code, done.Signal = 128+int(status.Signal()), unix.SignalName(status.Signal())
	}
	if _, err := out.WriteString(g.Marker); err != nil {
		return event{}, err
	}
	if g.Split {
		if _, err := errOut.WriteString(g.Marker); err != nil {
			return event{}, err
		}
	}
	return done, nil
}

func (g *guestSpec) start(stdin, stdout, stderr *os.File) (int, error) {
	pid, err := syscall.ForkExec(g.Command[0], g.Command, &syscall.ProcAttr{
		Dir:   g.Dir,
		Env:   g.Env,
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: g.Shell},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s in %s: %w", g.Command[0], g.Dir, err)
	}
	return pid, nil
}

// shell runs the program on the second console, a terminal, and waits for its end.
func (g *guestSpec) shell() error {
	tty, err := os.OpenFile("/dev/hvc0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	pid, err := g.start(tty, tty, tty)
	if err != nil {
		fmt.Fprintln(tty, "vmtest:", err)
		return err
	}
	_, err = reap(pid)
	return err
}

// reap waits for orphans, as process 1 must, until pid has ended.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for the program: %w", err)
		}
		if got == pid && (status.Exited() || status.Signaled()) {
			return status, nil
		}
	}
}

// obey does what the host asks for until the port ends.
func obey(control *os.File, pid int) {
	lines := bufio.NewScanner(control)
	for lines.Scan() {
		if lines.Text()+"\n" != orderDump {
			continue
		}
		// The order is the host's last wish before it gives up: what of it fails
		// can't be told to anybody.
		_ = unix.Kill(pid, unix.SIGQUIT)
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
	}
}

// openPort opens a virtio port by name, waiting for the driver to find it. A port
// can be open once only, so the files are for the program's whole life.
func openPort(name string) (*os.File, error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ports, err := filepath.Glob("/sys/class/virtio-ports/*")
		if err != nil {
			return nil, err
		}
		for _, dir := range ports {
			got, err := os.ReadFile(filepath.Join(dir, "name"))
			if err != nil || strings.TrimSpace(string(got)) != name {
				continue
			}
			// Not os.OpenFile: its poller would make the port non-blocking, for the
			// program too.
			fd, err := unix.Open("/dev/"+filepath.Base(dir), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				return os.NewFile(uintptr(fd), name), nil
			}
			if !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("open port %s: %w", name, err)
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no virtio port %s: does the kernel have virtio_pci and virtio_console?", name)
		}
	}
}

func taint() (uint64, error) {
	text, err := os.ReadFile("/proc/sys/kernel/tainted")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
