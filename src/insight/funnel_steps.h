/*
 * funnel_steps.h
 *		The steps of a funnel over facts, as a document names them.
 */
#ifndef CRM_FUNNEL_STEPS_H
#define CRM_FUNNEL_STEPS_H

#include "postgres.h"

#include "utils/jsonb.h"

typedef struct CrmFunnelStep
{
	const char *name;
	const char **kinds; /* of facts, each once */
	int nkinds;
	const char *rule; /* NULL: any fact of these kinds */
} CrmFunnelStep;

/* An arm of a split of a journey. */
typedef struct CrmFunnelArm
{
	const char *journey;
	const char *step;
	const char *arm; /* NULL: all of them */
} CrmFunnelArm;

/* Both raise 22023 with all that is wrong. */
extern CrmFunnelStep *crm_funnel_steps_read(Jsonb *document, int *nsteps);
extern CrmFunnelArm *crm_funnel_arm_read(Jsonb *document);

#endif /* CRM_FUNNEL_STEPS_H */
