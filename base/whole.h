/* Whole numbers, which sizes and places are. */
#pragma once

#include <stdint.h>

static inline int64_t qb_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* Pieces of `size` that n makes, the last one perhaps a part. */
static inline int64_t qb_pieces(int64_t n, int64_t size) {
    return (n + size - 1) / size;
}
