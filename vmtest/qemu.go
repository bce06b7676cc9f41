// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const qemu = "qemu-system-x86_64"

// machine is one QEMU process with its sockets, in a folder of its own.
type machine struct {
	dir   string
	cmd   *exec.Cmd
	ports map[string]*net.UnixListener
	died  chan error
}

// newMachine makes the folder and the sockets for the named ports.
func newMachine(ports ...string) (*machine, error) {
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return nil, err
	}
	m := &machine{dir: dir, ports: map[string]*net.UnixListener{}, died: make(chan error, 1)}
	for _, name := range ports {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.socket(name)})
		if err != nil {
			m.Close()
			return nil, err
		}
		m.ports[name] = l
	}
	return m, nil
}

func (m *machine) socket(port string) string { return filepath.Join(m.dir, port) }
func (m *machine) initramfs() string         { return filepath.Join(m.dir, "initramfs") }

// args are QEMU's options but for how the terminal and the ports are connected.
// panic=-1 with -no-reboot ends QEMU at once when the kernel panics; oops=panic
// makes each oops one. Mitigations stay as the distribution has them: they change
// what the BPF verifier does.
func (m *machine) args(s *Spec, accel []string) []string {
	return append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
		"-m", strconv.Itoa(s.Memory), "-smp", strconv.Itoa(s.CPUs),
		"-kernel", s.Kernel.Image, "-initrd", m.initramfs(),
		"-append", "console=ttyS0 loglevel=7 panic=-1 oops=panic random.trust_cpu=on printk.devkmsg=on",
		"-device", "virtio-serial-pci",
	}, accel...)
}

// portArgs connect the console and the ports to the sockets.
func (m *machine) portArgs() []string {
	args := []string{
		"-chardev", "socket,id=console,path=" + m.socket("console"), "-serial", "chardev:console",
	}
	for name := range m.ports {
		if name != "console" {
			args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,path=%s", name, m.socket(name)),
				"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, name))
		}
	}
	return args
}

// start starts QEMU, which dies with us. died gets how it ended.
func (m *machine) start(args []string) error {
	m.cmd = exec.Command(qemu, args...)
	m.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var complaint tail
	m.cmd.Stderr = &complaint
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("%w: install qemu-system-x86", err)
	}
	go func() {
		err := m.cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", qemu, err, complaint.text())
		}
		m.died <- err
	}()
	return nil
}

// accept waits for QEMU to connect a port.
func (m *machine) accept(port string) (net.Conn, error) {
	l := m.ports[port]
	if err := l.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	c, err := l.Accept()
	if err != nil {
		return nil, fmt.Errorf("%s didn't connect its %s: %w", qemu, port, err)
	}
	return c, nil
}

// Close ends QEMU and removes the folder.
func (m *machine) Close() {
	if m.cmd != nil && m.cmd.Process != nil {
		_ = m.cmd.Process.Kill() // gone already, or goes now
		<-m.died
	}
	for _, l := range m.ports {
		l.Close()
	}
	os.RemoveAll(m.dir)
}
