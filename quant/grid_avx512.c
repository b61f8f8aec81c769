#define GRID_TABLE qb_grid_avx512
#define GRID_NAME  "avx512"
#include "quant/grid.inc"
