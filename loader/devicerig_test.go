// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const aloneEnv = "LOADER_TEST_ALONE"

// alone runs a test in a process of its own that is all in a fresh network
// namespace: devices are followed by goroutines, on whatever thread.
func alone(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(aloneEnv) == t.Name() {
		must(t, 0, loopbackUp())
		f(t)
		return
	}
	var names []string
	for _, part := range strings.Split(t.Name(), "/") {
		names = append(names, "^"+regexp.QuoteMeta(part)+"$")
	}
	runtime.LockOSThread() // Pdeathsig goes by the thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command(must1(t, os.Executable), "-test.run="+strings.Join(names, "/"), "-test.v")
	cmd.Env = append(os.Environ(), aloneEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// everyWay runs a test with each way of hooking that the kernel has.
func everyWay(t *testing.T, f func(t *testing.T, o DevicesOptions)) {
	have := must1(t, haveTCX)
	if want := !running().version.before(6, 6); have != want {
		t.Fatalf("tcx found: %v on %s", have, running().version)
	}
	t.Run("clsact", func(t *testing.T) {
		alone(t, func(t *testing.T) { f(t, DevicesOptions{Clsact: true}) })
	})
	if have {
		t.Run("tcx", func(t *testing.T) {
			alone(t, func(t *testing.T) { f(t, DevicesOptions{}) })
		})
	}
}

// rigEtherType is that of the tests' frames: nothing else sends such.
const rigEtherType = 0x88b5

// frameCounter is a program that counts the tests' frames and returns verdict.
type frameCounter struct {
	program     *ebpf.Program
	count, list *ebpf.Map // list is a map forward_devices
}

func newFrameCounter(t *testing.T, verdict int32) *frameCounter {
	t.Helper()
	c, err := loadFrameCounter(verdict)
	must(t, 0, err)
	t.Cleanup(c.close)
	return c
}

func loadFrameCounter(verdict int32) (c *frameCounter, err error) {
	c = &frameCounter{}
	c.count, err = ebpf.NewMap(&ebpf.MapSpec{Name: "rig_count", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	c.list, err = ebpf.NewMap(&ebpf.MapSpec{Name: "rig_devices", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1000})
	if err != nil {
		return nil, err
	}
	c.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "rig_program",
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 16, asm.Word), // skb->protocol
			asm.HostTo(asm.BE, asm.R6, asm.Half),
			asm.JNE.Imm(asm.R6, rigEtherType, "pass"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, c.count.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, verdict),
			asm.Return(),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("pass"),
			asm.Return(),
		},
		License: "GPL",
	})
	return c, err
}

func (c *frameCounter) close() {
	c.program.Close()
	c.count.Close()
	c.list.Close()
}

func (c *frameCounter) frames(t *testing.T) (n uint64) {
	t.Helper()
	must(t, 0, c.count.Lookup(uint32(0), &n))
	return n
}

// counts sends frames that arrive by the peer of from, and sees how many count.
func (c *frameCounter) counts(t *testing.T, from string, want uint64) {
	t.Helper()
	before := c.frames(t)
	const sent = 5
	sendFrames(t, from, sent)
	if want > 0 {
		within(t, fmt.Sprintf("%d frames of %s", want, from), func() bool { return c.frames(t)-before >= want })
	} else {
		time.Sleep(50 * time.Millisecond)
	}
	if got := c.frames(t) - before; got != want {
		t.Errorf("%d frames of %d sent by %s counted, not %d", got, sent, from, want)
	}
}

func sendFrames(t *testing.T, from string, n int) {
	t.Helper()
	l := link1(t, from)
	fd := must1(t, func() (int, error) { return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) })
	defer unix.Close(fd)
	frame := make([]byte, 64)
	for i := range 6 {
		frame[i] = 0xff
	}
	copy(frame[6:], l.Attrs().HardwareAddr)
	frame[12], frame[13] = rigEtherType>>8, rigEtherType&0xff
	for range n {
		must(t, 0, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Halen: 6}))
	}
}

func link1(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	return must(t, l, err)
}

func index1(t *testing.T, name string) int {
	t.Helper()
	return link1(t, name).Attrs().Index
}

// veth makes a pair that is up.
func veth(t *testing.T, a, b string) {
	t.Helper()
	must(t, 0, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs(a), PeerName: b}))
	up(t, a, b)
}

// up waits until the devices, a pair, carry packets: the kernel finds their
// carrier a while after they are set up.
func up(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		must(t, 0, netlink.LinkSetUp(link1(t, name)))
	}
	for _, name := range names {
		within(t, name+" is up", func() bool { return link1(t, name).Attrs().OperState == netlink.OperUp })
	}
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func startDevices(t *testing.T, c *frameCounter, o DevicesOptions) *Devices {
	t.Helper()
	d, err := NewDevices(c.program, c.list, o)
	must(t, 0, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// within waits until ok, generously.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("never: %s", what)
		}
	}
}

// deviceNow is what is known of a device; a zero one if nothing is.
func deviceNow(d *Devices, name string) Device {
	for _, dev := range d.List() {
		if dev.Name == name {
			return dev
		}
	}
	return Device{}
}

// hooked waits until the device is, or isn't, and compares the map.
func hooked(t *testing.T, d *Devices, c *frameCounter, name string, want bool) {
	t.Helper()
	within(t, fmt.Sprintf("%s hooked: %v", name, want), func() bool {
		dev := deviceNow(d, name)
		return dev.Index != 0 && dev.Hooked == want
	})
	dev := deviceNow(d, name)
	var flags uint32
	err := c.list.Lookup(uint32(dev.Index), &flags)
	if want && (err != nil || flags != deviceHooked|deviceFirst || !dev.First) || !want && err == nil {
		t.Errorf("%+v: flags %d (%v)", dev, flags, err)
	}
	if !want && dev.Why == "" {
		t.Errorf("%s isn't hooked for no reason", name)
	}
}

// nothingHooked sees that no device has a program, a filter or a qdisc for one.
func nothingHooked(t *testing.T) {
	t.Helper()
	if q := must1(t, clsactQdiscs); len(q) > 0 {
		t.Errorf("qdiscs are left: %+v", q)
	}
	if !must1(t, haveTCX) {
		return
	}
	for _, l := range must1(t, netlink.LinkList) {
		for _, at := range []place{ingress, egress} {
			if _, before, err := lookTCX(l.Attrs().Index, at, 0); err != nil || before != "" {
				t.Errorf("%s has %s at place %d (%v)", l.Attrs().Name, before, at, err)
			}
		}
	}
}
