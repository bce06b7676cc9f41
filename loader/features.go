// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
)

// feature is something that a kernel may lack, found out by trying.
type feature struct {
	missing string // as in KernelError
	since   string
	probe   func() error // nil: it is there, or can't be told
}

// featuresOf returns what a program needs, the likeliest to be missing last:
// the first that is missing is the one to name.
func featuresOf(what string) []feature {
	fetch := feature{"BPF atomics that fetch", "5.12", probeFetch}
	kernelBTF := feature{"type information (/sys/kernel/btf/vmlinux, CONFIG_DEBUG_INFO_BTF)", "", probeBTF}
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

// lacking explains a failed load by a feature that isn't there. nil: all are.
func lacking(what string, cause error) error {
	for _, f := range featuresOf(what) {
		if err := f.probe(); errors.Is(err, ebpf.ErrNotSupported) {
			return &KernelError{What: what, Missing: f.missing, Since: f.since, Err: cause}
		}
	}
	return nil
}

// probeFetch loads a program of one fetching atomic. Since 5.12 (commit
// 5ca419f2864a); before, the encoding is refused with EINVAL.
func probeFetch() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R1, 1),
			asm.FetchAdd.Mem(asm.RFP, asm.R1, asm.DWord, -8),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
		License: "GPL",
	})
	switch {
	case err == nil:
		return p.Close()
	case refused(err):
		return nil // can't be told
	}
	return ebpf.ErrNotSupported
}

func probeBTF() error {
	if _, err := btf.LoadKernelSpec(); err != nil {
		return ebpf.ErrNotSupported
	}
	return nil
}

// probeSockMap creates one: the map type exists whenever BPF does, but fails
// with EINVAL where the kernel was built without CONFIG_BPF_STREAM_PARSER.
func probeSockMap() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	switch {
	case err == nil:
		return m.Close()
	case refused(err):
		return nil
	}
	return ebpf.ErrNotSupported
}
