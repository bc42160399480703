/*
 * layered.h
 *		Lays out a directed graph in layers from top to bottom: boxes do not
 *		overlap, edges cross little and run round the boxes, each edge has a place
 *		for a label. No drawing here, and nothing of journeys.
 */
#ifndef CRM_LAYERED_H
#define CRM_LAYERED_H

#include "postgres.h"

#define CRM_LAYERED_LAST 2

/* Sizes are given, places are found; x is the middle, y the top. */
typedef struct CrmLayeredBox
{
	double width;
	double height;
	double beside; /* room on the right for what is drawn there */
	double x;
	double y;
} CrmLayeredBox;

/* Where an edge passes a layer: straight down, or up, from one y to the other. */
typedef struct CrmLayeredStop
{
	double x;
	double y1;
	double y2;
} CrmLayeredStop;

/*
 * An edge from one box to another one. Edges that would close a circle run
 * upwards. The first stop is where it leaves its box, the last one where it
 * arrives; between two stops nothing is in the way.
 */
typedef struct CrmLayeredEdge
{
	int from;
	int to;
	int priority; /* 0 to CRM_LAYERED_LAST: of a circle the last one tends to run upwards */
	double label_width;
	double label_x; /* middle of the label */
	double label_y; /* middle too */
	bool upwards;
	int nstops;
	CrmLayeredStop *stops;
} CrmLayeredEdge;

typedef struct CrmLayered
{
	int nboxes;
	CrmLayeredBox *boxes; /* the first one begins */
	int nedges;
	CrmLayeredEdge *edges;
	double label_height;
	double width;
	double height;
} CrmLayered;

/* Boxes get x from 0 to width and y from 0 to height. */
extern void crm_layered_place(CrmLayered *layered);

#endif /* CRM_LAYERED_H */
