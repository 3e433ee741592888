# pgspan - one connection string for a fleet of PostgreSQL servers.
#
#   make            build/pgspan and build/shardmap-tool
#   make demo       a throw-away fleet, pgspan before it, a tour; ONCE=1 ends by itself
#   make check      unit tests, fuzz corpora, and the suite on real servers
#   make check-postgres   PostgreSQL's own regression, isolation and pipeline tests through pgspan (minutes)
#   make deps       installs what is missing (Debian packages)
#
# SAN=address,undefined or SAN=thread builds with sanitizers into a folder of its own.

CC      ?= gcc
BUILD   ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
comma   := ,
OPT     ?= $(if $(SAN),-O1,-O2)
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wvla
CFLAGS  += -std=c11 -g $(OPT) -fno-omit-frame-pointer -D_GNU_SOURCE $(WARN) -pthread $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined)
CPPFLAGS+= -Iinclude -isystem $(shell pg_config --includedir 2>/dev/null || echo /usr/include/postgresql) -MMD -MP
LDFLAGS += -pthread $(if $(SAN),-fsanitize=$(SAN))
LDLIBS  := -lpq -lev -lxxhash -linih -lssl -lcrypto -lidn -lpg_query -lm

# libpg_query's raw tree is PostgreSQL's own: only proxy/sql/parse*.c may see those headers.
PGSERVER_INC := -isystem $(shell pg_config --includedir-server 2>/dev/null || echo /usr/include/postgresql/15/server)

SRC     := $(wildcard proxy/*.c proxy/*/*.c shardmap/*.c)
MAINS   := proxy/main.c shardmap/main.c
LIBOBJ  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(MAINS),$(SRC)))
UNIT    := $(wildcard tests/unit/*/test_*.c)
UNITBIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT))

all: $(if $(wildcard proxy/main.c),$(BUILD)/pgspan) $(LIBOBJ) $(BUILD)/shardmap-tool

$(BUILD)/pgspan: $(BUILD)/proxy/main.o $(LIBOBJ)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/shardmap-tool: $(BUILD)/shardmap/main.o $(filter $(BUILD)/shardmap/%,$(LIBOBJ))
	$(CC) $(LDFLAGS) -o $@ $^ -lxxhash

$(BUILD)/proxy/sql/parse%.o: CPPFLAGS += $(PGSERVER_INC)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# A unit test names the objects it needs in its first lines: "/* link: proxy/sql/scan.o ... */"
.SECONDEXPANSION:
link_objs = $(addprefix $(BUILD)/,$(shell sed -n 's,^/\* link: \(.*\) \*/$$,\1,p' $(1)))
$(BUILD)/unit/%: tests/unit/%.c $$(call link_objs,tests/unit/$$*.c)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -Iproxy -o $@ $(filter %.c %.o,$^) -lcmocka $(LDLIBS)

unit: $(UNITBIN)
	@for t in $(UNITBIN); do $$t || exit 1; done

clean:
	rm -rf build build-*

# The targets below set up all that they need: deps may install what this very make looked for in vain, so a make of its
# own builds.
deps:
	@.ci/deps

demo: deps
	@$(MAKE) -s -j$$(nproc) all
	@ONCE=$(ONCE) PGSPAN=$(BUILD)/pgspan tests/demo.sh

check: deps
	@CC=$(CC) SAN=$(SAN) BUILD=$(BUILD) tests/run_check.sh

# PostgreSQL's own tests, straight and through pgspan. Fetches PostgreSQL's source (23 MB) at the first time.
check-postgres: deps
	@$(MAKE) -s -j$$(nproc) all
	@tests/postgres/run --pgspan $(BUILD)/pgspan --work $(BUILD)/postgres

# Drivers that Debian has not: go, npm, cargo and mvn fetch them as the lock files say; what is not installed is left out.
check-drivers: deps
	@$(MAKE) -s -j$$(nproc) all
	@PGSPAN=$(BUILD)/pgspan tests/drivers/run

bench: deps
	@$(MAKE) -s -j$$(nproc) all
	@bench/run --pgspan $(BUILD)/pgspan && bench/idle --pgspan $(BUILD)/pgspan

# Fuzzers are clang's, with objects of their own. `make fuzz` runs each for FUZZ_SECONDS; what it finds of interest stays
# in build-fuzz/corpus, to be copied to tests/fuzz/corpus by hand.
FUZZ_SECONDS ?= 300
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
build-fuzz/fuzz/%: tests/fuzz/%.c $$(or $$(call link_objs,tests/fuzz/$$*.c),$$(LIBOBJ))
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $(filter %.c %.o,$^) $(LDLIBS) -lprotobuf-c
fuzzers:
	@$(MAKE) -s CC=clang SAN=fuzzer-no-link,address,undefined BUILD=build-fuzz $(FUZZERS:%=build-fuzz/fuzz/%)
fuzz: fuzzers
	@for f in $(FUZZERS); do n=$${f#fuzz_}; mkdir -p build-fuzz/corpus/$$n && echo "--- $$f" && \
	  build-fuzz/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -verbosity=0 \
	    -artifact_prefix=build-fuzz/$$f- build-fuzz/corpus/$$n tests/fuzz/corpus/$$n || exit 1; done

.PHONY: all unit clean deps demo check check-drivers check-postgres bench fuzz fuzzers
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
