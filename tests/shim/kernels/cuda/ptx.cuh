/* Stands before kernels/cuda/ptx.cuh: the same functions by the same lane maps, in plain C++. The products
   and matrix loads are collectives of the warp; asynchronous copies arrive only when they are waited for. */
#pragma once

#include "tests/shim/cuda_runtime.h"

namespace ptx {

template <typename T> T *dynamic_shared() {
    return reinterpret_cast<T *>(shim::dynamic_shared);
}

void mma_m16n8k16_f16_f32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_m16n8k16_bf16_f32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_m16n8k8_f16_f32(float (&c)[4], const uint32_t (&a)[2], uint32_t b);
void ldmatrix_x4(uint32_t (&r)[4], const void *row);
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row);
void ldmatrix_x2(uint32_t (&r)[2], const void *row);
void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row);

void cp_async(void *shared, const void *global, int size, int bytes);
inline void cp_async_16(void *shared, const void *global, int bytes = 16) {
    cp_async(shared, global, 16, bytes);
}
template <int size> void cp_async_small(void *shared, const void *global, int bytes = size) {
    static_assert(size == 4 || size == 8, "cp.async.ca copies 4, 8 or 16 bytes");
    cp_async(shared, global, size, bytes);
}
void cp_async_commit();
void cp_async_wait_for(int pending);
template <int pending> void cp_async_wait() {
    cp_async_wait_for(pending);
}

void check_alignment(const void *p, size_t bytes);
inline uint4 load_streaming_16(const void *global) {
    check_alignment(global, 16);
    return *static_cast<const uint4 *>(global);
}
inline uint2 load_streaming_8(const void *global) {
    check_alignment(global, 8);
    return *static_cast<const uint2 *>(global);
}
inline uint32_t load_streaming_4(const void *global) {
    check_alignment(global, 4);
    return *static_cast<const uint32_t *>(global);
}
inline void store_16(void *global, uint4 v) {
    check_alignment(global, 16);
    *static_cast<uint4 *>(global) = v;
}
inline void prefetch_l2(const void *) {}

inline float exp2_flushed(float x) {
    float r = exp2f(x);
    return r < 1.17549435e-38f ? 0.0f : r; /* a NaN stays */
}

template <int table> uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r = 0;
    for (int i = 0; i < 8; i++)
        if (table >> i & 1) r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return r;
}

inline void wait_for_previous_kernel() {
    shim::current->waited = true;
}
inline void let_next_kernel_begin() {}

} // namespace ptx
