# The version stands in pg_crm.control and nowhere else; META.json follows it.
EXTENSION   = pg_crm
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" pg_crm.control)

MODULE_big  = pg_crm
OBJS        = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
PG_CPPFLAGS = -I$(srcdir)/src -DPG_CRM_VERSION='"$(EXTVERSION)"'
PG_CFLAGS   = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
              -Wno-missing-field-initializers -MMD -MP \
              $(if $(findstring clang,$(CC)),-Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes)

# One source file a room; the order in which a room may use another one.
ROOMS            = base types rules facts profile outbox journey dispatch insight
EXTENSION_PARTS  = $(foreach room,$(ROOMS),$(sort $(wildcard sql/extension/$(room)*.sql)))
INSTALL_PARTS    = $(foreach room,$(ROOMS),$(sort $(wildcard sql/install/$(room)*.sql)))
EXTENSION_SCRIPT = sql/pg_crm--$(EXTVERSION).sql
NO_ROOM          = $(filter-out $(EXTENSION_PARTS) $(INSTALL_PARTS),$(wildcard sql/extension/*.sql sql/install/*.sql))

DATA_built  = $(EXTENSION_SCRIPT)
DATA        = $(filter-out $(EXTENSION_SCRIPT),$(sort $(wildcard sql/pg_crm--*--*.sql)))
EXTRA_CLEAN = $(EXTENSION_SCRIPT) $(OBJS:.o=.d) results

.DEFAULT_GOAL := all

# These targets do their own set-up (packages included), so they must work
# before PostgreSQL's build files are there.  A PG_CONFIG given by the caller is
# handed on; without one they choose.
FRAMED = test test-one accept test-data test-long test-faults test-peers test-versions test-bare test-clean \
         bench psql demo demo-stop format format-check
FRAME  = PG_CONFIG='$(PG_CONFIG_GIVEN)' T='$(T)' test/lib/run.sh
PG_CONFIG_GIVEN := $(PG_CONFIG)

.PHONY: $(FRAMED)
test test-one accept test-data test-long test-faults test-peers test-clean bench psql demo demo-stop:
	@$(FRAME) $@
test-versions:
	@test/lib/versions.sh check
test-bare:
	@test/lib/bare.sh

CLANG_FORMAT ?= clang-format-14
FORMATTED     = $(wildcard src/*.[ch] src/*/*.[ch] test/module/*.[ch])
format:
	@command -v $(CLANG_FORMAT) >/dev/null || { echo '$(CLANG_FORMAT) is missing: install clang-format-14' >&2; exit 1; }
	$(CLANG_FORMAT) -i $(FORMATTED)
format-check:
	@command -v $(CLANG_FORMAT) >/dev/null || { echo '$(CLANG_FORMAT) is missing: install clang-format-14' >&2; exit 1; }
	@! $(CLANG_FORMAT) --dry-run $(FORMATTED) 2>&1 | grep -oE '^(src|test)/[^:]*' | sort | uniq -c | \
	   sed 's/^ *\([0-9]*\) \(.*\)/\2: \1 places/' | grep .

ifneq ($(filter-out $(FRAMED),$(or $(MAKECMDGOALS),all)),)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
PG_MAJOR := $(or $(shell $(PG_CONFIG) --version 2>/dev/null | sed 's/^[^0-9]*\([0-9]*\).*/\1/'),15)
INCLUDE_SERVER := $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)
ifeq ($(and $(PGXS),$(wildcard $(INCLUDE_SERVER)/postgres.h)),)
$(error postgres.h is missing: install postgresql-server-dev-$(PG_MAJOR))
endif
ifeq ($(wildcard $(PGXS)),)
$(error pgxs.mk is missing: install postgresql-server-dev-$(PG_MAJOR))
endif
ifneq ($(NO_ROOM),)
$(error no room takes $(NO_ROOM): its name must begin with one of $(ROOMS))
endif

# A server built with LLVM wants bitcode beside the library; without its clang
# the library is built alone.
SERVER_CLANG := $(shell sed -n 's/^CLANG *= *//p' $(PGXS:makefiles/pgxs.mk=Makefile.global))
ifeq ($(shell command -v $(or $(SERVER_CLANG),clang) 2>/dev/null),)
override with_llvm = no
endif

# messages leave through libcurl
ifeq ($(shell command -v curl-config 2>/dev/null),)
$(error curl-config is missing: install libcurl4-openssl-dev)
endif
PG_CPPFLAGS += $(shell curl-config --cflags)
SHLIB_LINK  += $(shell curl-config --libs)

include $(PGXS)

# A session may load the library at any moment of its installation, so it
# changes in one step; install alone would remove it first and then write it.
INSTALL_SHLIB = $(INSTALL_SHLIB_ENV) sh -c '$(INSTALL) $(INSTALL_SHLIB_OPTS) $(INSTALL_STRIP_FLAG) "$$0" "$$1.new" && mv -f "$$1.new" "$$1"'

$(OBJS): pg_crm.control
-include $(wildcard $(OBJS:.o=.d))

# The install script travels inside the extension script, as the body of
# crm.install_script(), so that install() makes the tables that fit the
# functions of the same version.
$(EXTENSION_SCRIPT): $(EXTENSION_PARTS) $(INSTALL_PARTS) pg_crm.control Makefile
	@{ printf '%s\n' '-- made by make from sql/extension and sql/install; edit those' \
	     '\echo Use "CREATE EXTENSION pg_crm" to load this file. \quit'; \
	   cat $(EXTENSION_PARTS) /dev/null; \
	   echo 'CREATE FUNCTION crm.install_script() RETURNS text'; \
	   echo 'LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$script$$ SELECT $$install$$'; \
	   cat $(INSTALL_PARTS) /dev/null; \
	   echo '$$install$$ $$script$$;'; \
	   echo "COMMENT ON FUNCTION crm.install_script() IS 'The SQL that install() runs: tables, indexes, views and triggers of this version.';"; \
	   echo 'REVOKE ALL ON FUNCTION crm.install_script() FROM PUBLIC;'; } > $@

# META.json is written only where its version differs.
all: META.json
META.json: FORCE
	@grep -q '^ *"version": "$(EXTVERSION)",$$' $@ || \
	   sed -i 's/^\( *"version": \)"[^"]*",$$/\1"$(EXTVERSION)",/' $@
FORCE:
.PHONY: FORCE

# Against the server of PGHOST, PGPORT and PGUSER, the extension being
# installed there; make test needs no server.
installcheck:
	@test/lib/installcheck.sh '$(PG_CONFIG)'

endif
