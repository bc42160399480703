/*
 * layered_cells.h
 *		Cells in layers, and links between cells of neighbouring layers: in which
 *		order they stand, and where. The inside of layered.c.
 */
#ifndef CRM_LAYERED_CELLS_H
#define CRM_LAYERED_CELLS_H

#include "postgres.h"

typedef struct CrmCell
{
	int layer;
	int edge;    /* that it is a part of; -1: a box */
	int place;   /* in its layer, from 0 */
	double left; /* of its middle */
	double right;
	double height;
	double x; /* of its middle */
	int nupper;
	int nlower;
	int *upper; /* links to the layer above, in the order in which they were made */
	int *lower;
} CrmCell;

typedef struct CrmLink
{
	int upper;
	int lower;
} CrmLink;

typedef struct CrmCells
{
	int n;
	CrmCell *list;
	int nlinks;
	CrmLink *links; /* those of an edge one after the other, downwards */
	int nlayers;
	int **layers; /* cells of each, in their order */
	int *sizes;
	double width;
} CrmCells;

/* Fills layers, sizes, places, and the links of each cell. */
extern void crm_cells_order(CrmCells *cells);

/* Fills x and width. */
extern void crm_cells_place(CrmCells *cells);

/*
 * Moves values as little as possible (least squares, weighted) so that each is
 * at least apart[i] above the one before; apart[0] is not read.
 */
extern void crm_cells_spread(int n, double *values, const double *weights, const double *apart);

#endif /* CRM_LAYERED_CELLS_H */
