/*
 * draw.c
 *		Chance that is none: who is asked again gets the same answer, on every
 *		platform. SQL says the same by sha256(convert_to(journey || '/' || step ||
 *		'/' || contact_id, 'UTF8')).
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "journey/engine.h"

/* bits of a double's fraction */
#define DRAW_BITS 53

double
crm_draw(const char *journey, const char *step, int64 contact_id)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	char *text = psprintf("%s/%s/%lld", journey, step, (long long) contact_id);
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	uint64 number = 0;

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) text, strlen(text)) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute a SHA-256 hash"),
				 errhint("See the log of the server; try again.")));
	pg_cryptohash_free(hash);
	pfree(text);
	for (int i = 0; i < 8; i++)
		number = number << 8 | digest[i];
	return (double) (number >> (64 - DRAW_BITS)) / (double) (UINT64CONST(1) << DRAW_BITS);
}
