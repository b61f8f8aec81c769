/* Random numbers. qb_pyrandom is CPython's `random` (MT19937, init_by_array),
   which the GPTQ paper's sampling rests on; qb_noise is a counter-based
   generator for synthetic weights, whose value at an index needs no history. */
#pragma once

#include <stdint.h>

typedef struct qb_pyrandom {
    uint32_t state[624];
    int index;
} qb_pyrandom;

void qb_pyrandom_seed(qb_pyrandom *r, uint64_t seed); /* random.seed(seed) for a non-negative int */
uint32_t qb_pyrandom_u32(qb_pyrandom *r);
/* random.randint(low, high), both inclusive; low <= high, high - low < 2^63. */
int64_t qb_pyrandom_randint(qb_pyrandom *r, int64_t low, int64_t high);
double qb_pyrandom_double(qb_pyrandom *r); /* random.random(), [0, 1) with 53 bits */

/* splitmix64 of (seed, index); in the header, because synthetic weights draw it hundreds of millions of times
 * a second. */
static inline uint64_t qb_noise_u64(uint64_t seed, uint64_t index) {
    uint64_t z = seed * 0x9e3779b97f4a7c15u + (index + 1) * 0xd1342543de82ef95u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
