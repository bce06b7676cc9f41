# SPDX-License-Identifier: Apache-2.0
# Targets of the bench. They need root: the hosts are network namespaces.

.PHONY: bench bench-quick bench-compare bench-profile bench-report bench-peers bench-perf

# Debian starts a service as soon as it is installed. RUNLEVEL=1 keeps
# invoke-rc.d from it, so that no daemon is left behind.
BENCH_APT = RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends

# Everything, into bench/results and docs/benchmarks.md: about an hour.
bench: bench-peers
	go run ./bench run

# The main figures in two minutes.
bench-quick: bench-peers
	go run ./bench quick

# make bench-compare A=main B=HEAD [W=rps64,connrate]
bench-compare: bench-peers
	go run ./bench compare $(if $(W),-w $(W)) $(A) $(B)

# make bench-profile D=splice W=rps64
bench-profile: bench-peers bench-perf
	go run ./bench profile $(D) $(W)

# docs/benchmarks.md anew, from the last result.
bench-report:
	go run ./bench report

bench-peers:
	@missing=; \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$$missing nginx-light"; \
	ls /usr/lib*/nginx/modules/ngx_stream_module.so >/dev/null 2>&1 || missing="$$missing libnginx-mod-stream"; \
	command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing="$$missing haproxy"; \
	[ -z "$$missing" ] || { apt-get update && $(BENCH_APT) $$missing; }

bench-perf:
	@command -v perf >/dev/null || { apt-get update && $(BENCH_APT) linux-perf; }
