# The version stands in pg_crm.control and nowhere else; META.json follows it.
EXTENSION   = pg_crm
EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" pg_crm.control)

MODULE_big  = pg_crm
OBJS        = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
HEADERS_OWN = $(wildcard src/*.h src/*/*.h)
PG_CPPFLAGS = -I$(srcdir)/src -DPG_CRM_VERSION='"$(EXTVERSION)"'
PG_CFLAGS   = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

# One source file a room; the order in which a room may use another one.
ROOMS            = base types facts profile insight
EXTENSION_PARTS  = $(foreach room,$(ROOMS),$(wildcard sql/extension/$(room)*.sql))
INSTALL_PARTS    = $(foreach room,$(ROOMS),$(wildcard sql/install/$(room)*.sql))
EXTENSION_SCRIPT = sql/pg_crm--$(EXTVERSION).sql

DATA_built  = $(EXTENSION_SCRIPT)
DATA        = $(filter-out $(EXTENSION_SCRIPT),$(sort $(wildcard sql/pg_crm--*--*.sql)))
EXTRA_CLEAN = $(EXTENSION_SCRIPT) results tmp_check tmp_check_iso output_iso regression.diffs regression.out

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(HEADERS_OWN) pg_crm.control

# The install script travels inside the extension script, as the body of
# crm.install_script(), so that install() makes the tables that fit the
# functions of the same version.
$(EXTENSION_SCRIPT): $(EXTENSION_PARTS) $(INSTALL_PARTS) pg_crm.control Makefile
	@{ echo '-- made by make from sql/extension and sql/install; edit those'; \
	   echo '\echo Use "CREATE EXTENSION pg_crm" to load this file. \quit'; \
	   cat $(EXTENSION_PARTS); \
	   echo 'CREATE FUNCTION crm.install_script() RETURNS text'; \
	   echo 'LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$script$$ SELECT $$install$$'; \
	   cat $(INSTALL_PARTS); \
	   echo '$$install$$ $$script$$;'; \
	   echo "COMMENT ON FUNCTION crm.install_script() IS 'The SQL that install() runs: tables, indexes, views and triggers of this version.';"; \
	   echo 'REVOKE ALL ON FUNCTION crm.install_script() FROM PUBLIC;'; } > $@
