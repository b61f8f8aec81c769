/* Stands in for the CUDA runtime's header: its names, on the shim (shim.h). Host API first, then the language
   of kernels. Only what the project uses is here; add what a new kernel needs. */
#pragma once

#include "tests/shim/device_math.h"
#include "tests/shim/execute.h"

#include <tuple>
#include <utility>

#define CUDART_VERSION 13000

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorNotReady = 600,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorECCUncorrectable = 214,
    cudaErrorNvlinkUncorrectable = 220,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchTimeout = 702,
    cudaErrorAssert = 710,
    cudaErrorHardwareStackError = 714,
    cudaErrorIllegalInstruction = 715,
    cudaErrorMisalignedAddress = 716,
    cudaErrorInvalidAddressSpace = 717,
    cudaErrorInvalidPc = 718,
    cudaErrorHostMemoryAlreadyRegistered = 712,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorExternalDevice = 911,
    cudaErrorUnknown = 999
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaSharedCarveout { cudaSharedmemCarveoutMaxShared = 100 };
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes; /* declared in the kernel, which the shim cannot see: 0 */
    int maxDynamicSharedSizeBytes;
};
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
};
enum cudaDeviceAttr {
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrL2CacheSize = 38
};
enum cudaLaunchAttributeID {
    cudaLaunchAttributeCooperative = 2,
    cudaLaunchAttributeProgrammaticStreamSerialization = 6
};
constexpr unsigned cudaHostAllocDefault = 0, cudaHostAllocPortable = 1, cudaHostAllocMapped = 2,
                   cudaHostAllocWriteCombined = 4, cudaHostRegisterDefault = 0, cudaHostRegisterMapped = 2,
                   cudaHostRegisterReadOnly = 8, cudaStreamDefault = 0, cudaStreamNonBlocking = 1,
                   cudaEventDefault = 0, cudaEventDisableTiming = 2;

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int major, minor, multiProcessorCount, l2CacheSize, warpSize, maxThreadsPerBlock,
        maxThreadsPerMultiProcessor;
    int regsPerBlock, regsPerMultiprocessor, memoryBusWidth, integrated, ECCEnabled, asyncEngineCount;
    int pciBusID, pciDeviceID, pciDomainID, canMapHostMemory, unifiedAddressing, cooperativeLaunch;
    unsigned char uuid_bytes[16];
};
union cudaLaunchAttributeValue {
    int cooperative;
    int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device);
cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr attribute, int device);
cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);

namespace shim {
cudaError_t device_alloc(void **out, size_t bytes);
cudaError_t host_alloc(void **out, size_t bytes);
cudaError_t launch(const cudaLaunchConfig_t &config, const void *kernel, std::function<void()> body);
cudaError_t max_dynamic_shared(const void *kernel, cudaFuncAttribute attribute, int value);
cudaError_t function_attributes(struct ::cudaFuncAttributes *out, const void *kernel);
cudaError_t blocks_per_multiprocessor(int *out, int threads, size_t shared_bytes);
} // namespace shim

template <typename T> cudaError_t cudaMalloc(T **out, size_t bytes) {
    return shim::device_alloc(reinterpret_cast<void **>(out), bytes);
}
template <typename T> cudaError_t cudaHostAlloc(T **out, size_t bytes, unsigned) {
    return shim::host_alloc(reinterpret_cast<void **>(out), bytes);
}
template <typename T> cudaError_t cudaMallocHost(T **out, size_t bytes) {
    return shim::host_alloc(reinterpret_cast<void **>(out), bytes);
}
cudaError_t cudaFree(void *pointer);
cudaError_t cudaFreeHost(void *pointer);
cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *pointer);
cudaError_t cudaHostGetDevicePointer(void **out, void *pointer, unsigned flags);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void *to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream = nullptr);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamCreate(cudaStream_t *out);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t *out);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *out);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void *nodes, size_t *n);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

template <typename... Expected, typename... Actual>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Expected...),
                               Actual &&...actual) {
    std::tuple<Expected...> values(static_cast<Expected>(actual)...);
    return shim::launch(*config, reinterpret_cast<const void *>(kernel),
                        [kernel, values] { std::apply(kernel, values); });
}
template <typename... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
    return shim::max_dynamic_shared(reinterpret_cast<const void *>(kernel), attribute, value);
}
template <typename... P> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *out, void (*kernel)(P...)) {
    return shim::function_attributes(out, reinterpret_cast<const void *>(kernel));
}
template <typename... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, void (*)(P...), int threads,
                                                          size_t shared_bytes) {
    return shim::blocks_per_multiprocessor(out, threads, shared_bytes);
}

/* ---- the language of kernels ---- */

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__      static /* blocks run one after another */
#define __forceinline__ inline
/* No __noinline__: libstdc++ 13 and later write __attribute__((__noinline__)). A kernel that needs it writes
   __attribute__((noinline)), which nvcc takes too. */
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

constexpr int warpSize = 32;

inline void __syncthreads(int line = __builtin_LINE()) {
    shim::barrier(0, 0, false, "__syncthreads", line);
}
inline int __syncthreads_or(int p, int line = __builtin_LINE()) {
    return shim::barrier(0, 0, p != 0, "__syncthreads_or", line) != 0;
}
inline int __syncthreads_and(int p, int line = __builtin_LINE()) {
    return shim::barrier(0, 0, p == 0, "__syncthreads_and", line) == 0;
}
inline int __syncthreads_count(int p, int line = __builtin_LINE()) {
    return shim::barrier(0, 0, p != 0, "__syncthreads_count", line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {}
inline void cudaGridDependencySynchronize() {}
inline void cudaTriggerProgrammaticLaunchCompletion() {}
[[noreturn]] void __trap();

namespace shim {
template <typename T> struct shuffle {
    T value;
    unsigned from;
    T result;
};
void check_shuffle(unsigned from, unsigned mask);
template <typename T> void shuffle_compute(void **arguments, unsigned mask) {
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) {
            auto *mine = static_cast<shuffle<T> *>(arguments[lane]);
            check_shuffle(mine->from, mask);
            mine->result = static_cast<shuffle<T> *>(arguments[mine->from])->value;
        }
}
template <typename T> T shuffle_from(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    shuffle<T> mine{value, from, value};
    collective("shuffle", mask, &mine, shuffle_compute<T>);
    return mine.result;
}
struct vote {
    bool value;
    unsigned ballot;
};
void vote_compute(void **arguments, unsigned mask);
inline unsigned ballot(unsigned mask, bool value) {
    vote mine{value, 0};
    collective("vote", mask, &mine, vote_compute);
    return mine.ballot;
}
void nothing_compute(void **, unsigned);
} // namespace shim

template <typename T> T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
    unsigned lane = shim::current->lane, w = static_cast<unsigned>(width);
    return shim::shuffle_from(mask, v, (lane & ~(w - 1)) + (static_cast<unsigned>(from) & (w - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32) {
    unsigned lane = shim::current->lane, w = static_cast<unsigned>(width),
             from = lane ^ static_cast<unsigned>(x);
    return shim::shuffle_from(mask, v, (from & ~(w - 1)) > (lane & ~(w - 1)) ? lane : from);
}
template <typename T> T __shfl_down_sync(unsigned mask, T v, unsigned n, int width = 32) {
    unsigned lane = shim::current->lane, w = static_cast<unsigned>(width);
    return shim::shuffle_from(mask, v, (lane & (w - 1)) + n < w ? lane + n : lane);
}
template <typename T> T __shfl_up_sync(unsigned mask, T v, unsigned n, int width = 32) {
    unsigned lane = shim::current->lane, w = static_cast<unsigned>(width);
    return shim::shuffle_from(mask, v, (lane & (w - 1)) >= n ? lane - n : lane);
}
inline unsigned __ballot_sync(unsigned mask, int p) {
    return shim::ballot(mask, p != 0);
}
inline int __any_sync(unsigned mask, int p) {
    return shim::ballot(mask, p != 0) != 0;
}
inline int __all_sync(unsigned mask, int p) {
    return shim::ballot(mask, p == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    char nothing = 0;
    shim::collective("__syncwarp", mask, &nothing, shim::nothing_compute);
}

template <typename T> T __ldg(const T *p) {
    return *p;
}
template <typename T> T __ldcs(const T *p) {
    return *p;
}
template <typename T> T __ldcg(const T *p) {
    return *p;
}
template <typename T> T __ldlu(const T *p) {
    return *p;
}
template <typename T> void __stcs(T *p, T v) {
    *p = v;
}
template <typename T> void __stcg(T *p, T v) {
    *p = v;
}

template <typename T> T atomicAdd(T *p, T v) {
    T old = *p;
    *p = old + v;
    return old;
}
inline unsigned atomicInc(unsigned *p, unsigned most) {
    unsigned old = *p;
    *p = old >= most ? 0 : old + 1;
    return old;
}
template <typename T> T atomicMax(T *p, T v) {
    T old = *p;
    if (v > old) *p = v;
    return old;
}
template <typename T> T atomicMin(T *p, T v) {
    T old = *p;
    if (v < old) *p = v;
    return old;
}
template <typename T> T atomicOr(T *p, T v) {
    T old = *p;
    *p = old | v;
    return old;
}
template <typename T> T atomicExch(T *p, T v) {
    T old = *p;
    *p = v;
    return old;
}
template <typename T> T atomicCAS(T *p, T expected, T v) {
    T old = *p;
    if (old == expected) *p = v;
    return old;
}
