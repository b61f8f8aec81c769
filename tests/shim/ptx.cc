#include "tests/shim/kernels/cuda/ptx.cuh"
#include "tests/shim/cuda_bf16.h"
#include "tests/shim/cuda_fp16.h"
#include "tests/shim/shim.h"

namespace ptx {

namespace {

struct product { /* one lane's fragments */
    float *c;
    const uint32_t *a, *b;
};

template <typename Element> float element(uint32_t word, int half) {
    return float(shim::bits_of<Element>(static_cast<unsigned short>(word >> (16 * half))));
}

/* depth 8 or 16. Products are exact in float32; sums are in float64 and rounded once, one order of many. */
template <typename Element, int depth> void multiply(void **arguments, unsigned mask) {
    if (mask != 0xffffffffu) shim::fail("mma of a warp that is not whole (lanes %08x)", mask);
    float a[16][depth], b[depth][8];
    for (int lane = 0; lane < 32; lane++) {
        auto *p = static_cast<product *>(arguments[lane]);
        int g = lane / 4, t = lane % 4;
        for (int r = 0; r < depth / 4; r++)
            for (int h = 0; h < 2; h++)
                a[g + 8 * (r % 2)][2 * t + h + 8 * (r / 2)] = element<Element>(p->a[r], h);
        for (int r = 0; r < depth / 8; r++)
            for (int h = 0; h < 2; h++) b[2 * t + h + 8 * r][g] = element<Element>(p->b[r], h);
    }
    for (int lane = 0; lane < 32; lane++) {
        auto *p = static_cast<product *>(arguments[lane]);
        for (int r = 0; r < 4; r++) {
            int row = lane / 4 + 8 * (r / 2), column = 2 * (lane % 4) + r % 2;
            double sum = double(p->c[r]);
            for (int k = 0; k < depth; k++) sum += double(a[row][k]) * double(b[k][column]);
            p->c[r] = float(sum);
        }
    }
}

struct matrix_load {
    uint32_t *r;
    const void *row;
};

template <int count, bool transposed> void load_matrices(void **arguments, unsigned mask) {
    if (mask != 0xffffffffu) shim::fail("ldmatrix of a warp that is not whole (lanes %08x)", mask);
    for (int i = 0; i < count; i++) {
        unsigned short m[8][8];
        for (int row = 0; row < 8; row++) {
            const void *from = static_cast<matrix_load *>(arguments[8 * i + row])->row;
            check_alignment(from, 16);
            for (int column = 0; column < 8; column++)
                m[row][column] = static_cast<const unsigned short *>(from)[column];
        }
        for (int lane = 0; lane < 32; lane++) {
            int g = lane / 4, t = lane % 4;
            unsigned low = transposed ? m[2 * t][g] : m[g][2 * t],
                     high = transposed ? m[2 * t + 1][g] : m[g][2 * t + 1];
            static_cast<matrix_load *>(arguments[lane])->r[i] = low | high << 16;
        }
    }
}

} // namespace

void check_alignment(const void *p, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(p) % bytes) shim::fail("%p is not aligned to %zu bytes", p, bytes);
}

void mma_m16n8k16_f16_f32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    product mine = {c, a, b};
    shim::collective("mma.m16n8k16.f16", 0xffffffffu, &mine, multiply<__half, 16>);
}
void mma_m16n8k16_bf16_f32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    product mine = {c, a, b};
    shim::collective("mma.m16n8k16.bf16", 0xffffffffu, &mine, multiply<__nv_bfloat16, 16>);
}
void mma_m16n8k8_f16_f32(float (&c)[4], const uint32_t (&a)[2], uint32_t b) {
    product mine = {c, a, &b};
    shim::collective("mma.m16n8k8.f16", 0xffffffffu, &mine, multiply<__half, 8>);
}
void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    matrix_load mine = {r, row};
    shim::collective("ldmatrix.x4", 0xffffffffu, &mine, load_matrices<4, false>);
}
void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    matrix_load mine = {r, row};
    shim::collective("ldmatrix.x4.trans", 0xffffffffu, &mine, load_matrices<4, true>);
}
void ldmatrix_x2(uint32_t (&r)[2], const void *row) {
    matrix_load mine = {r, row};
    shim::collective("ldmatrix.x2", 0xffffffffu, &mine, load_matrices<2, false>);
}
void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    matrix_load mine = {r, row};
    shim::collective("ldmatrix.x2.trans", 0xffffffffu, &mine, load_matrices<2, true>);
}

/* The source is read and the target written as late as the instruction allows: at the wait. Until then the
   target holds garbage. */
void cp_async(void *shared, const void *global, int size, int bytes) {
    if (bytes < 0 || bytes > size) shim::fail("cp.async of %d bytes in %d", bytes, size);
    check_alignment(shared, static_cast<size_t>(size));
    check_alignment(global, static_cast<size_t>(size));
    memset(shared, 0xff, static_cast<size_t>(size));
    shim::current->copies.push_back({shared, global, size, bytes, shim::current->copy_groups});
}
void cp_async_commit() {
    shim::current->copy_groups++;
}
void cp_async_wait_for(int pending) {
    shim::thread *t = shim::current;
    size_t kept = 0;
    for (const shim::async_copy &copy : t->copies) {
        if (copy.group >= t->copy_groups - pending) {
            t->copies[kept++] = copy;
            continue;
        }
        memset(copy.shared, 0, static_cast<size_t>(copy.size));
        memcpy(copy.shared, copy.global, static_cast<size_t>(copy.bytes));
    }
    t->copies.resize(kept);
}

} // namespace ptx
