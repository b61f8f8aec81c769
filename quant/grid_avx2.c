#define GRID_TABLE qb_grid_avx2
#define GRID_NAME  "avx2"
#include "quant/grid.inc"
