/* The shim itself: what it runs is what CUDA would, and
   what CUDA would let pass silently ends the program. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/shim/cublas_v2.h"
#include "tests/shim/cuda_bf16.h"
#include "tests/shim/cuda_fp16.h"
#include "tests/shim/shim.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
extern "C" {
#include "kernels/dtype.h"
#include <cmocka.h>
}

static void ok(cudaError_t error) {
    if (error != cudaSuccess) fail_msg("%s", cudaGetErrorString(error));
}

/* An array on the device, whose content goes to and fro. */
template <typename T> struct device_array {
    T *p = nullptr;
    size_t n;
    explicit device_array(size_t count) : n(count) { ok(cudaMalloc(&p, n * sizeof(T))); }
    explicit device_array(const std::vector<T> &from) : device_array(from.size()) {
        ok(cudaMemcpy(p, from.data(), n * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~device_array() { cudaFree(p); }
    std::vector<T> get() const {
        std::vector<T> to(n);
        ok(cudaMemcpy(to.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return to;
    }
};

/* How a child ends that runs body. */
template <typename Body> static int ending_of(const Body &body) {
    pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        body();
        cudaDeviceSynchronize();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

/* ---- grids and barriers ---- */

static __global__ void index_kernel(int *seen, dim3 block, dim3 grid) {
    unsigned b = (blockIdx.z * grid.y + blockIdx.y) * grid.x + blockIdx.x;
    unsigned t = (threadIdx.z * block.y + threadIdx.y) * block.x + threadIdx.x;
    if (blockDim.x == block.x && gridDim.z == grid.z) seen[b * block.x * block.y * block.z + t] += 1;
}

static void test_shim__every_thread_runs_once(void **) {
    for (uint64_t seed = 0; seed < 4; seed++) {
        qb_shim_set_seed(seed);
        dim3 block(5, 3, 4), grid(3, 2, 2);
        device_array<int> seen(std::vector<int>(5 * 3 * 4 * 12, 0));
        ok(qb_launch(index_kernel, grid, block, 0, nullptr, seen.p, block, grid));
        for (int n : seen.get()) assert_int_equal(n, 1);
    }
}

static __global__ void reverse_kernel(int *out, bool with_barrier) {
    __shared__ int values[96];
    for (int round = 0; round < 3; round++) {
        values[threadIdx.x] = static_cast<int>(threadIdx.x) + round;
        if (with_barrier) __syncthreads();
        out[round * 96 + static_cast<int>(threadIdx.x)] = values[95 - threadIdx.x];
        if (with_barrier) __syncthreads();
    }
}

static bool reverses(uint64_t seed, bool with_barrier) {
    qb_shim_set_seed(seed);
    device_array<int> out(3 * 96);
    ok(qb_launch(reverse_kernel, dim3(1), dim3(96), 0, nullptr, out.p, with_barrier));
    std::vector<int> got = out.get();
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 96; i++)
            if (got[static_cast<size_t>(round * 96 + i)] != 95 - i + round) return false;
    return true;
}

static void test_shim__barriers_hold_and_missing_ones_show(void **) {
    for (uint64_t seed = 0; seed < 8; seed++) {
        assert_true(reverses(seed, true));
        assert_false(reverses(seed, false));
    }
}

static __global__ void count_kernel(int *out, int n) {
    int mine = static_cast<int>(threadIdx.x) < n;
    int count = __syncthreads_count(mine), any = __syncthreads_or(mine), all = __syncthreads_and(mine);
    out[threadIdx.x] = count + 1000 * any + 2000 * all;
}

static void test_shim__barriers_that_count(void **) {
    device_array<int> out(70);
    for (int n : {0, 1, 33, 70}) {
        ok(qb_launch(count_kernel, dim3(1), dim3(70), 0, nullptr, out.p, n));
        for (int v : out.get()) assert_int_equal(v, n + (n > 0 ? 1000 : 0) + (n == 70 ? 2000 : 0));
    }
}

static __global__ void part_kernel(int how, int *out) {
    __shared__ int slot;
    bool odd = threadIdx.x % 2 != 0;
    if (how == 0 && odd) return;
    if (how == 1 && odd)
        __syncthreads();
    else if (how != 2)
        __syncthreads();
    if (how == 2 && !odd) __shfl_sync(0xffffffffu, 1, 0);
    if (how == 3) __shfl_sync(odd ? 0x55555555u : 0xaaaaaaaau, 1, 0); /* not its own lane */
    if (how == 4) odd ? __syncwarp() : (void)__ballot_sync(0xffffffffu, 1);
    if (how == 5) out[threadIdx.x] = __shfl_sync(0x0000ffffu & ~0u >> 1, 1, 31, 32);
    slot = how;
    out[0] = slot;
}

static __global__ void waits_kernel(unsigned threads) {
    if (threadIdx.x < threads) ptx::wait_for_previous_kernel();
}

/* A dependent kernel of which a thread never waits breaks the order of those behind it. */
static void test_shim__dependents_that_do_not_wait_end_the_program(void **) {
    for (unsigned threads : {64u, 63u, 0u})
        for (bool dependent : {false, true}) {
            int end = ending_of([threads, dependent] {
                ok(qb_launch_with(dependent, waits_kernel, dim3(2), dim3(64), 0, nullptr, threads));
                cudaDeviceSynchronize();
            });
            if (threads == 64 || !dependent)
                assert_int_equal(end, 0);
            else
                assert_true(WIFSIGNALED(end));
        }
}

static void test_shim__threads_that_part_end_the_program(void **) {
    for (int how = 0; how < 7; how++) {
        int end = ending_of([how] {
            device_array<int> out(64);
            ok(qb_launch(part_kernel, dim3(1), dim3(32), 0, nullptr, how, out.p));
            cudaDeviceSynchronize();
        });
        if (how < 6)
            assert_true(WIFSIGNALED(end) && WTERMSIG(end) == SIGABRT);
        else
            assert_int_equal(end, 0); /* 6: nobody parts */
    }
}

static __global__ void write_kernel(int *to, int at) {
    to[at] = 1;
}
static __global__ void dynamic_kernel(int at) {
    ptx::dynamic_shared<int>()[at] = 1;
}

static void test_shim__launches_are_checked(void **) {
    device_array<int> a(4);
    assert_int_equal(qb_launch(write_kernel, dim3(0), dim3(1), 0, nullptr, a.p, 0),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(qb_launch(write_kernel, dim3(1), dim3(1025), 0, nullptr, a.p, 0),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(qb_launch(write_kernel, dim3(1, 65536), dim3(1), 0, nullptr, a.p, 0),
                     cudaErrorInvalidConfiguration);
    assert_int_equal(qb_launch(dynamic_kernel, dim3(1), dim3(1), 228 << 10, nullptr, 0),
                     cudaErrorInvalidValue);
    ok(qb_launch(dynamic_kernel, dim3(1), dim3(1), 227 << 10, nullptr, (227 << 8) - 1));
    /* What a kernel was allowed stays, for a graph may hold the larger launch. */
    cudaFuncAttributes allowed;
    ok(qb_launch(dynamic_kernel, dim3(1), dim3(1), 64 << 10, nullptr, 0));
    ok(cudaFuncGetAttributes(&allowed, dynamic_kernel));
    assert_int_equal(allowed.maxDynamicSharedSizeBytes, 227 << 10);
    ok(cudaDeviceSynchronize());
    cudaGetLastError();
}

#if defined(QB_SANITIZED)
static void test_shim__accesses_out_of_bounds_end_the_program(void **) {
    for (int how = 0; how < 4; how++) {
        int end = ending_of([how] {
            device_array<int> a(4), b(4);
            if (how == 1) cudaFree(b.p);
            if (how < 2)
                ok(qb_launch(write_kernel, dim3(1), dim3(1), 0, nullptr, how ? b.p : a.p, how ? 0 : 4));
            else
                ok(qb_launch(dynamic_kernel, dim3(1), dim3(1), 64, nullptr, how == 2 ? 16 : 15));
            cudaDeviceSynchronize();
            b.p = nullptr;
        });
        if (how < 3)
            assert_int_not_equal(end, 0);
        else
            assert_int_equal(end, 0);
    }
}
#endif

template <typename T> static __global__ void unwritten_kernel(float *out, T x) {
    __shared__ T fixed[8];
    T *dynamic = ptx::dynamic_shared<T>();
    if (x > T(0)) fixed[threadIdx.x] = dynamic[threadIdx.x] = x;
    out[blockIdx.x * 8 + threadIdx.x] = static_cast<float>(fixed[threadIdx.x] + dynamic[threadIdx.x]);
}

static void test_shim__shared_memory_begins_as_garbage(void **) {
    device_array<float> out(16);
    ok(qb_launch(unwritten_kernel<float>, dim3(2), dim3(8), 32, nullptr, out.p, 1.0f));
    for (float v : out.get()) assert_true(v == 2.0f);
    ok(qb_launch(unwritten_kernel<float>, dim3(2), dim3(8), 32, nullptr, out.p, 0.0f));
    for (float v : out.get()) assert_true(v != v);
}

/* ---- warps ---- */

static __global__ void warp_kernel(int *out) {
    int lane = static_cast<int>(threadIdx.x % 32), v = static_cast<int>(threadIdx.x) * 3;
    int *mine = out + threadIdx.x * 8;
    unsigned whole = threadIdx.x < 64 ? 0xffffffffu : 0x000000ffu;
    mine[0] = __shfl_sync(whole, v, 5);
    mine[1] = __shfl_xor_sync(whole, v, 3);
    mine[2] = __shfl_down_sync(whole, v, 2, 8);
    mine[3] = __shfl_up_sync(whole, v, 1, 8);
    mine[4] = static_cast<int>(__ballot_sync(whole, lane % 3 == 0));
    mine[5] = __any_sync(whole, v == 9) + 2 * __all_sync(whole, v >= 0);
    double big = __shfl_sync(whole, 1e300 * lane, 7);
    mine[6] = big == 7e300;
    /* Both halves of the warp at once, each by itself. */
    unsigned half_mask = lane < 4 ? 0xfu : 0xf0u;
    mine[7] = lane < 8 ? __shfl_xor_sync(half_mask, v, 1) : 0;
}

static void test_shim__warp_functions(void **) {
    for (uint64_t seed = 0; seed < 4; seed++) {
        qb_shim_set_seed(seed);
        device_array<int> out(72 * 8);
        ok(qb_launch(warp_kernel, dim3(1), dim3(72), 0, nullptr, out.p));
        std::vector<int> got = out.get();
        for (int t = 0; t < 72; t++) {
            const int *g = &got[static_cast<size_t>(t) * 8];
            int lane = t % 32, first = t - lane, ballot = 0;
            for (int l = 0; l < (t < 64 ? 32 : 8); l++) ballot |= l % 3 == 0 ? static_cast<int>(1u << l) : 0;
            assert_int_equal(g[0], (first + 5) * 3);
            assert_int_equal(g[1], (first + (lane ^ 3)) * 3);
            assert_int_equal(g[2], (lane % 8 < 6 ? t + 2 : t) * 3);
            assert_int_equal(g[3], (lane % 8 > 0 ? t - 1 : t) * 3);
            assert_int_equal(g[4], ballot);
            assert_int_equal(g[5], (first == 0 ? 1 : 0) + 2);
            assert_int_equal(g[6], 1);
            assert_int_equal(g[7], lane < 8 ? (t ^ 1) * 3 : 0);
        }
    }
}

/* ---- tensor cores and copies ---- */

/* c[16 x 8] = a[16 x depth] b[depth x 8], all row-major, by the usual way: ldmatrix brings a's quarters and
   b's halves, transposed, to where mma wants them. */
template <int depth> static __global__ void product_kernel(const half *a, const half *b, float *c) {
    __shared__ __align__(16) half sa[16 * depth], sb[depth * 8];
    int lane = static_cast<int>(threadIdx.x);
    for (int i = lane; i < 16 * depth; i += 32) sa[i] = a[i];
    for (int i = lane; i < depth * 8; i += 32) sb[i] = b[i];
    __syncthreads();
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if constexpr (depth == 16) {
        uint32_t fa[4], fb[2];
        ptx::ldmatrix_x4(fa, sa + lane % 16 * 16 + lane / 16 * 8);
        ptx::ldmatrix_x2_trans(fb, sb + lane % 16 * 8);
        ptx::mma_m16n8k16_f16_f32(sums, fa, fb);
    } else {
        uint32_t fa[2], fb[4];
        ptx::ldmatrix_x2(fa, sa + lane % 16 * 8);
        ptx::ldmatrix_x4_trans(fb, sb + lane % 8 * 8); /* the same matrix four times */
        ptx::mma_m16n8k8_f16_f32(sums, fa, fb[3]);
    }
    for (int r = 0; r < 4; r++) c[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = sums[r];
}

template <int depth> static void check_product() {
    std::vector<half> a(16 * depth), b(depth * 8);
    for (size_t i = 0; i < a.size(); i++) a[i] = half(static_cast<float>(i * 37 % 101) / 16.0f - 3.0f);
    for (size_t i = 0; i < b.size(); i++) b[i] = half(static_cast<float>(i * 53 % 89) / 8.0f - 5.0f);
    device_array<half> da(a), db(b);
    device_array<float> dc(16 * 8);
    ok(qb_launch(product_kernel<depth>, dim3(1), dim3(32), 0, nullptr, da.p, db.p, dc.p));
    std::vector<float> c = dc.get();
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 8; j++) {
            double want = 0;
            for (size_t k = 0; k < depth; k++)
                want += double(float(a[i * depth + k])) * double(float(b[k * 8 + j]));
            assert_true(c[i * 8 + j] == static_cast<float>(want));
        }
}

static void test_shim__tensor_core_products(void **) {
    for (uint64_t seed = 0; seed < 3; seed++) {
        qb_shim_set_seed(seed);
        check_product<8>();
        check_product<16>();
    }
}

static __global__ void copy_kernel(const int *from, int *out) {
    __shared__ __align__(16) int slots[3][4];
    ptx::cp_async_16(slots[0], from);
    ptx::cp_async_commit();
    ptx::cp_async_16(slots[1], from + 4, 12);
    ptx::cp_async_small<4>(&slots[2][0], from + 8);
    ptx::cp_async_small<8>(&slots[2][2], from + 9 + 1, 4);
    ptx::cp_async_commit();
    out[12] = slots[0][0] != from[0]; /* not waited for: not there */
    ptx::cp_async_wait<1>();
    out[13] = slots[0][3] == from[3] && slots[1][0] != from[4];
    ptx::cp_async_wait<0>();
    slots[2][1] = -1;
    for (int i = 0; i < 12; i++) out[i] = slots[i / 4][i % 4];
}

static void test_shim__asynchronous_copies(void **) {
    device_array<int> from(std::vector<int>{10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21}), out(14);
    ok(qb_launch(copy_kernel, dim3(1), dim3(1), 0, nullptr, from.p, out.p));
    const int want[14] = {10, 11, 12, 13, 14, 15, 16, 0, 18, -1, 20, 0, 1, 1};
    std::vector<int> got = out.get();
    for (size_t i = 0; i < 14; i++) assert_int_equal(got[i], want[i]);
}

/* ---- arithmetic ---- */

static void test_shim__halves_round_as_float16_does(void **) {
    for (uint32_t bits = 0; bits < 65536; bits++) {
        half h = __ushort_as_half(static_cast<unsigned short>(bits));
        float f = qb_f32_of_f16(static_cast<uint16_t>(bits));
        if (f != f) {
            assert_true(__hisnan(h) && float(h) != float(h));
            continue;
        }
        assert_true(float(h) == f);
        for (float off : {0.0f, 0x1p-12f, 0x1.8p-11f, -0x1p-12f}) {
            float v = f * (1.0f + off);
            assert_int_equal(__half_as_ushort(__float2half_rn(v)), qb_f16_of_f32(v));
            assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(v)), qb_bf16_of_f32(v));
        }
    }
    /* One rounding: 2049 * 2049 would round to 4198400 first, and lose the 1. */
    half r = __hfma(half(33.0f), half(63.0f), half(0x1p-10f));
    assert_true(float(r) == float(half(33.0f * 63.0f + 0x1p-10f)));
    half2 s = __hfma2(half2(half(0.5f), half(3.0f)), half2(half(0.5f), half(1024.0f)),
                      half2(half(1.0f), half(-3072.0f)));
    assert_true(__low2float(s) == 1.25f && __high2float(s) == 0.0f);
}

static void test_shim__bit_functions(void **) {
    assert_int_equal(__byte_perm(0x33221100u, 0x77665544u, 0x7610u), 0x77661100u);
    assert_int_equal(__byte_perm(0x80000000u, 0, 0xb), 0xff);
    assert_int_equal(__funnelshift_r(0x11111111u, 0x22222222u, 4), 0x21111111u);
    assert_int_equal(__funnelshift_l(0x11111111u, 0x22222222u, 4), 0x22222221u);
    assert_int_equal(__dp4a(0x01ff7f80, 0x02020202, 1), 2 - 2 + 254 - 256 + 1);
    assert_int_equal(ptx::lop3<0xea>(0x1234u, 0x00f0u, 0x6400u), (0x1234u & 0x00f0u) | 0x6400u);
    assert_int_equal(ptx::lop3<0x96>(5u, 9u, 17u), 5u ^ 9u ^ 17u);
    assert_int_equal(__popc(0xf0f0u) + __clz(1) + __ffs(8), 8 + 31 + 4);
}

/* ---- streams and graphs ---- */

static __global__ void add_kernel(int *to, const int *from) {
    *to += *from;
}

static void test_shim__streams_run_late(void **) {
    cudaStream_t one, two;
    cudaEvent_t event;
    ok(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking));
    ok(cudaEventCreate(&event));
    device_array<int> a(std::vector<int>{1}), b(std::vector<int>{10});
    int *pinned;
    ok(cudaHostAlloc(&pinned, sizeof(int), 0));
    *pinned = 0;
    ok(qb_launch(add_kernel, dim3(1), dim3(1), 0, one, a.p, b.p)); /* a = 11 */
    ok(cudaMemcpyAsync(pinned, a.p, sizeof(int), cudaMemcpyDeviceToHost, one));
    assert_int_equal(*pinned, 0); /* nobody waited */
    assert_int_equal(cudaStreamQuery(one), cudaErrorNotReady);
    ok(qb_launch(add_kernel, dim3(1), dim3(1), 0, two, b.p, a.p)); /* not ordered: b = 10 + 1 */
    ok(cudaStreamSynchronize(two));
    assert_int_equal(b.get()[0], 11);
    ok(cudaEventRecord(event, one));
    assert_int_equal(cudaEventQuery(event), cudaErrorNotReady);
    ok(cudaStreamWaitEvent(two, event, 0));
    ok(qb_launch(add_kernel, dim3(1), dim3(1), 0, two, b.p, a.p)); /* ordered: a = 1 + 11 first */
    ok(cudaStreamSynchronize(two));
    assert_int_equal(*pinned, 12);
    assert_int_equal(b.get()[0], 11 + 12);
    ok(cudaFreeHost(pinned));
    ok(cudaEventDestroy(event));
    ok(cudaStreamDestroy(one));
    ok(cudaStreamDestroy(two));
}

static void test_shim__graphs_replay(void **) {
    cudaStream_t stream, beside;
    cudaEvent_t fork_event, join_event;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ok(cudaStreamCreateWithFlags(&beside, cudaStreamNonBlocking));
    ok(cudaEventCreate(&fork_event));
    ok(cudaEventCreate(&join_event));
    device_array<int> a(std::vector<int>{1}), b(std::vector<int>{1});
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    ok(qb_launch(add_kernel, dim3(1), dim3(1), 0, stream, a.p, b.p));
    ok(cudaEventRecord(fork_event, stream));
    ok(cudaStreamWaitEvent(beside, fork_event, 0));
    ok(qb_launch(add_kernel, dim3(1), dim3(1), 0, beside, b.p, a.p));
    ok(cudaEventRecord(join_event, beside));
    ok(cudaStreamWaitEvent(stream, join_event, 0));
    assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
    ok(cudaStreamEndCapture(stream, &graph));
    ok(cudaGraphInstantiateWithFlags(&exec, graph, 0));
    ok(cudaGraphDestroy(graph));
    assert_int_equal(a.get()[0], 1); /* captured, not run */
    for (int i = 0; i < 3; i++) ok(cudaGraphLaunch(exec, stream));
    ok(cudaStreamSynchronize(stream));
    assert_int_equal(a.get()[0], 13); /* (1,1) (2,3) (5,8) (13,21) */
    assert_int_equal(b.get()[0], 21);
    ok(cudaGraphExecDestroy(exec));
    ok(cudaEventDestroy(fork_event));
    ok(cudaEventDestroy(join_event));
    ok(cudaStreamDestroy(stream));
    ok(cudaStreamDestroy(beside));
}

static void test_shim__blas_waits_its_turn(void **) {
    /* c[2 x 3] = a[2 x 4] b[4 x 3] in column-major, a stored transposed; types mixed as the backend does. */
    cublasHandle_t handle;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    std::vector<half> a(8), b(12);
    for (size_t i = 0; i < 8; i++) a[i] = half(static_cast<float>(i) - 3.0f);
    for (size_t i = 0; i < 12; i++) b[i] = half(static_cast<float>(i * 5 % 7));
    device_array<half> da(a), db(b);
    device_array<float> dc(std::vector<float>(6, 2.0f));
    float alpha = 2.0f, beta = 1.0f;
    assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, 2, 3, 4, &alpha, da.p, CUDA_R_16F, 4,
                                  db.p, CUDA_R_16F, 4, &beta, dc.p, CUDA_R_32F, 2, CUBLAS_COMPUTE_32F,
                                  CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
    alpha = beta = 0.0f; /* taken when called */
    std::vector<float> c = dc.get();
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 3; j++) {
            float want = 2.0f;
            for (size_t k = 0; k < 4; k++) want += 2.0f * float(a[i * 4 + k]) * float(b[j * 4 + k]);
            assert_true(c[j * 2 + i] == want);
        }
    assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, 2, 3, 4, &alpha, da.p, CUDA_R_16F, 3,
                                  db.p, CUDA_R_16F, 4, &beta, dc.p, CUDA_R_32F, 2, CUBLAS_COMPUTE_32F,
                                  CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_INVALID_VALUE);
    cublasDestroy(handle);
}

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shim__every_thread_runs_once),
        cmocka_unit_test(test_shim__barriers_hold_and_missing_ones_show),
        cmocka_unit_test(test_shim__barriers_that_count),
        cmocka_unit_test(test_shim__dependents_that_do_not_wait_end_the_program),
        cmocka_unit_test(test_shim__threads_that_part_end_the_program),
        cmocka_unit_test(test_shim__launches_are_checked),
#if defined(QB_SANITIZED)
        cmocka_unit_test(test_shim__accesses_out_of_bounds_end_the_program),
#endif
        cmocka_unit_test(test_shim__shared_memory_begins_as_garbage),
        cmocka_unit_test(test_shim__warp_functions),
        cmocka_unit_test(test_shim__tensor_core_products),
        cmocka_unit_test(test_shim__asynchronous_copies),
        cmocka_unit_test(test_shim__halves_round_as_float16_does),
        cmocka_unit_test(test_shim__bit_functions),
        cmocka_unit_test(test_shim__streams_run_late),
        cmocka_unit_test(test_shim__graphs_replay),
        cmocka_unit_test(test_shim__blas_waits_its_turn),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
