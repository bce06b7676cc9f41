// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the generated bindings of the BPF programs beside it, and
// nothing else. The Go code that loads and drives them is in loader.
package bpf

//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -target bpfel,bpfeb Dispatch dispatch.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I.
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -target bpfel,bpfeb Splice splice.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I.
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -target bpfel,bpfeb Forward forward.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I.
//go:generate go tool -modfile=../tools/go.mod bpf2go -go-package bpf -target bpfel,bpfeb ForwardStub forward_stub.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -I.
