# SPDX-License-Identifier: Apache-2.0
# Needs Go and make; what else a target needs it installs (scripts/deps, Debian and Ubuntu).

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

PREFIX      ?= /usr/local
SYSCONFDIR  ?= /etc
UNITDIR     ?= /etc/systemd/system
TESTFLAGS   ?=
TESTTIMEOUT ?= 15m
SESSIONS    ?= 1000000
# Virtual machines, emulated, take minutes: `make test VMFLAGS=` boots those of vmtest's own tests.
VMFLAGS     ?= -short

.PHONY: build demo test torture lint generate fmt install clean help

help:           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build:          ## ./sluice, static
	@scripts/deps build
	CGO_ENABLED=0 go build -trimpath -o sluice ./cmd/sluice

demo: build     ## balances, edits and logs over loopback; no root, no configuration
	@./sluice demo

test:           ## everything with the race detector; as root also what needs namespaces and BPF
	@scripts/deps test
	@# Those that take longest begin first: the others fit in beside them.
	CGO_ENABLED=1 go test -race -timeout $(TESTTIMEOUT) $(TESTFLAGS) $$(go list ./proxy ./e2e ./loader ./... | grep -v /vmtest)
	cd bench && CGO_ENABLED=1 go test -race -timeout $(TESTTIMEOUT) $(TESTFLAGS) ./...
	go test -timeout $(TESTTIMEOUT) $(VMFLAGS) ./vmtest/...

torture:        ## SESSIONS (10^6: an hour a datapath) checked to the byte on a bad network; ONLY=splice
	@scripts/deps build
	SLUICE_TORTURE=$(SESSIONS) go test -v -count=1 -timeout 0 -run 'TestTortureTight/$(ONLY)' ./proxy

lint:           ## what .ci/run demands of the source
	@scripts/deps lint
	@scripts/lint

generate:       ## the Go bindings and objects of bpf/, with clang
	@scripts/deps lint
	go generate ./bpf

fmt:
	@scripts/deps lint
	gofmt -l -w $$(git ls-files -co --exclude-standard '*.go')
	clang-format -i bpf/*.c bpf/*.h

install: build  ## the binary, the systemd unit, log rotation, an example; no backends.yaml is touched
	install -D -m 0755 sluice $(DESTDIR)$(PREFIX)/sbin/sluice
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSCONFDIR)/sluice
	sed 's|/usr/local/sbin/sluice|$(PREFIX)/sbin/sluice|' packaging/sluice.service >$(DESTDIR)$(UNITDIR)/sluice.service
	install -D -m 0644 packaging/logrotate.d/sluice $(DESTDIR)$(SYSCONFDIR)/logrotate.d/sluice
	install -D -m 0644 examples/milvus/backends.yaml $(DESTDIR)$(PREFIX)/share/doc/sluice/examples/backends.yaml

clean:
	rm -f sluice vmtest-run vmtest/.vm-sluice

# Benchmarks and virtual machines: docs/performance.md, docs/vmtest.md.
-include bench/bench.mk vmtest/vmtest.mk
