#define GRID_TABLE qb_grid_generic
#define GRID_NAME  "generic"
#include "quant/grid.inc"
