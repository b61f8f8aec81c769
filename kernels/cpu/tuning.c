#include "kernels/cpu/tuning.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define EVERY_KIND(bytes)                                                                                    \
    {                                                                                                        \
        [0 ... QB_PACK_COUNT - 1] = { bytes, false }                                                         \
    }

/* A row a family that was measured; the last serves all others. */
static const struct {
    const char *vendor;
    unsigned family;
    qb_cpu_tuning tuning;
} table[] = {
    /* Zen 3 and 4. On Zen 4 SGEMM of 2048^3 reaches 106 GFLOP/s a core with OpenBLAS' AVX2 loops and 97 with
       those for AVX-512, which OpenBLAS takes by itself (its 512-bit units are 256 bits wide); our
       own loops for dense rows are 1.09 to 1.55 times as fast as that SGEMM at 512 to 16 tokens. Products in
       whole numbers wait for memory where a byte takes long to multiply: to ask the second cache for it gains
       4 to 20 % (2 and 3 bits, K2, K6); of 4 and 8 bits the processor's own prefetcher sees to more. */
    {"AuthenticAMD",
     0x19,
     {"amd family 25",
      512,
      {[QB_PACK_2] = {2048, true},
       [QB_PACK_3] = {2048, true},
       [QB_PACK_K2] = {8192, true},
       [QB_PACK_K3] = {4096, false},
       [QB_PACK_K4] = {2048, false},
       [QB_PACK_K5] = {4096, false},
       [QB_PACK_K6] = {8192, true}},
      0,
      0,
      4096,
      INT64_MAX,
      "ZEN"}},
    {"AuthenticAMD", 0x1a, {"amd family 26", 2048, EVERY_KIND(2048), 0, 0, 0, 0, NULL}}, /* Zen 5 */
    /* Emerald Rapids, and in whole numbers a later Xeon with AMX: K types there gain 1.25 to 1.6 times over
       512 bytes ahead, the others 0 to 5 % at 1024, in float32 too. Two threads that read and multiply: 2048
       bytes ahead hide all but a tenth of the multiplying, 8192 and more next to none. */
    {"GenuineIntel",
     6,
     {"intel family 6",
      1024,
      {[QB_PACK_2] = {512, false},
       [QB_PACK_3] = {1024, false},
       [QB_PACK_4] = {1024, false},
       [QB_PACK_CODEBOOK] = {1024, false},
       [QB_PACK_8] = {2048, false},
       [QB_PACK_K2] = {4096, true},
       [QB_PACK_K3] = {4096, true},
       [QB_PACK_K4] = {8192, true},
       [QB_PACK_K5] = {4096, true},
       [QB_PACK_K6] = {8192, true}},
      1024,
      2048,
      0,
      0,
      NULL}},
    /* K types as on both that they were measured on; attention on the one. */
    {NULL,
     0,
     {"other",
      512,
      {[QB_PACK_2... QB_PACK_8] = {512, false}, [QB_PACK_K2... QB_PACK_K6] = {4096, true}},
      1024,
      2048,
      0,
      0,
      NULL}},
};

static qb_cpu_tuning here;

/* Vendor and family as the processor's manuals count them: the extended family is added to 15. */
static void identify(char vendor[13], unsigned *family) {
    memset(vendor, 0, 13);
    *family = 0;
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d)) return;
    memcpy(vendor, &b, 4);
    memcpy(vendor + 4, &d, 4);
    memcpy(vendor + 8, &c, 4);
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    *family = a >> 8 & 15;
    if (*family == 15) *family += a >> 20 & 255;
#endif
}

static void find(void) {
    char vendor[13];
    unsigned family;
    identify(vendor, &family);
    size_t i = 0;
    while (table[i].vendor && (strcmp(table[i].vendor, vendor) != 0 || table[i].family != family)) i++;
    here = table[i].tuning;
}

qb_cpu_tuning *qb_cpu_tuning_here(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find);
    return &here;
}
