/* What CUDA C has no words for, as functions: tensor-core products, asynchronous copies, loads with a cache
   hint. No other file holds inline PTX. Where an architecture lacks an instruction the wrapper still compiles
   and traps: launchers choose kernels by the device's compute capability.

   Fragments are named by lane as the PTX ISA has it ("Matrix fragments for mma.m16n8k16" and its like); with
   g = lane / 4 and t = lane % 4, each 32-bit register holding two 16-bit elements, the lower column first:
     A [16 x 16] row-major  a[0]: row g, columns 2t, 2t+1     a[1]: row g+8, the same columns
                            a[2]: row g, columns 2t+8, 2t+9   a[3]: row g+8, the same columns
     B [16 x 8] (k x n)     b[0]: rows 2t, 2t+1 of column g   b[1]: rows 2t+8, 2t+9 of column g
     C [16 x 8] float32     c[0], c[1]: row g, columns 2t, 2t+1    c[2], c[3]: row g+8, the same columns
   m16n8k8 has the first two registers of A and the first of B. */
#pragma once

#include <cstdint>
#include <cuda_runtime.h>

namespace ptx {

/* The block's dynamic shared memory, aligned to 128 bytes; every kernel sees the same bytes under any T. */
template <typename T> __device__ __forceinline__ T *dynamic_shared() {
    extern __shared__ __align__(128) unsigned char qb_dynamic_shared[];
    return reinterpret_cast<T *>(qb_dynamic_shared);
}

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define QB_SM80(...) __VA_ARGS__
#else
#define QB_SM80(...) __trap()
#endif

/* c += a * b, float16 in and float32 sums. From compute capability 8.0. */
__device__ __forceinline__ void mma_m16n8k16_f16_f32(float (&c)[4], const uint32_t (&a)[4],
                                                     const uint32_t (&b)[2]) {
    QB_SM80(asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));
}

/* The same in bfloat16. From compute capability 8.0. */
__device__ __forceinline__ void mma_m16n8k16_bf16_f32(float (&c)[4], const uint32_t (&a)[4],
                                                      const uint32_t (&b)[2]) {
    QB_SM80(asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));
}

/* c += a * b with a [16 x 8], b [8 x 8]. From compute capability 7.5. */
__device__ __forceinline__ void mma_m16n8k8_f16_f32(float (&c)[4], const uint32_t (&a)[2], uint32_t b) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory: lanes 8i .. 8i+7 name the rows (16 bytes,
   aligned) of matrix i. r[i] holds of matrix i row lane / 4, columns 2t and 2t + 1; transposed: rows 2t and
   2t + 1 of column lane / 4. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
/* Two matrices; the rows of lanes 0 .. 15 count. */
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* 16 bytes from global to shared memory past the registers and L1; the first `bytes` are read, the rest are
   zeros. They have arrived for this thread after cp_async_wait, for the block after a barrier behind it.
   On 7.5 the copy goes through registers at once. */
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, int bytes = 16) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
#else
    uint4 v = make_uint4(0, 0, 0, 0);
    if (bytes == 16)
        v = *static_cast<const uint4 *>(global);
    else
        for (int i = 0; i < bytes; i++)
            reinterpret_cast<unsigned char *>(&v)[i] = static_cast<const unsigned char *>(global)[i];
    *static_cast<uint4 *>(shared) = v;
#endif
}
/* The same for 4 or 8 bytes, through L1. */
template <int size>
__device__ __forceinline__ void cp_async_small(void *shared, const void *global, int bytes = size) {
    static_assert(size == 4 || size == 8, "cp.async.ca copies 4, 8 or 16 bytes");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(size), "r"(bytes)
                 : "memory");
#else
    for (int i = 0; i < size; i++)
        static_cast<unsigned char *>(shared)[i] =
            i < bytes ? static_cast<const unsigned char *>(global)[i] : 0;
#endif
}
/* Closes a group of the copies since the last. */
__device__ __forceinline__ void cp_async_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Waits until at most `pending` of this thread's groups are on their way. */
template <int pending> __device__ __forceinline__ void cp_async_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

/* Bytes that are read once: kept out of L1 and first to leave L2. The memory must not be written meanwhile.
 */
__device__ __forceinline__ uint4 load_streaming_16(const void *global) {
    uint4 v;
    asm volatile("ld.global.cs.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}
__device__ __forceinline__ uint2 load_streaming_8(const void *global) {
    uint2 v;
    asm volatile("ld.global.cs.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(global));
    return v;
}
__device__ __forceinline__ uint32_t load_streaming_4(const void *global) {
    uint32_t v;
    asm volatile("ld.global.cs.u32 %0, [%1];" : "=r"(v) : "l"(global));
    return v;
}

/* One store of 16 bytes, which the compiler splits into four where it can (an assigned uint4 of values just
 * computed). */
__device__ __forceinline__ void store_16(void *global, uint4 v) {
    asm volatile("st.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(global), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}

/* Asks for the line to be brought into L2. */
__device__ __forceinline__ void prefetch_l2(const void *global) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

/* 2^x, results below 2^-126 zero: exp2f without its steps for them. */
__device__ __forceinline__ float exp2_flushed(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* Any function of three bits: `table` is what it gives for a = 0xf0, b = 0xcc, c = 0xaa. */
template <int table> __device__ __forceinline__ uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(a), "r"(b), "r"(c), "n"(table));
    return r;
}

/* Programmatic dependent launch (9.0; elsewhere nothing): waits for the kernel before, or lets the next
 * begin. */
__device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_kernel_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#undef QB_SM80

} // namespace ptx
