# SPDX-License-Identifier: Apache-2.0
# Included by the top Makefile. See docs/vmtest.md.

VM_KERNEL ?= 6.12

.PHONY: vmtest vmtest-run vm

# The runner, for `go test -exec "$(pwd)/vmtest-run -kernel 6.1" ./loader`.
vmtest-run:
	CGO_ENABLED=0 go build -o vmtest-run ./vmtest/cmd/vmtest-run

# The suites of vmtest/suites on every kernel of vmtest/kernels.list; writes docs/kernels.md.
vmtest: vmtest-run
	CGO_ENABLED=0 go run ./vmtest/cmd/vmtest $(VMTEST_FLAGS)

# A shell in a virtual machine with sluice, two backends and a client: make vm VM_KERNEL=6.1
vm: vmtest-run
	@d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && \
	CGO_ENABLED=0 go build -o "$$d/sluice" ./cmd/sluice && \
	./vmtest-run -kernel $(VM_KERNEL) -shell -file "/usr/local/bin/sluice=$$d/sluice" "$$(command -v bash)" vmtest/vm/setup.sh
