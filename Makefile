# make help lists the verbs. docs/testing.md describes the tests.
SHELL := /bin/bash
GO ?= go
BIN := bin
DIST := dist
# X.Y.Z at a tag; behind it the number of commits since, which sorts by age (docs/releases.md).
VERSION ?= $(shell packaging/version.sh)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null)
COMMITTED := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X rackpower/cmd/settings.commit=$(COMMIT) -X rackpower/cmd/settings.date=$(COMMITTED)
# The linter and govulncheck have a module of their own, so that what they need is none of ours.
TOOL := $(GO) tool -modfile=tools/go.mod
FUZZTIME ?= 20s
SOAK_TIME ?= 10m
SOAK_SEED ?=
SOAK_SPARED ?=
DESTDIR ?=
PREFIX ?= /usr/local

.DEFAULT_GOAL := build
.PHONY: help build check test race soak proof mutations lint vuln fuzz bench bench-functions bench-compare growth page screenshots doors demo deb rpm packages-test promise install deps clean

help: ## list the verbs
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

# The command line's library can write Markdown and manuals, which is not used here: left out, what that
# needs does not start with every command.
build: ## both programs, into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -tags urfave_cli_no_docs -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN)/rackpower ./cmd/rackpower
	CGO_ENABLED=1 $(GO) build -trimpath -buildvcs=false $(MODE) -ldflags '$(LDFLAGS)' -o $(BIN)/rackpower-central ./cmd/rackpower-central

# What the tests can use beyond Go and a C compiler. Installed when that is
# possible without asking; otherwise named, and the checks that need it are left out.
TOOLS := ipmi_sim:openipmi ipmitool:ipmitool ipmipower:freeipmi-tools systemd-analyze:systemd nft:nftables ip:iproute2 \
  chromium:chromium redfishtool:redfishtool fence_redfish:fence-agents fence_ipmilan:fence-agents /usr/lib/python3/dist-packages/sushy:python3-sushy prometheus:prometheus
TOOLS += slurmctld:slurmctld sbatch:slurm-client stonith_admin:pacemaker powermand:powerman lintian:lintian mandoc:mandoc zsh:zsh fish:fish pg_ctlcluster:postgresql
deps: ## install what the tests can use (root, Debian), or name it
	@missing=(); for t in $(TOOLS); do PATH="$$PATH:/usr/sbin:/sbin" command -v "$${t%%:*}" >/dev/null || [ -e "$${t%%:*}" ] || missing+=("$${t##*:}"); done; \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing for the tests: $${missing[*]}"; \
	  (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}") >/dev/null 2>&1 && exit 0; \
	fi; \
	echo "LEFT OUT: the checks that need $${missing[*]} (Debian packages; install them to have these checks run)"

# The short tests: no whole processes, no long models, nothing that waits for seconds.
WAITING := TestAgentsThatWereAwayTogetherGetTheKey|TestEveryCommandKnowsSilence|TestAHelloThatWasOvertakenIsVoid|TestWhatIsRememberedAges|TestATargetThatDoesNotAnswer
check: build lint ## build, lint and the short tests: before each commit
	$(GO) test -short -skip '^($(MODELS)|$(WAITING))' ./agent/... ./central/... ./internal/... ./journal/... ./power/... ./systemd \
	  ./cmd/daemon ./cmd/docscheck ./cmd/printer ./cmd/rackpower/... ./cmd/settings ./cmd/term
	$(GO) test -short -run '^Test(Imports|Only|AgentIsFree)' ./cmd

# The packages where goroutines meet run with the race detector here, but for the agent's
# long models, which are one goroutine's at a time and follow without it; make race runs
# everything with it, which takes several minutes longer. The tests of whole processes, which
# mostly wait, run beside.
RACED := ./agent/... ./journal/... ./power ./power/bmcsim ./power/ipmi ./power/exec ./power/powertest ./power/redfish ./systemd
DEATHS := TestNothingIsSentTwiceAfterDamage|TestCrashAtEveryRecord|TestFleetComesBack
MODELS := TestSim(Ops|Fleet|Damage|Transcripts)|TestMutationsCompile|$(DEATHS)
test: deps build ## every test but the long ones below, about 10 minutes
	@$(MAKE) --no-print-directory -j2 test-packages test-processes

.PHONY: test-packages test-processes
test-packages:
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -race -timeout 20m -skip '^($(MODELS))' $(RACED)
	GOGC=400 PROOF_HISTORIES=5000 PROOF_STRIDE=60 $(GO) test -timeout 9m -run '^(TestSim(Ops|Transcripts)|TestMutationsCompile|$(DEATHS))' ./agent
	GOGC=400 $(GO) test -timeout 9m -run '^TestSim(Fleet|Damage)$$' ./agent
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -p 1 -timeout 20m ./central/... ./gossip ./internal/... ./power/cronexpr ./power/noderange
	$(GO) test -run AllocatesLittle ./power ./power/ipmi
test-processes:
	PATH="$$PATH:/usr/sbin:/sbin" RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" $(GO) test -p 1 -timeout 20m ./cmd/...

race: deps build ## every test with the race detector, and the order of locks; 15 minutes
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -race -timeout 20m ./...
	PROOF_HISTORIES=50 $(GO) test -tags lockrank -timeout 20m -run '^Test(Order|Sim(Ops|Fleet|Damage|Transcripts))$$' ./internal/lock ./agent

# Whole processes and both simulators under every fault, for SOAK_TIME; a verdict at
# the end. What needs root (disks that fill up and break) is left out without.
soak: deps build ## whole processes under every fault for SOAK_TIME
	PATH="$$PATH:/usr/sbin:/sbin" RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" SOAK_TIME="$(SOAK_TIME)" SOAK_SEED="$(SOAK_SEED)" SOAK_SPARED="$(SOAK_SPARED)" \
	  $(GO) test ./cmd -run '^TestSoak$$' -v -count=1 -timeout 0

# Deaths within every write of a few lives, at every PROOF_STRIDE bytes; then random
# histories of a whole agent against a model of the rules, of one whose monitor enforces the
# desired power of many nodes, and of one whose logs are damaged or put back, until so many
# were played or a third of the time has passed for each. See agent/simtest/README.md.
PROOF_HISTORIES ?= 1000000
PROOF_TIME ?= 30m
PROOF_SEED ?= $(shell date +%s)
PROOF_STRIDE ?= 4
proof: ## random histories against a model of the rules, PROOF_TIME
	GOGC=400 PROOF_STRIDE=$(PROOF_STRIDE) $(GO) test -count 1 -timeout 0 -v -run '^TestSim(OpsCrashEverywhere|Transcripts)$$' ./agent | grep -v '^=== '; exit $${PIPESTATUS[0]}
	GOGC=400 PROOF_HISTORIES=$(PROOF_HISTORIES) PROOF_TIME=$(PROOF_TIME) PROOF_SHARE=3 PROOF_SEED=$(PROOF_SEED) $(GO) test -count 1 -timeout 0 -v -run '^TestSim(Ops|Fleet|Damage)$$' ./agent | grep -v '^=== '; exit $${PIPESTATUS[0]}

# Does the proof find each rule broken in the code? Takes about fifteen minutes.
PROOF_MUTATIONS ?= all
mutations: ## break each rule in the code: do the tests find it? 15 minutes
	PROOF_MUTATIONS="$(PROOF_MUTATIONS)" PROOF_HISTORIES=20000 $(GO) test -count 1 -timeout 0 -v -run '^TestMutations$$' ./agent ./central | grep -v '^=== '; exit $${PIPESTATUS[0]}

lint: ## format, vet and the linters of .golangci.yml
	$(TOOL) golangci-lint run

vuln: ## known vulnerabilities in what is imported (needs the network)
	$(TOOL) govulncheck ./...

# Each fuzz target in turn, for FUZZTIME.
fuzz: ## each fuzz target for FUZZTIME
	@set -e; for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz || true); do \
	  echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; done; done

# Whole processes beside a baseline of the same run: a table, and bin/bench.json. BENCH is a
# regular expression that chooses rows by name, RUNS how often each is measured.
BENCH ?=
RUNS ?= 5
MEASURE := cd cmd && RACKPOWER_BENCH=1 RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" RUNS='$(RUNS)' COMMIT='$(COMMIT)'
TABLE := "$(CURDIR)/$(BIN)/bench.test" -test.run '^TestBench$$' -test.timeout 0
bench: deps build ## what people wait for, beside other tools: a table
	$(GO) test -c -o $(BIN)/bench.test ./cmd
	$(MEASURE) BENCH='$(BENCH)' RACKPOWER_BENCH_JSON="$(CURDIR)/$(BIN)/bench.json" $(TABLE)

growth: build ## what a node costs in fleets of all sizes: a table, and plots below docs/benchmarks
	$(GO) test -c -o $(BIN)/bench.test ./cmd
	$(MEASURE) BENCH=growth RACKPOWER_BENCH_JSON="$(CURDIR)/$(BIN)/growth.json" $(TABLE)
	cd tools && $(GO) run ./benchplot ../$(BIN)/growth.json ../docs/benchmarks

bench-functions: deps ## Go benchmarks of the hot paths
	PATH="$$PATH:/usr/sbin:/sbin" $(GO) test -run '^$$' -bench . -benchtime 1s ./...

# What is newer than the last release, or than BASE, in COUNT rounds of both in turn.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-list --max-parents=0 HEAD)
COUNT ?= 6
bench-compare: deps ## Go benchmarks of the hot paths beside those of BASE, by benchstat
	PATH="$$PATH:/usr/sbin:/sbin" tools/bench-compare.sh "$(BASE)" $(COUNT)

PAGE := PATH="$$PATH:/usr/sbin:/sbin" RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" RACKPOWER_PAGE=1
page: deps build ## the page in a browser: accessibility, cuts, 10,000 nodes, an hour of events; 6 minutes
	$(PAGE) $(GO) test -count 1 -timeout 20m -v -run '^TestThePage' ./cmd

screenshots: deps build ## each page at three widths, into bin/screenshots
	@mkdir -p $(BIN)/screenshots
	$(PAGE) RACKPOWER_SHOTS="$(CURDIR)/$(BIN)/screenshots" $(GO) test -count 1 -run '^TestThePagesAreAccessible$$' ./cmd

doors: deps build ## Pacemaker, Slurm and fence agents as they meet rackpower; 6 minutes
	PATH="$$PATH:/usr/sbin:/sbin" RACKPOWER_TEST_BIN="$(CURDIR)/$(BIN)" RACKPOWER_DOORS=1 $(GO) test -count 1 -timeout 30m -v \
	  -run '^Test(FenceAgent|PacemakerFences|SlurmSavesPower|ProgramsFromCLIToBMC)$$' ./cmd

demo: build ## a simulated rack, and an agent that is killed at work
	$(BIN)/rackpower demo

# Central is position-independent there, as Debian has it; that compiles SQLite once more.
deb rpm: MODE := -buildmode=pie
deb: build ## Debian packages, into dist/
	packaging/build.sh "$(VERSION)" $(BIN) $(DIST) deb

rpm: build ## RPM packages, into dist/
	packaging/build.sh "$(VERSION)" $(BIN) $(DIST) rpm

packages-test: deps ## packages are made twice, installed, upgraded and purged; 12 minutes
	PACKAGES_TEST=1 PATH="$$PATH:/usr/sbin:/sbin" $(GO) test ./cmd -run '^TestPackages' -count=1 -v -timeout 60m

promise: ## before a release: what is new is promised from now on (docs/releases.md)
	$(GO) test ./cmd/docscheck -run '^TestNothingPromisedGoes$$' -promise

install: build ## programs, units and configuration, below DESTDIR
	systemd/install.sh "$(DESTDIR)" "$(PREFIX)" "$(BIN)"

clean: ## remove bin/ and dist/
	rm -rf $(BIN) $(DIST)
