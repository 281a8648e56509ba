# Verbs: build test race soak proof mutations lint fuzz bench demo install deps. See README.md.
SHELL := /bin/bash
GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 20s
SOAK_TIME ?= 10m
SOAK_SEED ?=
DESTDIR ?=
PREFIX ?= /usr/local

.PHONY: build test race soak proof mutations lint fuzz bench demo install deps clean

build:
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/rackpower ./cmd/rackpower
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/rackpower-central ./cmd/rackpower-central

# What the tests can use beyond Go and a C compiler. Installed when that is
# possible without asking; otherwise said, and the checks that need it are left out.
TOOLS := ipmi_sim:openipmi ipmitool:ipmitool ipmipower:freeipmi-tools systemd-analyze:systemd nft:nftables ip:iproute2
deps:
	@missing=(); for t in $(TOOLS); do PATH="$$PATH:/usr/sbin:/sbin" command -v "$${t%%:*}" >/dev/null || missing+=("$${t##*:}"); done; \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing for the tests: $${missing[*]}"; \
	  (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}") >/dev/null 2>&1 && exit 0; \
	fi; \
	echo "LEFT OUT: the checks that need $${missing[*]} (Debian packages; install them to have these checks run)"

# The packages where goroutines meet run with the race detector here, but for the agent's
# long models, which are one goroutine's at a time; make race runs everything with it, which
# takes several minutes longer. The tests of whole processes, which mostly wait, run beside.
RACED := ./agent ./journal/... ./power ./power/bmcsim ./power/ipmi ./power/powertest ./systemd
DEATHS := TestNothingIsSentTwiceAfterDamage|TestCrashAtEveryRecord|TestHallComesBack
MODELS := TestHall$$|TestProof|TestDamage$$|TestMutationsCompile|$(DEATHS)
test: deps build
	@$(MAKE) --no-print-directory -j2 test-raced test-processes
	GOGC=400 PROOF_HISTORIES=5000 PROOF_STRIDE=60 $(GO) test -timeout 9m -run '^(TestProof|TestMutationsCompile|$(DEATHS))' ./agent
	GOGC=400 $(GO) test -timeout 9m -run '^(TestHall|TestDamage)$$' ./agent

.PHONY: test-raced test-processes
test-raced:
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -race -timeout 20m -skip '^($(MODELS))' $(RACED)
test-processes:
	PATH="$$PATH:/usr/sbin:/sbin" RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" $(GO) test -p 1 -timeout 20m ./cmd/... ./central/... ./gossip ./power/cronexpr ./power/noderange

race: deps build
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -race -timeout 20m ./...

# Whole processes and both simulators under every fault, for SOAK_TIME; a verdict at
# the end. What needs root (disks that fill up and break) is left out without.
soak: deps build
	PATH="$$PATH:/usr/sbin:/sbin" RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" SOAK_TIME="$(SOAK_TIME)" SOAK_SEED="$(SOAK_SEED)" \
	  $(GO) test ./cmd -run '^TestSoak$$' -v -count=1 -timeout 0

# Deaths within every write of a few lives, at every PROOF_STRIDE bytes; then random
# histories of a whole agent against a model of the rules, of one whose monitor has a hall
# in hand, and of one whose logs are damaged or put back, until so many were played or a
# third of the time has passed for each. See agent/README.md.
PROOF_HISTORIES ?= 1000000
PROOF_TIME ?= 30m
PROOF_SEED ?= $(shell date +%s)
PROOF_STRIDE ?= 4
proof:
	GOGC=400 PROOF_STRIDE=$(PROOF_STRIDE) $(GO) test -count 1 -timeout 0 -v -run '^TestProof(CrashEverywhere|Transcripts)$$' ./agent | grep -v '^=== '; exit $${PIPESTATUS[0]}
	GOGC=400 PROOF_HISTORIES=$(PROOF_HISTORIES) PROOF_TIME=$(PROOF_TIME) PROOF_SHARE=3 PROOF_SEED=$(PROOF_SEED) $(GO) test -count 1 -timeout 0 -v -run '^Test(Proof|Hall|Damage)$$' ./agent | grep -v '^=== '; exit $${PIPESTATUS[0]}

# Does the proof find each rule broken in the code? Takes about fifteen minutes.
PROOF_MUTATIONS ?= all
mutations:
	PROOF_MUTATIONS="$(PROOF_MUTATIONS)" PROOF_HISTORIES=20000 $(GO) test -count 1 -timeout 0 -v -run '^Test(Handover)?Mutations$$' ./agent ./central | grep -v '^=== '; exit $${PIPESTATUS[0]}

lint:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted: $$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "LEFT OUT: golangci-lint is not installed"; fi

# Each fuzz target in turn, for FUZZTIME.
fuzz:
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz || true); do \
	  echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; done; done

bench: deps
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -run '^$$' -bench . -benchtime 1s ./...

demo: build
	$(BIN)/rackpower demo

install: build
	systemd/install.sh "$(DESTDIR)" "$(PREFIX)" "$(BIN)"

clean:
	rm -rf $(BIN)
