/* Which products in whole numbers this machine has, and which of them are used. */
#include "kernels/cpu/integer.h"

#include "kernels/cpu/amx.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/i8mm.h"
#include "kernels/cpu/simd.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static bool always(void) {
    return true;
}
#if defined(__x86_64__)
/* cpuid's leaf 7, subleaf 1, eax (Intel's SDM). */
static bool has_avx_vnni(void) {
    enum { EAX_AVX_VNNI = 1 << 4 };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & EAX_AVX_VNNI);
}
static bool has_vnni(void) {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}
static qb_integer amx;
static bool has_amx(void) {
    bool has = has_vnni() && qb_amx_has_int8();
    if (has) qb_amx_int8(&qb_integer_vnni, &amx);
    return has;
}
#elif defined(__aarch64__)
static bool has_dotprod(void) {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}
static qb_integer i8mm;
static bool has_i8mm(void) {
    bool has = has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM);
    if (has) qb_i8mm(&qb_integer_dotprod, &i8mm);
    return has;
}
#endif

/* From the least to the best. */
static const struct {
    const qb_integer *set;
    const qb_simd *simd; /* the plainest loops of simd.h that it goes with */
    bool (*is_there)(void);
} sets[] = {
    {&qb_integer_generic, &qb_simd_generic, always},
#if defined(__x86_64__)
    {&qb_integer_avx2, &qb_simd_avx2, always},       {&qb_integer_avx_vnni, &qb_simd_avx2, has_avx_vnni},
    {&qb_integer_vnni, &qb_simd_avx512, has_vnni},   {&amx, &qb_simd_avx512, has_amx},
#elif defined(__aarch64__)
    {&qb_integer_dotprod, &qb_simd_neon, has_dotprod},
    {&i8mm, &qb_simd_neon, has_i8mm},
#endif
};
enum { SETS = sizeof sets / sizeof *sets };

/* How good loops are; -1 where this machine has not got them. */
static int rank(const qb_simd *simd) {
    for (int i = 0; qb_simd_at(i); i++)
        if (qb_simd_at(i) == simd) return i;
    return -1;
}

static const qb_integer *there[SETS + 1];
static const qb_simd *goes_with[SETS];
static void find_sets(void) {
    int n = 0;
    for (int i = 0; i < SETS; i++)
        if (rank(sets[i].simd) >= 0 && sets[i].is_there()) {
            goes_with[n] = sets[i].simd;
            there[n++] = sets[i].set;
        }
}
static void look(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_sets);
}

const qb_integer *qb_integer_at(int index) {
    look();
    return there[index];
}

const qb_simd *qb_integer_simd(const char *name) {
    look();
    for (int i = 0; there[i]; i++)
        if (!strcmp(there[i]->name, name)) return goes_with[i];
    return NULL;
}

const qb_integer *qb_integer_chosen(void) {
    const char *name = getenv("BENCH_SIMD");
    const qb_integer *best = NULL;
    look();
    for (int i = 0; there[i]; i++) {
        if (name && !strcmp(there[i]->name, name)) return there[i];
        if (rank(goes_with[i]) <= rank(qb_simd_chosen())) best = there[i];
    }
    return best;
}

const char *qb_cpu_integer(void) {
    return qb_integer_chosen()->name;
}
