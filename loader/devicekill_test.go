// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// instanceEnv has a child of the tests hook the devices of its namespace.
const instanceEnv = "LOADER_TEST_INSTANCE"

// Verdicts of linux/pkt_cls.h.
const (
	tcUnspec = -1
	tcShot   = 2
)

// instance drops the tests' frames, and counts those that leave, until its standard
// input ends. how is the way of hooking and, if it is to be pinned, the path.
func instance(how string) error {
	how, path, isPinned := strings.Cut(how, " ")
	var pin *Pin
	if isPinned {
		var err error
		if pin, err = OpenPin(path); err != nil {
			return err
		}
	}
	c, err := loadFrameCounter(tcShot)
	if err != nil {
		return err
	}
	out, err := loadFrameCounter(tcUnspec)
	if err != nil {
		return err
	}
	d, err := NewDevices(c.program, c.list, DevicesOptions{Clsact: how == "clsact", Egress: out.program, Pin: pin})
	if err != nil {
		return err
	}
	for _, m := range []*ebpf.Map{c.count, c.list, out.count} {
		info, err := m.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		fmt.Println(id)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return errors.Join(d.Close(), pin.Close())
}

type otherInstance struct {
	cmd  *exec.Cmd
	in   io.Closer
	maps []ebpf.MapID
}

func startInstance(t *testing.T, o DevicesOptions) *otherInstance {
	t.Helper()
	return startPinnedInstance(t, o, "")
}

// startPinnedInstance pins it at a path; "": it doesn't.
func startPinnedInstance(t *testing.T, o DevicesOptions, path string) *otherInstance {
	t.Helper()
	how := "tcx"
	if o.Clsact {
		how = "clsact"
	}
	if path != "" {
		how += " " + path
	}
	runtime.LockOSThread() // Pdeathsig goes by the thread; alone's process ends with the test
	cmd := exec.Command(must1(t, os.Executable))
	cmd.Env = append(os.Environ(), instanceEnv+"="+how)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in := must1(t, cmd.StdinPipe)
	out := must1(t, cmd.StdoutPipe)
	must(t, 0, cmd.Start())
	i := &otherInstance{cmd: cmd, in: in}
	lines := bufio.NewReader(out)
	for range 3 {
		var id ebpf.MapID
		if _, err := fmt.Fscanln(lines, &id); err != nil {
			t.Fatalf("another instance didn't start: %v", err)
		}
		i.maps = append(i.maps, id)
	}
	return i
}

func (i *otherInstance) kill(t *testing.T) {
	t.Helper()
	must(t, 0, i.cmd.Process.Kill())
	_ = i.cmd.Wait()
}

func (i *otherInstance) stop(t *testing.T) {
	t.Helper()
	must(t, 0, i.in.Close())
	must(t, 0, i.cmd.Wait())
}

// left are its maps.
func (i *otherInstance) left() alive {
	left := alive{}
	for _, id := range i.maps {
		left[fmt.Sprint("map ", id)] = func() error {
			m, err := ebpf.NewMapFromID(id)
			if err == nil {
				m.Close()
			}
			return err
		}
	}
	return left
}

// behind counts what comes past all programs: by a filter of the lowest rank.
func behind(t *testing.T, name string) (c *frameCounter, f *netlink.BpfFilter) {
	t.Helper()
	c = newFrameCounter(t, tcUnspec)
	f = &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index1(t, name), Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1000},
		Fd:          c.program.FD(), Name: "rig", DirectAction: true,
	}
	must(t, 0, netlink.FilterAdd(f))
	return c, f
}

func TestKilledInstance(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		veth(t, "v0", "v1")
		if !o.Clsact {
			must(t, 0, netlink.QdiscAdd(clsactOf(index1(t, "v0"))))
		}
		other := startInstance(t, o)
		past, f := behind(t, "v0")
		past.counts(t, "v1", 0) // it drops them
		other.kill(t)

		other.left().gone(t)
		past.counts(t, "v1", 5)
		if o.Clsact {
			onlyStub(t, index1(t, "v0"), ingress)
			onlyStub(t, index1(t, "v0"), egress)
		}

		// The next start removes what is left, and uses its place.
		c := newFrameCounter(t, tcUnspec)
		d := startDevices(t, c, o)
		hooked(t, d, c, "v0", true)
		if n := len(stubs(t, index1(t, "v0"), ingress)); o.Clsact && n != 1 || !o.Clsact && n != 0 {
			t.Errorf("%d stubs", n)
		}
		if n := len(stubs(t, index1(t, "v0"), egress)); n != 0 { // this one has nothing there
			t.Errorf("%d stubs on egress", n)
		}
		c.counts(t, "v1", 5)
		must(t, 0, netlink.FilterDel(f))
		must(t, 0, d.Close())
		if !o.Clsact {
			must(t, 0, netlink.QdiscDel(clsactOf(index1(t, "v0"))))
		}
		nothingHooked(t)
	})
}

// stubs are the filters of instances at a place of a device.
func stubs(t *testing.T, index int, at place) (found []tcEntry) {
	t.Helper()
	list, err := filtersOf(index, at.clsact())
	must(t, 0, err)
	for _, e := range list {
		if e.name == stubName || e.name == stubName+ownQdisc {
			found = append(found, e)
		}
	}
	return found
}

// onlyStub sees that the filter leads nowhere and holds no map but the empty array.
func onlyStub(t *testing.T, index int, at place) {
	t.Helper()
	list := stubs(t, index, at)
	if len(list) != 1 {
		t.Fatalf("%d stubs: %+v", len(list), list)
	}
	p := must1(t, func() (*ebpf.Program, error) { return ebpf.NewProgramFromID(list[0].id) })
	defer p.Close()
	info := must1(t, p.Info)
	ids, _ := info.MapIDs()
	if len(ids) != 1 {
		t.Fatalf("the stub holds maps %v", ids)
	}
	m := must1(t, func() (*ebpf.Map, error) { return ebpf.NewMapFromID(ids[0]) })
	defer m.Close()
	var id uint32
	if err := m.Lookup(uint32(0), &id); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the array leads to program %d (%v)", id, err)
	}
	if m.Type() != ebpf.ProgramArray || m.MaxEntries() != 1 {
		t.Errorf("the stub holds a %s of %d", m.Type(), m.MaxEntries())
	}
}

// Instances that live beside each other both see what arrives, call each other
// first, and leave each other's filters and qdisc alone.
func TestTwoInstances(t *testing.T) {
	everyWay(t, func(t *testing.T, o DevicesOptions) {
		for _, name := range []string{"the older one leaves first", "the newer one leaves first"} {
			veth(t, "v0", "v1")
			c := newFrameCounter(t, tcUnspec)
			d := startDevices(t, c, o)
			other := startInstance(t, o)
			must(t, 0, d.Check())
			hooked(t, d, c, "v0", true) // and first, though the other one was put before it
			c.counts(t, "v1", 0)        // which drops all frames
			if n := len(stubs(t, index1(t, "v0"), ingress)); o.Clsact && n != 2 {
				t.Errorf("%s: %d stubs", name, n)
			}
			// A third finds both alive.
			third := newFrameCounter(t, tcUnspec)
			must(t, 0, startDevices(t, third, o).Close())
			if n := len(stubs(t, index1(t, "v0"), ingress)); o.Clsact && n != 2 {
				t.Errorf("%s: %d stubs after a third came and went", name, n)
			}
			if name == "the older one leaves first" {
				must(t, 0, d.Close())
				if n := len(stubs(t, index1(t, "v0"), ingress)); o.Clsact && n != 1 {
					t.Errorf("%s: %d stubs", name, n)
				}
				other.stop(t)
			} else {
				other.stop(t)
				c.counts(t, "v1", 5)
				must(t, 0, d.Close())
			}
			nothingHooked(t)
			must(t, 0, netlink.LinkDel(link1(t, "v0")))
		}
	})
}
