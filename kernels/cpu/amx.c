#include "kernels/cpu/amx.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* cpuid's leaf 7, edx; leaf 1, ecx (Intel's SDM). */
enum { EDX_AMX_BF16 = 1 << 22, EDX_AMX_TILE = 1 << 24, EDX_AMX_INT8 = 1 << 25, ECX_OSXSAVE = 1 << 27 };
/* State that the system saves: XTILECFG and XTILEDATA. */
enum { XCR0_TILES = 1 << 17 | 1 << 18, XFEATURE_TILE_DATA = 18 };
/* Linux: Documentation/arch/x86/xstate.rst */
enum { REQUEST_PERMISSION = 0x1023 };

static uint32_t saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has(unsigned numbers) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & ECX_OSXSAVE)) return false;
    if ((saved_state() & XCR0_TILES) != XCR0_TILES) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d & EDX_AMX_TILE) || !(d & numbers)) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, XFEATURE_TILE_DATA) == 0;
}

bool qb_amx_has_int8(void) {
    return has(EDX_AMX_INT8);
}
bool qb_amx_has_bf16(void) {
    return has(EDX_AMX_BF16);
}
