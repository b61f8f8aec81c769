/* Stands in for cuda_bf16.h. */
#pragma once

#include "tests/shim/device_math.h"

struct __nv_bfloat16_raw {
    unsigned short x;
};
struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(__nv_bfloat16_raw r) : bits(r.x) {}
    __nv_bfloat16(float v) : bits(of(v)) {}
    operator float() const { return shim::bits_of<float>(static_cast<unsigned>(bits) << 16); }
    static unsigned short of(float v) {
        unsigned b = shim::bits_of<unsigned>(v);
        if ((b & 0x7fffffff) > 0x7f800000) return 0x7fff;
        return static_cast<unsigned short>((b + 0x7fff + (b >> 16 & 1)) >> 16);
    }
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
    __nv_bfloat162() = default;
    __nv_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) : x(a), y(b) {}
};

inline __nv_bfloat16 __float2bfloat16(float v) {
    return __nv_bfloat16(v);
}
inline __nv_bfloat16 __float2bfloat16_rn(float v) {
    return __nv_bfloat16(v);
}
inline float __bfloat162float(__nv_bfloat16 v) {
    return float(v);
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) {
    return v.bits;
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) {
    return __nv_bfloat16(__nv_bfloat16_raw{v});
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) {
    return __nv_bfloat162(a, b);
}
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return __nv_bfloat162(__nv_bfloat16(a), __nv_bfloat16(b));
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
    return {float(v.x), float(v.y)};
}
inline float __low2float(__nv_bfloat162 v) {
    return float(v.x);
}
inline float __high2float(__nv_bfloat162 v) {
    return float(v.y);
}
