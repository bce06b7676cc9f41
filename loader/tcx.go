// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tcx attaches by links, which end with their descriptors: Linux 6.6.
type tcx struct {
	place   place
	program *ebpf.Program // the caller's
	id      ebpf.ProgramID
	claim   *claim
	links   map[int]link.Link
	pin     *Pin // nil: links end with the process
}

func newTCX(p *ebpf.Program, at place, pin *Pin) (*tcx, error) {
	id, err := programID(p)
	if err != nil {
		return nil, err
	}
	if pin != nil {
		if err := pin.put(programName(id), p); err != nil {
			return nil, err
		}
	}
	c, err := claimProgram(id)
	if err != nil {
		return nil, err
	}
	return &tcx{place: at, program: p, id: id, claim: c, links: map[int]link.Link{}, pin: pin}, nil
}

func programID(p *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("reading a program's id: %w", err)
	}
	id, _ := info.ID()
	return id, nil
}

func (h *tcx) attach(index int) error {
	if err := h.detach(index); err != nil { // a link that somebody detached
		return err
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: index,
		Program:   h.program,
		Attach:    h.place.tcx(),
		Anchor:    link.Head(),
	})
	if errors.Is(err, unix.ERANGE) { // bpf_mprog_max() in include/linux/bpf_mprog.h
		return errors.New("it has as many programs of tc as the kernel takes (`bpftool net` lists them)")
	}
	if err != nil {
		return err
	}
	if h.pin != nil { // the link of a process before ends here, when ours is there
		if err := h.pin.put(h.place.linkName(index), l); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	h.links[index] = l
	return nil
}

func (h *tcx) detach(index int) error {
	l := h.links[index]
	if l == nil {
		return nil
	}
	delete(h.links, index)
	if h.pin != nil {
		return errors.Join(h.pin.remove(h.place.linkName(index)), l.Close())
	}
	return l.Close()
}

// linkName is what the link of a device is pinned as.
func (p place) linkName(index int) string { return p.pinPrefix() + strconv.Itoa(index) }

func (p place) pinPrefix() string {
	if p == egress {
		return "egress_"
	}
	return "ingress_"
}

// programPin begins the name of a program that links are pinned for: by it others tell
// that the program is an instance's, while no process claims it.
const programPin = "program_"

func programName(id ebpf.ProgramID) string { return programPin + strconv.Itoa(int(id)) }

// pins says whether a link, or the program, is pinned under this name.
func (h *tcx) pins(name string) bool {
	if name == programName(h.id) {
		return true
	}
	index, err := strconv.Atoi(strings.TrimPrefix(name, h.place.pinPrefix()))
	return err == nil && h.links[index] != nil && name == h.place.linkName(index)
}

// leave closes what is pinned without taking it off.
func (h *tcx) leave() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	clear(h.links)
	return errors.Join(append(errs, h.claim.close())...)
}

func (h *tcx) look(index int) (there bool, before string, err error) {
	return lookTCX(index, h.place, h.id)
}

// queryTries is how often programs may come between counting and reading them.
const queryTries = 16

// queryTCX lists a device's programs, which are counted first and then read: ENOSPC is
// that there are more by then.
func queryTCX(index int, at place) (r *link.QueryResult, err error) {
	for range queryTries {
		r, err = link.QueryPrograms(link.QueryOptions{Target: index, Attach: at.tcx()})
		if !errors.Is(err, unix.ENOSPC) {
			break
		}
	}
	return r, err
}

// lookTCX goes through a device's programs up to the one of this id.
func lookTCX(index int, at place, id ebpf.ProgramID) (there bool, before string, err error) {
	r, err := queryTCX(index, at)
	if err != nil {
		return false, "", err
	}
	for _, p := range r.Programs {
		if p.ID == id {
			return true, before, nil
		}
		if before == "" && !claimed(p.ID) && !pinnedAnywhere(p.ID) {
			before = fmt.Sprintf("tcx program %d (bpftool prog show id %[1]d)", p.ID)
		}
	}
	return false, before, nil
}

func (h *tcx) close() error {
	var errs []error
	for index := range h.links {
		errs = append(errs, h.detach(index))
	}
	if h.pin != nil {
		errs = append(errs, h.pin.remove(programName(h.id)))
	}
	return errors.Join(append(errs, h.claim.close())...)
}
