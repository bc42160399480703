/*
 * retention.c
 *		Months that need not be kept any longer. Facts on which something derived
 *		rests stay as rows, the others as counts (opening balances), and the
 *		partition goes: so counters, awards, stages and journeys are what they
 *		were, and late facts and merges find all that they ask for.
 *
 *		All is prepared under a lock that only those who write the old month wait
 *		for; the table itself is locked for the exchange alone.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/install.h"
#include "profile/definition.h"

PG_FUNCTION_INFO_V1(crm_sql_enforce_retention);

/* whoever waits for a table keeps others waiting behind */
#define LOCK_TIMEOUT "200ms"

typedef struct Month
{
	const char *table;
	const char *partition;
	const char *bounds; /* FOR VALUES … */
	const char *from;
	const char *until;
} Month;

/*
 * An enrolment under way may look back to facts since it began; a stage set by
 * hand may end at any fact.
 */
#define LOOKED_BACK_TO                                                                \
	" OR EXISTS (SELECT FROM crm.enrolment e WHERE e.contact_id = f.contact_id"       \
	"  AND e.state = 'active' AND least(e.source_at, e.entered_at) <= f.occurred_at)" \
	" OR EXISTS (SELECT FROM crm.event m WHERE m.contact_id = f.contact_id"           \
	"  AND m.kind = 'set_stage')"

/* Rules and documents of all definitions there are, as rows of one column. */
static const char *
definition_texts(void)
{
	return crm_ddl_text(
		"SELECT string_agg(format('SELECT t.%I::text, %L::boolean FROM crm.%I t"
		" WHERE t.%I IS NOT NULL', a.attname, a.atttypid = 'jsonb'::regtype, c.relname,"
		" a.attname), ' UNION ALL ')"
		" FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped"
		" WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition"
		" AND a.attname IN ('rule', 'audience', 'definition', 'on_kind')");
}

/*
 * The kinds of a month's events, as an array literal, that definitions may read:
 * rules by their text, in whatever way it quotes them; documents have names of
 * their own beside, so there it is the quoted kind that is looked for.
 */
static char *
read_kinds(const Month *month, const CrmDefinitions *definitions)
{
	StringInfoData known;

	initStringInfo(&known);
	for (int i = 0; i < definitions->nkinds; i++)
		appendStringInfo(&known, "%s, ", quote_literal_cstr(definitions->kinds[i]));
	return crm_ddl_text(psprintf(
		"SELECT coalesce(array_agg(k.kind), '{}') FROM (SELECT DISTINCT f.kind FROM crm.%s f) k"
		" WHERE k.kind IN (%s'grant_consent', 'withdraw_consent')"
		" OR k.kind ~ '[''\"$\\\\]' OR EXISTS (SELECT FROM (%s) AS t(body, is_document)"
		"  WHERE position(k.kind IN t.body) > 0 AND (NOT t.is_document"
		"   OR position(quote_literal(k.kind) IN t.body) > 0"
		"   OR position('$' || k.kind || '$' IN t.body) > 0))",
		quote_identifier(month->partition), known.data, definition_texts()));
}

static char *
events_to_keep(const Month *month)
{
	const CrmDefinitions *definitions = crm_definitions();

	if (definitions->every_fact_matters)
		return "true";
	return psprintf("f.kind = ANY (%s)" LOOKED_BACK_TO,
					quote_literal_cstr(read_kinds(month, definitions)));
}

/* Whether a rule asks for scans that do not count, too. */
static bool
every_scan_matters(const CrmDefinitions *definitions)
{
	return definitions->every_fact_matters || definitions->stages_read_time ||
		crm_ddl_text(psprintf("SELECT 'yes' FROM (%s) AS t(body, is_document)"
							  " WHERE position('''scan''' IN t.body) > 0"
							  " OR position('$scan$' IN t.body) > 0"
							  " OR NOT t.is_document AND position('raw_scans' IN t.body) > 0"
							  " UNION ALL SELECT 'yes' FROM crm.earning_rule r"
							  " WHERE r.on_kind = 'scan' LIMIT 1",
							  definition_texts())) != NULL;
}

/* Scans that count, are marked, or make the mark of another; and the last that was walked. */
static char *
scans_to_keep(void)
{
	if (every_scan_matters(crm_definitions()))
		return "true";
	return "EXISTS (SELECT FROM crm.first_scan c WHERE c.contact_id = f.contact_id"
		   "  AND c.scan_id = f.scan_id)"
		   " OR EXISTS (SELECT FROM crm.scan_flag g WHERE g.contact_id = f.contact_id"
		   "  AND g.scan_id = f.scan_id)"
		   " OR EXISTS (SELECT FROM crm.scan_flag g"
		   "  JOIN crm.scan_limit l ON l.name = g.scan_limit"
		   "  JOIN crm.scan t ON t.contact_id = g.contact_id AND t.scan_id = g.scan_id"
		   "  LEFT JOIN crm.qr_code q ON q.qr_code_id = t.qr_code_id"
		   "  WHERE f.occurred_at <= g.occurred_at AND f.occurred_at > g.occurred_at"
		   "   - make_interval(secs => extract(epoch FROM l.period)::float8)"
		   "  AND (NOT 'contact' = ANY (l.per) OR t.contact_id = f.contact_id)"
		   "  AND (NOT 'code' = ANY (l.per) OR t.qr_code_id = f.qr_code_id)"
		   "  AND (NOT 'store' = ANY (l.per) OR q.store_id = (SELECT o.store_id"
		   "   FROM crm.qr_code o WHERE o.qr_code_id = f.qr_code_id)))"
		   " OR EXISTS (SELECT FROM crm.profile_counter p WHERE p.contact_id = f.contact_id"
		   "  AND p.settled_at = f.occurred_at)" LOOKED_BACK_TO;
}

#define OF_MESSAGE_UNDER_WAY                                              \
	"EXISTS (SELECT FROM crm.message m WHERE m.contact_id = f.contact_id" \
	" AND m.message_id = f.message_id"                                    \
	" AND (m.state IN ('queued', 'sending', 'unknown', 'waiting') OR m.awaited))"

/* Of enrolments under way, and of those that an unmerge would take up again. */
#define OF_ENROLMENT_UNDER_WAY                                               \
	"f.outcome IS NULL OR EXISTS (SELECT FROM crm.enrolment e"               \
	" WHERE e.contact_id = f.contact_id AND e.enrolment_id = f.enrolment_id" \
	" AND (e.state = 'active' OR e.end_reason = 'merged'))"

static const char *
to_keep(const Month *month)
{
	if (strcmp(month->table, "event") == 0)
		return events_to_keep(month);
	if (strcmp(month->table, "scan") == 0)
		return scans_to_keep();
	return strcmp(month->table, "step_visit") == 0 ? OF_ENROLMENT_UNDER_WAY
		" OR " OF_MESSAGE_UNDER_WAY
												   : OF_MESSAGE_UNDER_WAY;
}

/* What goes, as FROM and WHERE: the month without what is kept of it. */
static char *
gone(const Month *month, const char *kept)
{
	bool visits = strcmp(month->table, "step_visit") == 0;
	const char *key = strcmp(month->table, "event") == 0 ? "event_id"
		: strcmp(month->table, "scan") == 0              ? "scan_id"
		: visits                                         ? "enrolment_id"
														 : "attempt_id";

	return psprintf(" FROM crm.%s f%s WHERE NOT EXISTS (SELECT FROM crm.%s k"
					" WHERE k.contact_id = f.contact_id AND k.%s = f.%s%s)",
					quote_identifier(month->partition),
					visits ? " LEFT JOIN crm.message m ON m.contact_id = f.contact_id"
							 " AND m.message_id = f.message_id"
						   : "",
					kept, key, key, visits ? " AND k.visit = f.visit" : "");
}

#define DAY(at) "timezone(crm.default_time_zone(), " at ")::date"

/* Counted by contact, and by day. */
static void
count_facts(const Month *month, const char *from)
{
	bool scans = strcmp(month->table, "scan") == 0;

	crm_ddl("INSERT INTO crm.opening_balance"
			" (contact_id, table_name, partition, facts, first_at, last_at)"
			" SELECT f.contact_id, '%s', %s, count(*), min(f.occurred_at), max(f.occurred_at)"
			"%s%s GROUP BY f.contact_id",
			month->table, quote_literal_cstr(month->partition), from,
			/* these are not counted, nor do they say that the contact was there */
			scans ? "" : " AND f.kind <> 'field_change'");
	crm_ddl("INSERT INTO crm.opening_fact (day, kind, %s, facts) SELECT " DAY(
				"f.occurred_at") ", %s, count(*)%s GROUP BY 1, 2, 3",
			scans ? "qr_code_id" : "account_id",
			scans ? "'scan', f.qr_code_id" : "f.kind, f.account_id", from);
}

static void
count_scans(const char *from)
{
	crm_ddl("INSERT INTO crm.opening_scan AS o (qr_code_id, day, scans)"
			" SELECT n.qr_code_id, timezone(coalesce((SELECT a.time_zone FROM crm.qr_code q"
			"  JOIN crm.account a ON a.account_id = q.account_id"
			"  WHERE q.qr_code_id = n.qr_code_id), crm.default_time_zone()), n.occurred_at)::date,"
			" count(*) FROM (SELECT f.qr_code_id, f.occurred_at%s) n GROUP BY 1, 2"
			" ON CONFLICT (qr_code_id, day) DO UPDATE SET scans = o.scans + EXCLUDED.scans",
			from);
}

static void
count_visits(const char *from)
{
	crm_ddl("INSERT INTO crm.opening_visit"
			" (journey, version, step, state, outcome, next_step, message_state, day, visits)"
			" SELECT f.journey, f.version, f.step, crm.visit_state(f.outcome),"
			" CASE f.outcome WHEN 'arm' THEN f.arm ELSE f.outcome END,"
			" f.next_step, m.state, " DAY("f.entered_at") ", count(*)"
														  "%s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
			from);
}

static void
write_balances(const Month *month, const char *from)
{
	bool scans = strcmp(month->table, "scan") == 0;

	if (scans || strcmp(month->table, "event") == 0)
		count_facts(month, from);
	if (scans)
		count_scans(from);
	if (strcmp(month->table, "step_visit") == 0)
		count_visits(from);
}

static int64
count_rows(const char *relation)
{
	return strtoll(crm_ddl_text(psprintf("SELECT count(*) FROM crm.%s", relation)), NULL, 10);
}

/* What is kept lies in a table of its own, which takes the place of the partition. */
static void
exchange(const Month *month, const char *kept, int64 nkept)
{
	const char *partition = quote_identifier(month->partition);

	crm_ddl("ALTER TABLE crm.%s DETACH PARTITION crm.%s", month->table, partition);
	crm_ddl("DROP TABLE crm.%s", partition);
	if (nkept == 0)
	{
		crm_ddl("DROP TABLE crm.%s", kept);
		return;
	}
	crm_ddl("ALTER TABLE crm.%s RENAME TO %s", kept, partition);
	crm_ddl("ALTER TABLE crm.%s ATTACH PARTITION crm.%s %s", month->table, partition,
			month->bounds);
	crm_ddl("ALTER TABLE crm.%s DROP CONSTRAINT crm_month", partition);
	crm_describe_partition(month->table, month->partition,
						   psprintf("what is kept of those recorded before %s", month->until));
	crm_copy_partition_triggers(month->table);
}

static bool
retire(void *arg)
{
	const Month *month = arg;
	const char *partition = quote_identifier(month->partition);
	const char *kept = quote_identifier(psprintf("%.50s_kept", month->partition));
	int64 nkept;
	int64 nrows;

	crm_ddl("LOCK TABLE crm.%s IN SHARE ROW EXCLUSIVE MODE", partition);
	crm_ddl("CREATE TABLE crm.%s (LIKE crm.%s INCLUDING ALL EXCLUDING IDENTITY)", kept, partition);
	crm_ddl("ALTER TABLE crm.%s ADD CONSTRAINT crm_month CHECK (recorded_at >= %s"
			" AND recorded_at < %s)",
			kept, quote_literal_cstr(month->from), quote_literal_cstr(month->until));
	crm_ddl("INSERT INTO crm.%s SELECT f.* FROM crm.%s f WHERE %s", kept, partition,
			to_keep(month));
	nkept = count_rows(kept);
	nrows = count_rows(partition);
	write_balances(month, gone(month, kept));
	crm_ddl(
		"INSERT INTO crm.retired_partition (partition, table_name, recorded_until, dropped, kept)"
		" VALUES (%s, '%s', %s, " INT64_FORMAT ", " INT64_FORMAT ")",
		quote_literal_cstr(month->partition), month->table, quote_literal_cstr(month->until),
		nrows - nkept, nkept);
	exchange(month, kept, nkept);
	return true;
}

/* The oldest month of a table that need not be kept; false where there is none. */
static bool
find_month(const char *table, Month *month)
{
	SPI_execute(
		psprintf(
			"SELECT c.relname::text, b.bounds, b.part[1], b.part[2]"
			" FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
			" CROSS JOIN LATERAL (SELECT d.bounds, regexp_match(d.bounds,"
			"  '^FOR VALUES FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)$') AS part"
			"  FROM pg_get_expr(c.relpartbound, c.oid) AS d(bounds)) b"
			" WHERE i.inhparent = 'crm.%s'::regclass AND b.part[2]::timestamptz <= %s::timestamptz"
			"  - (SELECT r.keep FROM crm.retention r WHERE r.name = '%s')"
			" AND NOT EXISTS (SELECT FROM crm.retired_partition o"
			"  WHERE o.partition = c.relname AND o.table_name = '%s')"
			" ORDER BY b.part[2]::timestamptz LIMIT 1",
			table, quote_literal_cstr(timestamptz_to_str(crm_now())), table, table),
		false, 1);
	if (SPI_processed == 0)
		return false;
	month->table = table;
	month->partition = crm_result_text(0, 1);
	month->bounds = crm_result_text(0, 2);
	month->from = crm_result_text(0, 3);
	month->until = crm_result_text(0, 4);
	return true;
}

/* Why the month may not go; NULL where it may. */
static char *
held_by(const Month *month)
{
	return crm_ddl_text(psprintf(
		"SELECT format('publication %%s publishes crm.%%s', p.pubname, p.tablename)"
		" FROM pg_publication_tables p WHERE p.schemaname = 'crm' AND p.tablename IN ('%s', %s)"
		" LIMIT 1",
		month->table, quote_literal_cstr(month->partition)));
}

static void
note_problem(const char *table, const char *problem)
{
	const char *literal = problem == NULL ? "NULL::text" : quote_literal_cstr(problem);

	crm_ddl("UPDATE crm.retention SET problem = %s WHERE name = '%s'"
			" AND problem IS DISTINCT FROM %s",
			literal, table, literal);
}

/* Has its oldest month gone? If somebody else is in the way, that is for the next call. */
static bool
retire_month(Month *month, ErrorData **busy)
{
	char *problem = held_by(month);
	ErrorData *error;

	if (problem == NULL && crm_attempt(retire, month, &error))
	{
		note_problem(month->table, NULL);
		return true;
	}
	if (problem == NULL &&
		(error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		 error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED))
	{
		*busy = error;
		return false;
	}
	if (problem == NULL)
	{
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			ReThrowError(error);
		problem = psprintf("crm.%s: %s", month->partition, error->message);
		FreeErrorData(error);
	}
	note_problem(month->table, problem);
	return false;
}

Datum
crm_sql_enforce_retention(PG_FUNCTION_ARGS)
{
	/* months are those of UTC */
	static const char *const settings[][2] = { { "lock_timeout", LOCK_TIMEOUT },
											   { "timezone", "UTC" },
											   { "datestyle", "ISO" } };
	CrmDdl ddl;
	ErrorData *busy = NULL;
	text *retired = NULL;
	MemoryContext context = CurrentMemoryContext;

	crm_require_installed();
	crm_ddl_begin(&ddl, "enforce_retention");
	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < CRM_NPARTITIONED && retired == NULL; i++)
	{
		Month month;

		if (!find_month(crm_partitioned[i], &month) || !retire_month(&month, &busy))
			continue;
		MemoryContextSwitchTo(context);
		retired = cstring_to_text(month.partition);
	}
	if (retired == NULL && busy != NULL)
		ReThrowError(busy);
	crm_ddl_end(&ddl);
	if (retired == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(retired);
}
