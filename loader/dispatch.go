// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/rs/zerolog"

	"sluice/bpf"
	"sluice/internal/mono"
)

// pickLife is how long a pick that nobody redeemed stands.
const pickLife = 60 * time.Second

// Dispatch picks the backends of new connections in the kernel, at the SYN.
// All methods may be called at once from several goroutines, except Close.
type Dispatch struct {
	*Picks
	log     zerolog.Logger
	objs    bpf.DispatchObjects
	link    link.Link
	ended   *shared[uint64] // connections that ended lately
	life    uint64          // ns
	clock   mono.Clock
	twoStep atomic.Bool
}

// NewDispatch loads the program and attaches it to the network namespace of
// the calling thread. It needs CAP_BPF, before 6.12 perhaps also
// CAP_PERFMON (*PermissionError), and Linux 5.12 (*KernelError). The program does nothing until SetListener.
// Close takes all of it out again.
func NewDispatch(log zerolog.Logger) (*Dispatch, error) {
	return newDispatch(log, pickLife)
}

func newDispatch(log zerolog.Logger, life time.Duration) (_ *Dispatch, err error) {
	spec, err := bpf.LoadDispatch()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[bpf.DispatchVarPickLifeNs].Set(uint64(life)); err != nil {
		return nil, err
	}
	d := &Dispatch{log: log, life: uint64(life), clock: mono.New()}
	defer func() {
		if err != nil {
			err = classify("dispatch", err)
			_ = d.Close()
		}
	}()
	if err := spec.LoadAndAssign(&d.objs, nil); err != nil {
		return nil, err
	}
	if d.Picks, err = newPicks(d.objs.Listeners, d.objs.Boards, d.objs.Windows, d.clock); err != nil {
		return nil, err
	}
	if d.ended, err = mapShared[uint64](d.objs.EndedLately); err != nil {
		return nil, err
	}
	if d.link, err = attachHere(d.objs.Dispatch); err != nil {
		return nil, fmt.Errorf("attaching to the network namespace: %w", err)
	}
	return d, nil
}

// attachHere attaches an sk_lookup program to the thread's network namespace.
func attachHere(p *ebpf.Program) (link.Link, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	l, err := link.AttachNetNs(int(ns.Fd()), p)
	if err != nil {
		return nil, err // not l: a nil pointer in an interface isn't nil
	}
	return l, nil
}

// Close detaches the program and frees everything, also after a start that
// failed halfway. Boards must not be used any more. The first error is
// reported, none stops it.
func (d *Dispatch) Close() error {
	var errs []error
	if d.link != nil {
		errs = append(errs, d.link.Close())
		d.link = nil
	}
	errs = append(errs, d.Picks.close(), d.ended.close(), d.objs.Close())
	return errors.Join(errs...)
}

// redeemable is a key and room for the value, on the heap because the kernel
// writes to it.
type redeemable struct {
	key bpf.DispatchTuple
	val bpf.DispatchPick
}

// Redeem returns the backend picked for the connection from client to server
// and forgets it, so that a client that comes back from the same port is a
// new pick. ok is false when there is none, or one older than 60 s.
func (d *Dispatch) Redeem(client, server netip.AddrPort) (backendID uint32, ok bool) {
	r := redeemable{key: tupleOf(client, server)}
	if !d.redeem(&r) {
		return 0, false
	}
	if now := uint64(d.clock.Now()); now > r.val.At && now-r.val.At > d.life {
		return 0, false
	}
	return r.val.Backend, true
}

func (d *Dispatch) redeem(r *redeemable) bool {
	m := d.objs.Remembered
	if !d.twoStep.Load() {
		err := m.LookupAndDelete(unsafe.Pointer(&r.key), unsafe.Pointer(&r.val))
		if err == nil || errors.Is(err, ebpf.ErrKeyNotExist) {
			return err == nil
		}
		// One call does it since 5.14 (commit 3e87f192b405).
		d.twoStep.Store(true)
	}
	if m.Lookup(unsafe.Pointer(&r.key), unsafe.Pointer(&r.val)) != nil {
		return false
	}
	_ = m.Delete(unsafe.Pointer(&r.key)) // evicted meanwhile: gone just as well
	return true
}

func tupleOf(client, server netip.AddrPort) bpf.DispatchTuple {
	return bpf.DispatchTuple{
		Client: words(client.Addr()), Server: words(server.Addr()),
		ClientPort: networkOrder(client.Port()), ServerPort: networkOrder(server.Port()),
	}
}

// words gives an address as the programs store it: IPv6, or IPv4 mapped to
// it, in network order.
func words(a netip.Addr) [4]uint32 {
	b := a.As16()
	var w [4]uint32
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// networkOrder gives a port as the kernel stores it.
func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(port >> 8), byte(port)})
}

// Sweep deletes picks older than 60 s that nobody redeemed: SYNs that never
// became a connection. Call it about once a minute.
func (d *Dispatch) Sweep() {
	var (
		now   = uint64(d.clock.Now())
		key   bpf.DispatchTuple
		val   bpf.DispatchPick
		stale []bpf.DispatchTuple
	)
	// The program changes the map meanwhile, so a round may end early or see
	// an entry twice; the next round sees the rest.
	for it := d.objs.Remembered.Iterate(); it.Next(&key, &val); {
		if now > val.At && now-val.At > d.life {
			stale = append(stale, key)
		}
	}
	for i := range stale {
		_ = d.objs.Remembered.Delete(unsafe.Pointer(&stale[i]))
	}
}

// DispatchCounts is what the program did, since it was loaded.
type DispatchCounts struct {
	Picked     uint64 // took a ticket
	Remembered uint64 // a retransmitted SYN or a SYN-cookie ACK: had its pick
	Exhausted  uint64 // the window was closed or at its end
	NotStored  uint64 // took a ticket that couldn't be remembered
	Stray      uint64 // of a connection that had just ended, or a new one in its place: no ticket
}

// Counts reads the counters; zeros if that fails.
func (d *Dispatch) Counts() DispatchCounts {
	n := readCounts(d.objs.DispatchCounts)
	return DispatchCounts{n(0), n(1), n(2), n(3), n(4)}
}

// readCounts returns the sum over the CPUs of each counter of m.
func readCounts(m *ebpf.Map) func(i uint32) uint64 {
	return func(i uint32) uint64 {
		var each []uint64
		if err := m.Lookup(i, &each); err != nil {
			return 0
		}
		var sum uint64
		for _, n := range each {
			sum += n
		}
		return sum
	}
}
