/* Greedy decoding without the host: the largest logit of each sequence becomes the next step's id in device
   memory, so that steps follow each other in the queue. */
#include "kernels/cuda/decode.cuh"

namespace {

enum { THREADS = 256, WARPS = THREADS / 32, BLOCK_LOGITS = 4096 };
constexpr int none = 0x7fffffff; /* a row that holds a NaN or an infinity */

/* A logit and its index; of equals the lower index is the better. */
struct candidate {
    float value;
    int index;
};
__device__ __forceinline__ candidate better(candidate a, candidate b) {
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}
__device__ __forceinline__ candidate better_of_warp(candidate c) {
#pragma unroll
    for (int width = 16; width > 0; width /= 2)
        c = better(
            c, {__shfl_xor_sync(0xffffffffu, c.value, width), __shfl_xor_sync(0xffffffffu, c.index, width)});
    return c;
}

__global__ void begin_kernel(decode_tokens t, decode_chosen c, int32_t *dev_first) {
    const int seq = static_cast<int>(threadIdx.x);
    if (seq < t.n_seq) c.next[seq] = t.ids[seq];
    if (seq == 0) *dev_first = t.first, *c.n_done = 0;
}

/* The best of a block's part of a row, index `none` where it is not finite. */
__device__ __forceinline__ candidate best_of_part(const float *row, int from, int to) {
    __shared__ candidate bests[WARPS];
    candidate best = {-INFINITY, none};
    bool bad = false;
#pragma unroll 8
    for (int i = from + static_cast<int>(threadIdx.x); i < to; i += THREADS) {
        const float v = row[i];
        bad |= !(fabsf(v) < INFINITY);
        if (v > best.value) best = {v, i};
    }
    best = better_of_warp(best);
    if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
    bad = __syncthreads_or(bad) != 0; /* the warps' bests are there as well */
    best = bests[0];
    for (int w = 1; w < WARPS; w++) best = better(best, bests[w]);
    return bad ? candidate{INFINITY, none} : best;
}

/* parts[seq][grid.x] of the logits; the block that comes last chooses, and moves the position on. */
__global__ void __launch_bounds__(THREADS)
    choose_kernel(const float *logits, int vocab, decode_chosen c, int32_t *dev_first) {
    __shared__ bool last;
    ptx::let_next_kernel_begin();
    ptx::wait_for_previous_kernel();
    candidate *parts = static_cast<candidate *>(c.parts);
    const int n_parts = static_cast<int>(gridDim.x), n_seq = static_cast<int>(gridDim.y);
    const int from = static_cast<int>(blockIdx.x) * BLOCK_LOGITS;
    const candidate best = best_of_part(logits + static_cast<int64_t>(blockIdx.y) * vocab, from,
                                        min(from + BLOCK_LOGITS, vocab));
    if (threadIdx.x == 0) {
        parts[blockIdx.y * gridDim.x + blockIdx.x] = best;
        __threadfence();
        const unsigned most = gridDim.x * gridDim.y - 1;
        last = atomicInc(c.arrived, most) == most;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    const int lane = threadIdx.x % 32, done = *c.n_done;
    for (int seq = threadIdx.x / 32; seq < n_seq; seq += WARPS) {
        candidate all = {-INFINITY, none};
        bool bad = false;
        for (int i = lane; i < n_parts; i += 32) {
            const candidate *part = parts + seq * n_parts + i;
            const candidate p = {__ldcg(&part->value), __ldcg(&part->index)};
            bad |= p.index == none;
            all = better(all, p);
        }
        all = better_of_warp(all);
        bad = __any_sync(0xffffffffu, bad);
        if (lane == 0) {
            c.next[seq] = bad ? 0 : all.index; /* any id that there is: what follows is thrown away */
            c.history[done * n_seq + seq] = bad ? -1 : all.index;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) *c.n_done = done + 1, ++*dev_first;
}

int parts_of(int64_t vocab) {
    return static_cast<int>((vocab + BLOCK_LOGITS - 1) / BLOCK_LOGITS);
}

} // namespace

int64_t qb_decode_parts_bytes(int64_t n_seq, int64_t vocab) {
    return n_seq * parts_of(vocab) * static_cast<int64_t>(sizeof(candidate));
}

cudaError_t qb_decode_begin(const decode_tokens &t, const decode_chosen &c, int32_t *dev_first,
                            cudaStream_t stream) {
    static_assert(QB_DECODE_MAX_SEQ <= 1024, "a thread a sequence");
    return qb_launch(begin_kernel, dim3(1), dim3(QB_DECODE_MAX_SEQ), 0, stream, t, c, dev_first);
}

cudaError_t qb_decode_choose(const float *logits, int64_t n_seq, int64_t vocab, const decode_chosen &c,
                             int32_t *dev_first, const decode_device &dev) {
    return qb_launch_with(dev.dependent, choose_kernel,
                          dim3(static_cast<unsigned>(parts_of(vocab)), static_cast<unsigned>(n_seq)),
                          dim3(THREADS), 0, dev.stream, logits, static_cast<int>(vocab), c, dev_first);
}
