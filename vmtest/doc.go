// SPDX-License-Identifier: Apache-2.0

// Package vmtest boots a distribution's kernel in QEMU and runs a program of this
// machine inside, so that its output and exit code come back as if it had run
// here. It is meant for `go test -exec`: compiled on the host, run in the guest.
//
// The host side (Run) packs an initramfs that holds the program, the libraries it
// needs, the module's tree and the kernel modules of modules.list. The guest side
// (Guest) is the same binary as process 1. docs/vmtest.md has the whole picture.
package vmtest
