/*
 * watch.h
 *		Being told that the definition of a relation changed.
 */
#ifndef CRM_WATCH_H
#define CRM_WATCH_H

#include "postgres.h"

/*
 * Has this called from now on whenever one does; with InvalidOid any may have.
 * For the whole session, once for each function.
 */
extern void crm_on_table_change(void (*changed)(Datum arg, Oid relid));

#endif /* CRM_WATCH_H */
