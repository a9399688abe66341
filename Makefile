# xdirector: build, try, test. `make` alone prints the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
# As it is delivered; and what host and virtual machine run is compiled once.
export CGO_ENABLED := 0

VERSION := $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo dev)
STEP := @tools/step
VM := $(CURDIR)/test/vm/exec
# A limit against what hangs: an emulated processor that is shared with other tests takes its time.
export VM_TIMEOUT := 900
STATICCHECK := go tool -modfile=tools/go.mod staticcheck
# What runs on the host in seconds, the longest first; the rest of test/ has steps of its own. Elections are about time, so
# that package is alone.
UNIT := ./pkg/xdp ./cmd/... $(filter-out ./pkg/ha ./pkg/xdp,$(patsubst %/,%,$(wildcard ./pkg/*/))) ./test/arch ./test/bench ./test/lab ./test/release
FUZZTIME ?= 30s

# Debian packages. clang is pinned: another version makes other objects.
PACKAGES_GENERATE := clang-19 llvm-19
PACKAGES_DEMO := nginx-light
PACKAGES_TEST := $(PACKAGES_GENERATE) $(PACKAGES_DEMO) keepalived frr ipvsadm iproute2 procps curl systemd ethtool nftables iptables \
	qemu-system-x86 kmod cpio busybox-static xz-utils prometheus chromium-headless-shell \
	man-db mandoc bash-completion zsh fish
PACKAGES_LONG := $(PACKAGES_TEST) gcc libc6-dev iputils-arping tcpdump rpm buildah

##@ Use
.PHONY: help build demo
help: ## Print this
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) ":" } /^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/xdirector
	@go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/xdirector ./cmd/xdirector

demo: deps-demo ## See a failover: two directors, three real servers, a client, in namespaces (root)
	$(STEP) 'build bin/xdirector' $(MAKE) --no-print-directory build
	@go build -buildvcs=false -o bin/demo ./test/demo
	@bin/demo -xdirector bin/xdirector

##@ Deliver
.PHONY: packages release
packages: ## bin/packages: .deb, .rpm and .tar.gz for this machine's architecture
	@rm -rf bin/packages
	@tools/package $(VERSION) $$(go env GOHOSTARCH) bin/packages
	@ls bin/packages/*

release: ## bin/release: packages for amd64 and arm64, bills of materials, licences, sums
	@tools/release $(VERSION) bin/release
	@ls bin/release/*

##@ Test
.PHONY: test test-static test-unit test-e2e test-vm test-long fuzz bench bench-vm bench-vrrp
test: deps-test ## Test everything (root)
	@tools/step 'all tests' $(MAKE) --no-print-directory test-static test-unit test-e2e test-vm test-planes

test-static: deps-generate ## Format, vet, staticcheck, generated files
	$(STEP) 'gofmt' tools/format
	$(STEP) 'go vet' go vet ./...
	$(STEP) 'staticcheck' $(STATICCHECK) ./...
	@cd tools && go vet ./inventory && go tool staticcheck ./inventory
	$(STEP) 'the generated files are those of bpf/' tools/check-generate

test-unit: test-election test-packages ## Packages, packet tables, lab, architecture (root)

test-e2e: build packages ## The whole system on the XDP plane, in namespaces (root)
	$(STEP) 'end to end on XDP, on this kernel' env LAB=1 XDIRECTOR_BIN=$(CURDIR)/bin/xdirector tools/gotest bin/test/e2e.txt -v -count=1 -parallel 4 -timeout 12m ./test/e2e

test-vm: test-vm-kernel test-vm-e2e ## The whole system on the IPVS plane and on kernel 6.1, in a virtual machine (root)

.PHONY: test-election test-packages test-vm-e2e test-vm-kernel test-planes
test-election:
	$(STEP) 'the election on this kernel' env LAB=1 go test -count=1 -timeout 5m ./pkg/ha

test-packages: packages
	$(STEP) 'packages on this kernel' env LAB=1 go test -p 2 -count=1 -timeout 12m $(UNIT)

test-vm-e2e: build
	$(STEP) 'end to end on IPVS, on kernel 6.1' env LAB=1 XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/e2e-vm.txt -v -count=1 -exec $(VM) -timeout 16m ./test/e2e

test-vm-kernel: build
	$(STEP) 'the virtual machine' env LAB=1 go test -count=1 -timeout 16m -skip TestDoctor ./test/vm
	$(STEP) 'IPVS on kernel 6.1' env LAB=1 go test -count=1 -exec $(VM) -timeout 16m ./pkg/ipvs
	$(STEP) 'packets and adverts in XDP on kernel 6.1' env LAB=1 \
		go test -count=1 -exec $(VM) -timeout 16m -run 'TestKernel|EachPacket|ASilentMaster' ./pkg/xdp

test-planes:
	$(STEP) 'which scenario has passed on which plane' tools/planes 'xdp-native xdp-generic ipvs none' bin/test/e2e.txt bin/test/e2e-vm.txt

test-long: deps-long build packages ## What takes longer: race detector, fuzzing, repetitions (root)
	$(STEP) 'packages with the race detector' env LAB=1 CGO_ENABLED=1 go test -race -p 1 -count=1 -timeout 20m ./pkg/ha $(UNIT)
	$(STEP) 'fuzzing' tools/fuzz 2m
	$(STEP) 'a million bad adverts on the wire' env LAB=1 XDIRECTOR_ADVERTS=1000000 XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/adverts.txt -v -count=1 -timeout 10m -run TestOnlyValidAdvertsChangeAState ./test/e2e
	$(STEP) 'a reload every 100 ms for a minute' env LAB=1 XDIRECTOR_RELOADS=1m XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/reloads.txt -v -count=1 -timeout 5m -run TestReloadEvery100Milliseconds ./test/e2e
	$(STEP) 'every command of the pages for operators' env LAB=1 XDIRECTOR_PAGES=all XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/pages.txt -v -count=1 -timeout 5m -run 'TestOperatorsPages|TestNoPage' ./test/e2e
	$(STEP) 'pairs of keepalived, and what they are converted to' env LAB=1 XDIRECTOR_SETUPS=all XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/setups.txt -v -count=1 -timeout 5m -run TestConvertedPairBehaves ./test/e2e
	$(STEP) 'the same pairs with services, on IPVS and XDP, on kernel 6.1' env LAB=1 VM_TIMEOUT=1500 XDIRECTOR_SETUPS=all XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/setups-vm.txt -v -count=1 -exec $(VM) -timeout 26m -run TestConvertedPairServes ./test/e2e
	$(STEP) 'the way from keepalived and back, as its page has it, on kernel 6.1' env LAB=1 XDIRECTOR_PAGES=all XDIRECTOR_BIN=$(CURDIR)/bin/xdirector \
		tools/gotest bin/test/migration.txt -v -count=1 -exec $(VM) -timeout 16m -run TestMigrationPage ./test/e2e
	$(STEP) 'a million adverts in the XDP program' env LAB=1 XDIRECTOR_ADVERTS=1000000 \
		go test -count=1 -timeout 10m -run TestTheFilterDrops ./pkg/xdp
	$(STEP) 'all of XDP on kernel 6.1' env LAB=1 go test -count=1 -exec $(VM) -timeout 16m ./pkg/xdp
	$(STEP) 'all that the unit does under systemd' env LAB=1 XDIRECTOR_UNIT_ALL=1 \
		go test -count=1 -timeout 16m -run TestUnitRuns ./test/vm
	$(STEP) 'the same from an .rpm' env LAB=1 XDIRECTOR_PACKAGE_KIND=rpm \
		go test -count=1 -timeout 16m -run TestUnitRuns ./test/vm
	$(STEP) 'the same from a .tar.gz, by the lines of its page' env LAB=1 XDIRECTOR_PACKAGE_KIND=tar.gz \
		go test -count=1 -timeout 16m -run TestUnitRuns ./test/vm
	$(STEP) 'the release' tools/release $(VERSION) bin/release
	$(STEP) 'the release, built once more elsewhere, is the same' tools/check-release $(VERSION)
	$(STEP) 'the release holds what it should' env XDIRECTOR_RELEASE=1 go test -count=1 ./test/release
	$(STEP) 'the container image' tools/check-image
	$(STEP) 'what the doctor finds on kernel 6.1: IPVS, cards, VLANs, bonds' env LAB=1 VM_NICS="e1000 vmxnet3" \
		go test -count=1 -exec $(VM) -timeout 16m -run TestKernel ./pkg/doctor
	$(STEP) 'the doctor beside NetworkManager, firewalld, ConnMan and DHCP clients' env LAB=1 XDIRECTOR_DEBS=1 go test -count=1 -timeout 5m -run TestDebian ./pkg/doctor
	$(STEP) 'the doctor under systemd: real servers, the service, systemd-networkd, rights' env LAB=1 XDIRECTOR_BIN=$(CURDIR)/bin/xdirector go test -count=1 -timeout 16m -run TestDoctor ./test/vm
	$(STEP) 'end to end, five times' env LAB=1 XDIRECTOR_BIN=$(CURDIR)/bin/xdirector tools/gotest bin/test/e2e-long.txt -v -count=5 -timeout 60m ./test/e2e
	@echo "test-long: passed on $$(date -u +%F), version $(VERSION)"

fuzz: ## Every fuzz target for FUZZTIME (30s)
	@tools/fuzz $(FUZZTIME)

bench: deps-demo build ## ns per packet, and outage of a failover, as JSON and as a table (root)
	@go run ./test/bench -json -xdirector bin/xdirector
	@go run ./test/failover -json -xdirector bin/xdirector

bench-vm: deps-test ## Instructions per packet, by IPVS and by XDP, in a virtual machine that counts them (root)
	@go build -buildvcs=false -o bin/bench ./test/bench
	@VM_ICOUNT=1 $(VM) $(CURDIR)/bin/bench -json -only instructions

bench-vrrp: deps-bench build ## The election beside keepalived's: outage, CPU, memory, a thousand instances (root; BENCH_VRRP=flags)
	@go run ./test/benchvrrp -json -xdirector bin/xdirector $(BENCH_VRRP)

##@ Work
.PHONY: generate check-generate clean
generate: deps-generate ## Compile bpf/ into pkg/xdp and test/bench; commit the result
	@go generate ./pkg/xdp ./test/bench

check-generate: deps-generate ## Compare the committed files with what bpf/ gives
	@tools/check-generate

clean: ## Remove bin/
	@rm -rf bin

.PHONY: deps-generate deps-demo deps-bench deps-test deps-long
deps-generate:
	@tools/deps $(PACKAGES_GENERATE)
deps-demo:
	@tools/deps $(PACKAGES_DEMO)
deps-bench:
	@tools/deps $(PACKAGES_DEMO) keepalived
deps-test:
	@tools/deps $(PACKAGES_TEST)
deps-long:
	@tools/deps $(PACKAGES_LONG)

# What can't run here is said in one line, and make ends with 1: a recipe that fails would add a line, and end it with
# 2. With -q no recipe runs at all.
LAB_GOALS := $(filter demo test test-unit test-e2e test-vm test-long bench bench-vm bench-vrrp,$(MAKECMDGOALS))
ifneq ($(LAB_GOALS),)
ifneq ($(shell tools/ready $(firstword $(LAB_GOALS)) >&2 && echo ready),ready)
MAKEFLAGS += -q
endif
endif
