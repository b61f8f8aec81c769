/* Stands in for cuda_fp16.h: every operation rounds once to nearest even, as the device's do. */
#pragma once

#include "tests/shim/device_math.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

struct __half_raw {
    unsigned short x;
};
struct __half {
    unsigned short bits;
    __half() = default;
    __half(__half_raw r) : bits(r.x) {}
    __half(float v) : bits(of(v)) {}
    __half(double v) : bits(of_double(v)) {}
    __half(int v) : bits(of(static_cast<float>(v))) {}
    operator float() const {
#if defined(__F16C__)
        return _cvtsh_ss(bits);
#else
        return static_cast<float>(shim::bits_of<_Float16>(bits));
#endif
    }
    __half &operator+=(__half b) {
        return *this = __half(float(*this) + float(b));
    }
    __half &operator-=(__half b) {
        return *this = __half(float(*this) - float(b));
    }
    __half &operator*=(__half b) {
        return *this = __half(float(*this) * float(b));
    }
    static unsigned short of(float v) {
#if defined(__F16C__)
        return static_cast<unsigned short>(_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT));
#else
        return shim::bits_of<unsigned short>(static_cast<_Float16>(v));
#endif
    }
    static unsigned short of_double(double v) {
        return shim::bits_of<unsigned short>(static_cast<_Float16>(v));
    }
};
struct alignas(4) __half2 {
    __half x, y;
    __half2() = default;
    __half2(__half a, __half b) : x(a), y(b) {}
};
using half = __half;
using half2 = __half2;

inline half operator+(half a, half b) {
    return half(float(a) + float(b));
}
inline half operator-(half a, half b) {
    return half(float(a) - float(b));
}
inline half operator*(half a, half b) {
    return half(float(a) * float(b));
}
inline half operator/(half a, half b) {
    return half(float(a) / float(b));
}
inline half operator-(half a) {
    return half(__half_raw{static_cast<unsigned short>(a.bits ^ 0x8000)});
}

inline half __float2half(float v) {
    return half(v);
}
inline half __float2half_rn(float v) {
    return half(v);
}
inline half __double2half(double v) {
    return half(v);
}
inline half __int2half_rn(int v) {
    return half(v);
}
inline float __half2float(half v) {
    return float(v);
}
inline unsigned short __half_as_ushort(half v) {
    return v.bits;
}
inline half __ushort_as_half(unsigned short v) {
    return half(__half_raw{v});
}
inline half2 __halves2half2(half a, half b) {
    return half2(a, b);
}
inline half2 __half2half2(half a) {
    return half2(a, a);
}
inline half2 make_half2(half a, half b) {
    return half2(a, b);
}
inline half2 __float2half2_rn(float v) {
    return half2(half(v), half(v));
}
inline half2 __floats2half2_rn(float a, float b) {
    return half2(half(a), half(b));
}
inline half2 __float22half2_rn(float2 v) {
    return half2(half(v.x), half(v.y));
}
inline float2 __half22float2(half2 v) {
    return {float(v.x), float(v.y)};
}
inline half __low2half(half2 v) {
    return v.x;
}
inline half __high2half(half2 v) {
    return v.y;
}
inline half2 __low2half2(half2 v) {
    return half2(v.x, v.x);
}
inline half2 __high2half2(half2 v) {
    return half2(v.y, v.y);
}
inline float __low2float(half2 v) {
    return float(v.x);
}
inline float __high2float(half2 v) {
    return float(v.y);
}

inline half __hadd(half a, half b) {
    return a + b;
}
inline half __hsub(half a, half b) {
    return a - b;
}
inline half __hmul(half a, half b) {
    return a * b;
}
inline half __hdiv(half a, half b) {
    return a / b;
}
inline half __hneg(half a) {
    return -a;
}
/* The product is exact in double, the sum all but always: one rounding, as on the device. */
inline half __hfma(half a, half b, half c) {
    return half(double(float(a)) * double(float(b)) + double(float(c)));
}
inline half2 __hadd2(half2 a, half2 b) {
    return half2(a.x + b.x, a.y + b.y);
}
inline half2 __hsub2(half2 a, half2 b) {
    return half2(a.x - b.x, a.y - b.y);
}
inline half2 __hmul2(half2 a, half2 b) {
    return half2(a.x * b.x, a.y * b.y);
}
inline half2 __hfma2(half2 a, half2 b, half2 c) {
    return half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
inline half2 __hneg2(half2 a) {
    return half2(-a.x, -a.y);
}
inline half2 operator+(half2 a, half2 b) {
    return __hadd2(a, b);
}
inline half2 operator-(half2 a, half2 b) {
    return __hsub2(a, b);
}
inline half2 operator*(half2 a, half2 b) {
    return __hmul2(a, b);
}
inline bool __hisnan(half v) {
    return (v.bits & 0x7fff) > 0x7c00;
}
inline int __hisinf(half v) {
    return v.bits == 0x7c00 ? 1 : v.bits == 0xfc00 ? -1 : 0;
}
inline bool __hlt(half a, half b) {
    return float(a) < float(b);
}
inline bool __hgt(half a, half b) {
    return float(a) > float(b);
}
inline half __hmax(half a, half b) {
    return float(a) > float(b) || __hisnan(b) ? a : b;
}
inline half __hmin(half a, half b) {
    return float(a) < float(b) || __hisnan(b) ? a : b;
}
