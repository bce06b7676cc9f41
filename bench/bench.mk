# SPDX-License-Identifier: Apache-2.0
# Targets of the bench. They need root: the hosts are network namespaces.

.PHONY: bench bench-quick bench-compare bench-profile bench-report bench-vm bench-peers bench-perf

# Everything, into bench/results and docs/benchmarks.md: about an hour.
bench: bench-peers
	go run -C bench . run

# The main figures in five minutes.
bench-quick: bench-peers
	go run -C bench . quick

# make bench-compare A=main B=HEAD [W=rps64,connrate]
bench-compare: bench-peers
	go run -C bench . compare $(if $(W),-w $(W)) $(A) $(B)

# make bench-profile D=splice W=rps64
bench-profile: bench-peers bench-perf
	go run -C bench . profile $(D) $(W)

# The main figures on another kernel, in QEMU, IPVS included: make bench-vm VM_KERNEL=6.12
bench-vm: bench-peers
	@scripts/deps vm
	go run -C bench . vm -kernel $(VM_KERNEL)

# docs/benchmarks.md and README's table anew, from the last result.
bench-report:
	go run -C bench . report

bench-peers:
	@scripts/deps build bench

bench-perf:
	@scripts/deps perf
