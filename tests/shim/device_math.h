/* Vector types and arithmetic intrinsics of CUDA, on the host. */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define SHIM_VECTOR(T, name, bytes1, bytes2, bytes4)                                                         \
    struct name##1 {                                                                                         \
        T x;                                                                                                 \
    };                                                                                                       \
    struct alignas(bytes2) name##2 {                                                                         \
        T x, y;                                                                                              \
    };                                                                                                       \
    struct name##3 {                                                                                         \
        T x, y, z;                                                                                           \
    };                                                                                                       \
    struct alignas(bytes4) name##4 {                                                                         \
        T x, y, z, w;                                                                                        \
    };                                                                                                       \
    constexpr name##1 make_##name##1(T x) {                                                                  \
        return {x};                                                                                          \
    }                                                                                                        \
    constexpr name##2 make_##name##2(T x, T y) {                                                             \
        return {x, y};                                                                                       \
    }                                                                                                        \
    constexpr name##3 make_##name##3(T x, T y, T z) {                                                        \
        return {x, y, z};                                                                                    \
    }                                                                                                        \
    constexpr name##4 make_##name##4(T x, T y, T z, T w) {                                                   \
        return {x, y, z, w};                                                                                 \
    }
SHIM_VECTOR(float, float, 4, 8, 16)
SHIM_VECTOR(double, double, 8, 16, 16)
SHIM_VECTOR(int, int, 4, 8, 16)
SHIM_VECTOR(short, short, 2, 4, 8)
SHIM_VECTOR(unsigned short, ushort, 2, 4, 8)
SHIM_VECTOR(signed char, char, 1, 2, 4)
SHIM_VECTOR(unsigned char, uchar, 1, 2, 4)
SHIM_VECTOR(long long, longlong, 8, 16, 16)
SHIM_VECTOR(unsigned long long, ulonglong, 8, 16, 16)
#undef SHIM_VECTOR
struct uint1 {
    unsigned x;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
constexpr uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

using std::isfinite;
using std::isinf;
using std::isnan;

namespace shim {
template <typename To, typename From> To bits_of(From v) {
    static_assert(sizeof(To) == sizeof(From), "same width");
    To r;
    memcpy(&r, &v, sizeof r);
    return r;
}
} // namespace shim

inline int __float_as_int(float v) {
    return shim::bits_of<int>(v);
}
inline unsigned __float_as_uint(float v) {
    return shim::bits_of<unsigned>(v);
}
inline float __int_as_float(int v) {
    return shim::bits_of<float>(v);
}
inline float __uint_as_float(unsigned v) {
    return shim::bits_of<float>(v);
}
inline long long __double_as_longlong(double v) {
    return shim::bits_of<long long>(v);
}
inline double __longlong_as_double(long long v) {
    return shim::bits_of<double>(v);
}

inline float rsqrtf(float v) {
    return 1.0f / sqrtf(v);
}
inline double rsqrt(double v) {
    return 1.0 / sqrt(v);
}
inline float __expf(float v) {
    return expf(v);
}
inline float __logf(float v) {
    return logf(v);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __frcp_rn(float v) {
    return 1.0f / v;
}
inline float __fsqrt_rn(float v) {
    return sqrtf(v);
}
inline float __fadd_rn(float a, float b) {
    return a + b;
}
inline float __fsub_rn(float a, float b) {
    return a - b;
}
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
inline double __dadd_rn(double a, double b) {
    return a + b;
}
inline double __dmul_rn(double a, double b) {
    return a * b;
}
inline int __float2int_rn(float v) {
    return static_cast<int>(rintf(v));
}
inline int __float2int_rz(float v) {
    return static_cast<int>(v);
}
inline int __float2int_rd(float v) {
    return static_cast<int>(floorf(v));
}
inline unsigned __float2uint_rn(float v) {
    return static_cast<unsigned>(rintf(v));
}
inline float __int2float_rn(int v) {
    return static_cast<float>(v);
}
inline float __uint2float_rn(unsigned v) {
    return static_cast<float>(v);
}
inline float __saturatef(float v) {
    return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f;
}

inline int __popc(unsigned v) {
    return __builtin_popcount(v);
}
inline int __popcll(unsigned long long v) {
    return __builtin_popcountll(v);
}
inline int __clz(int v) {
    return v ? __builtin_clz(static_cast<unsigned>(v)) : 32;
}
inline int __ffs(int v) {
    return __builtin_ffs(v);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    uint64_t all = static_cast<uint64_t>(b) << 32 | a;
    unsigned r = 0;
    for (unsigned i = 0; i < 4; i++) {
        unsigned s = selector >> (4 * i) & 15, byte = static_cast<unsigned>(all >> (8 * (s & 7))) & 255;
        if (s & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (n & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
    return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (n & 31) >> 32);
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++)
        c += static_cast<int8_t>(static_cast<unsigned>(a) >> (8 * i)) *
             static_cast<int8_t>(static_cast<unsigned>(b) >> (8 * i));
    return c;
}

/* CUDA's min and max take any mixture; these take one type. */
template <typename T> constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T> constexpr T max(T a, T b) {
    return a < b ? b : a;
}
