/*
 * pg_crm.c
 *		Loading the module.
 */
#include "pg_crm.h"

#include "utils/guc.h"

#include "base/guc.h"
#include "base/install.h"
#include "base/reader.h"
#include "base/roll_up.h"
#include "base/shmem.h"
#include "base/table.h"
#include "base/wake.h"
#include "dispatch/clock.h"
#include "dispatch/dispatch.h"
#include "dispatch/launcher.h"
#include "dispatch/lifecycle.h"
#include "facts/scans.h"
#include "facts/tally.h"
#include "insight/verify.h"
#include "journey/journey.h"
#include "outbox/outbox.h"
#include "profile/profile.h"
#include "profile/recompute.h"
#include "profile/segment.h"
#include "profile/tick.h"
#include "types/mobile.h"

CRM_MODULE_MAGIC;

/* what rooms do for others that do not know them */
static const CrmTimeWork time_work = {
	.tables = { "stage_due", "membership", "segment_state", "enrolment", "message_end",
				"journey_schedule", "entry_due" },
	.next = crm_tick_next,
	.find_contacts = crm_due_find,
	.move_contacts = crm_tick_contacts,
	.move_segments = crm_segments_due,
	.is_back = crm_journeys_clock_back,
	.find_enrolments = crm_journeys_due,
	.move_enrolments = crm_tick_enrolments,
	.make_entries = crm_tick_entries,
};

static void
verify_more(CrmAddDifference add, void *arg)
{
	crm_outbox_verify(add, arg);
	crm_journeys_verify(add, arg);
	crm_insight_verify(add, arg);
	crm_tally_verify(add, arg);
}

void _PG_init(void);

void
_PG_init(void)
{
	crm_guc_init();
	crm_table_init();
	crm_reader_init();
	crm_roll_up_init();
	crm_install_init();
	crm_mobile_init();
	crm_definition_init();
	crm_scan_limit_init();
	crm_segment_init();
	crm_journey_init();
	crm_send_init();
	crm_touch_init();
	crm_shmem_init();
	crm_wake_init();
	crm_launcher_init();
	crm_lifecycle_init();
	crm_dispatch_guc_init();
	crm_verify_more = verify_more;
	crm_time_work = &time_work;
	MarkGUCPrefixReserved("pg_crm");
}
