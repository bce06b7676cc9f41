// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// feature is something that a kernel may lack, found out by trying.
type feature struct {
	missing string // as in KernelError
	since   string
	probe   func() error // ErrNotSupported: it isn't there
}

// featuresOf returns what a program needs: the first that is missing is the
// one to name.
func featuresOf(what string) []feature {
	fetch := feature{"BPF atomics that fetch", "5.12", probeFetch}
	kernelBTF := feature{"type information (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)", "", probeBTF}
	if what == "offload" {
		return []feature{
			{"BPF ring buffers", "5.8", func() error { return features.HaveMapType(ebpf.RingBuf) }},
			{"bpf_redirect_neigh", "5.10", func() error { return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnRedirectNeigh) }},
			{"bpf_loop", "5.17", func() error { return features.HaveProgramHelper(ebpf.SchedCLS, asm.FnLoop) }},
			fetch,
			kernelBTF,
		}
	}
	if what == "splice" {
		return []feature{
			{"SK_SKB programs (CONFIG_BPF_STREAM_PARSER)", "4.14", func() error { return features.HaveProgramType(ebpf.SkSKB) }},
			{"BPF ring buffers", "5.8", func() error { return features.HaveMapType(ebpf.RingBuf) }},
			{"SOCKMAP (CONFIG_BPF_STREAM_PARSER)", "4.14", probeSockMap},
			kernelBTF,
		}
	}
	return []feature{
		{"SK_LOOKUP programs", "5.9", func() error { return features.HaveProgramType(ebpf.SkLookup) }},
		fetch,
	}
}

// lacking returns the first feature that isn't there; nil: all are, or can't
// be told.
func lacking(what string) *feature {
	for _, f := range featuresOf(what) {
		if errors.Is(f.probe(), ebpf.ErrNotSupported) {
			return &f
		}
	}
	return nil
}

// probeFetch loads a program of one fetching atomic. Since 5.12 (commit
// 5ca419f2864a); before, the encoding is refused with EINVAL.
func probeFetch() error {
	fetch := asm.FetchAdd.Mem(asm.RFP, asm.R1, asm.DWord, -8)
	// cilium/ebpf v0.22.0 writes the operation of an instruction made by Mem
	// as 0, a plain add, which any kernel takes; from Constant it doesn't.
	fetch.Constant = int64(asm.FetchAdd >> 8)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R1, 1),
			fetch,
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
		License: "GPL",
	})
	if err == nil {
		return p.Close()
	}
	return supported(err)
}

func probeBTF() error {
	_, err := btf.LoadKernelSpec()
	return err
}

// supported tells a kernel that doesn't know something (EINVAL) from one that
// has no room or doesn't permit it.
func supported(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return ebpf.ErrNotSupported
	}
	return err
}

// probeSockMap creates one: the map type exists whenever BPF does, but fails
// with EINVAL where the kernel was built without CONFIG_BPF_STREAM_PARSER.
func probeSockMap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err == nil {
		return m.Close()
	}
	return supported(err)
}
