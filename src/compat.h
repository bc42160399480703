/*
 * compat.h
 *		Everything that differs between PostgreSQL majors; no other file tests
 *		the version.
 */
#ifndef CRM_COMPAT_H
#define CRM_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "storage/proc.h"
#include "utils/guc.h"

#if PG_VERSION_NUM < 150000
#error "pg_crm needs PostgreSQL 15 or newer"
#endif

/* 16: the macros of variable-length values got a header of their own */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* spelt differently by the majors */
#define CRM_NORETURN __attribute__((noreturn))

/* 16: what a check hook hands on is allocated by guc_malloc() */
#if PG_VERSION_NUM >= 160000
#define crm_guc_malloc(size)  guc_malloc(LOG, size)
#define crm_guc_free(pointer) guc_free(pointer)
#else
#define crm_guc_malloc(size)  malloc(size)
#define crm_guc_free(pointer) free(pointer)
#endif

/* soft errors of input functions came with 16: before, they are hard */
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#define crm_ereturn(escontext, dummy_value, ...) ereturn(escontext, dummy_value, __VA_ARGS__)
#else
#define crm_ereturn(escontext, dummy_value, ...) \
	do                                           \
	{                                            \
		(void) (escontext);                      \
		ereport(ERROR, __VA_ARGS__);             \
		return dummy_value;                      \
	} while (0)
#endif

/* 17: intervals may be infinite */
#if PG_VERSION_NUM >= 170000
#define CRM_INTERVAL_IS_ENDLESS(interval) INTERVAL_IS_NOEND(interval)
#else
#define CRM_INTERVAL_IS_ENDLESS(interval) false
#endif

/* 16: which indexes an update touches became an enum with summarizing ones */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes CrmUpdateIndexes;
#define CRM_UPDATES_INDEXES(update)  ((update) != TU_None)
#define CRM_ONLY_SUMMARIZING(update) ((update) == TU_Summarizing)
#define CRM_IS_SUMMARIZING(info)     ((info)->ii_Summarizing)
#else
typedef bool CrmUpdateIndexes;
#define CRM_UPDATES_INDEXES(update)  (update)
#define CRM_ONLY_SUMMARIZING(update) false
#define CRM_IS_SUMMARIZING(info)     false
#endif

/*
 * The search_path pg_catalog for a short while. 17: none beside the setting,
 * which had become cheap to set; before, setting it costs several microseconds.
 */
#if PG_VERSION_NUM >= 170000
static inline int
crm_catalog_path_begin(void)
{
	int nest_level = NewGUCNestLevel();

	RestrictSearchPath();
	return nest_level;
}
static inline void
crm_catalog_path_end(int nest_level)
{
	AtEOXact_GUC(true, nest_level);
}
#else
static inline int
crm_catalog_path_begin(void)
{
	OverrideSearchPath path = { .addCatalog = true };

	PushOverrideSearchPath(&path);
	return 0;
}
static inline void
crm_catalog_path_end(int nest_level)
{
	PopOverrideSearchPath();
}
#endif

/* 17: indexes may clean up after the last insert */
#if PG_VERSION_NUM >= 170000
#define crm_index_insert_cleanup(index, info) index_insert_cleanup(index, info)
#else
#define crm_index_insert_cleanup(index, info) ((void) (info))
#endif

/* 18: scans count themselves; a deferrable primary key must be asked for */
#if PG_VERSION_NUM >= 180000
#define crm_primary_key(rel) RelationGetPrimaryKeyIndex(rel, false)
#define crm_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define crm_primary_key(rel) RelationGetPrimaryKeyIndex(rel)
#define crm_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 17: proc numbers got a name, wait event sets a resource owner */
#if PG_VERSION_NUM >= 170000
#define CRM_MY_PROC_NUMBER           ((uint32) MyProcNumber)
#define CRM_MY_LXID                  (MyProc->vxid.lxid)
#define crm_create_wait_event_set(n) CreateWaitEventSet(NULL, n)
#else
#define CRM_MY_PROC_NUMBER           ((uint32) MyProc->pgprocno)
#define CRM_MY_LXID                  (MyProc->lxid)
#define crm_create_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, n)
#endif

/* 16: one function asks who owns objects of any class */
#if PG_VERSION_NUM >= 160000
#define crm_owns_database(database, role) object_ownercheck(DatabaseRelationId, database, role)
#else
#define crm_owns_database(database, role) pg_database_ownercheck(database, role)
#endif

/* the later minor releases mark what an interrupted DROP DATABASE left */
#define CRM_INVALID_DATABASE (-2)

/* 18: PG_MODULE_MAGIC_EXT names the module */
#if PG_VERSION_NUM >= 180000
#define CRM_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "pg_crm", .version = PG_CRM_VERSION)
#else
#define CRM_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18: what an operator means to an index is said for all kinds of index */
#if PG_VERSION_NUM >= 180000
#include "access/cmptype.h"
#define crm_operator_meanings(operator) get_op_index_interpretation(operator)
#define CRM_MEANS_ORDER(meaning)                                     \
	(((OpIndexInterpretation *) (meaning))->cmptype != COMPARE_EQ && \
	 ((OpIndexInterpretation *) (meaning))->cmptype != COMPARE_NE)
#else
#include "access/stratnum.h"
#define crm_operator_meanings(operator) get_op_btree_interpretation(operator)
#define CRM_MEANS_ORDER(meaning)                                                 \
	(((OpBtreeInterpretation *) (meaning))->strategy != BTEqualStrategyNumber && \
	 ((OpBtreeInterpretation *) (meaning))->strategy != ROWCOMPARE_NE)
#endif

#endif /* CRM_COMPAT_H */
