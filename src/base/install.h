/*
 * install.h
 *		The installation: tables of schema crm as a whole, and what runs DDL on
 *		them in their owner's name.
 */
#ifndef CRM_INSTALL_H
#define CRM_INSTALL_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "base/rights.h"

/* Called by _PG_init(): notes whether the module is preloaded. */
extern void crm_install_init(void);
extern bool crm_preloaded;

/*
 * May this database speak to customers? Not when the installation was made
 * for another server or database, as in a restored dump or a copy.
 */
extern bool crm_dispatch_allowed(void);

/* ddl.c */
typedef struct CrmDdl
{
	CrmActing acting;
	bool switched;
	int guc_nest_level;
} CrmDdl;

/*
 * Between these two the session runs DDL without notices and with a fixed
 * search_path: as the owner of crm.contact, whose privileges the caller must
 * have to call this function; or as the caller where nothing is installed or
 * no function is named. SPI is open.
 */
extern void crm_ddl_begin(CrmDdl *ddl, const char *function);
extern void crm_ddl_end(CrmDdl *ddl);

extern bool crm_is_installed(void);
extern void crm_require_installed(void);

extern void crm_ddl(const char *format, ...) pg_attribute_printf(1, 2);
/* Runs every statement in the first column of the query's result. */
extern int crm_ddl_each(const char *query);
/* First column of the first row of a query, NULL where there is none. */
extern char *crm_ddl_text(const char *query);

/* Takes every relation of schema crm without ever making a writer fail. */
extern void crm_lock_schema(void);

/* partition.c: the tables that have a partition for each month in which rows were recorded */
#define CRM_NPARTITIONED 4
extern const char *const crm_partitioned[CRM_NPARTITIONED];
extern int crm_make_partitions(void);
extern void crm_describe_partition(const char *root, const char *name, const char *what);
extern void crm_copy_partition_triggers(const char *root);

/* profile_view.c */
extern void crm_make_profile_view(void);

/* install.c: names of the relations that the install script makes */
extern List *crm_script_relations(bool views_only);

/* every trigger that calls a function of the extension, as t; goes on with AND */
#define CRM_EXTENSION_TRIGGERS                                                    \
	" FROM pg_trigger t"                                                          \
	" JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid" \
	"  AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'"           \
	" JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_crm'"         \
	" WHERE NOT t.tgisinternal"

#endif /* CRM_INSTALL_H */
