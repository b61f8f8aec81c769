#include "base/rng.h"

/* Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998; seeding as CPython's
   Modules/_randommodule.c documents it: init_by_array over the 32-bit limbs of |seed|. */
enum { N = 624, M = 397 };

static void init_genrand(qb_pyrandom *r, uint32_t seed) {
    r->state[0] = seed;
    for (uint32_t i = 1; i < N; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ (r->state[i - 1] >> 30)) + i;
    r->index = N;
}

void qb_pyrandom_seed(qb_pyrandom *r, uint64_t seed) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    int length = key[1] ? 2 : 1;
    init_genrand(r, 19650218u);
    uint32_t *s = r->state;
    int i = 1, j = 0;
    for (int k = N; k; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525u)) + key[j] + (uint32_t)j;
        if (++i >= N) s[0] = s[N - 1], i = 1;
        if (++j >= length) j = 0;
    }
    for (int k = N - 1; k; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941u)) - (uint32_t)i;
        if (++i >= N) s[0] = s[N - 1], i = 1;
    }
    s[0] = 0x80000000u;
}

uint32_t qb_pyrandom_u32(qb_pyrandom *r) {
    uint32_t *s = r->state;
    if (r->index >= N) {
        for (int k = 0; k < N; k++) {
            uint32_t y = (s[k] & 0x80000000u) | (s[(k + 1) % N] & 0x7fffffffu);
            s[k] = s[(k + M) % N] ^ (y >> 1) ^ ((y & 1) ? 0x9908b0dfu : 0);
        }
        r->index = 0;
    }
    uint32_t y = s[r->index++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

/* getrandbits(k): words are taken low limb first, the last one shifted down. */
static uint64_t random_bits(qb_pyrandom *r, int bits) {
    uint64_t value = 0;
    for (int shift = 0; bits > 0; shift += 32, bits -= 32) {
        uint32_t word = qb_pyrandom_u32(r);
        if (bits < 32) word >>= 32 - bits;
        value |= (uint64_t)word << shift;
    }
    return value;
}

int64_t qb_pyrandom_randint(qb_pyrandom *r, int64_t low, int64_t high) {
    uint64_t n = (uint64_t)high - (uint64_t)low + 1;
    int bits = 64 - __builtin_clzll(n);
    uint64_t value;
    do value = random_bits(r, bits);
    while (value >= n);
    return low + (int64_t)value;
}

double qb_pyrandom_double(qb_pyrandom *r) {
    uint32_t a = qb_pyrandom_u32(r) >> 5, b = qb_pyrandom_u32(r) >> 6;
    return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}
