/* The CUDA runtime's host side: the device, memory and
   copies. Streams, events and graphs are in streams.cc. */
#include "tests/shim/runtime.h"
#include "tests/shim/memory.h"
#include "tests/shim/shim.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

namespace shim {

void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("cuda shim: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

namespace {

constexpr size_t shared_default = 48 << 10;
qb_shim_device device;
cudaError_t last_error = cudaSuccess;
int fail_allocation = 0;
cudaError_t lost = cudaSuccess; /* what every call that meets it says */
int64_t launches = 0;
std::map<const void *, size_t> dynamic_limit; /* by kernel */
std::map<const char *, size_t> pinned;        /* address, bytes */
std::map<const char *, size_t> registered;

cudaError_t note(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

int compute_major() {
    return device.major ? device.major : 9;
}
size_t shared_optin() {
    return static_cast<size_t>(compute_major() >= 9   ? 227
                               : compute_major() == 8 ? (device.minor ? 99 : 163)
                                                      : 64)
           << 10;
}
size_t memory_bytes() {
    return device.memory_bytes ? static_cast<size_t>(device.memory_bytes) : size_t{1} << 30;
}

bool holds(const std::map<const char *, size_t> &ranges, const void *pointer, size_t bytes) {
    const char *p = static_cast<const char *>(pointer);
    auto it = ranges.upper_bound(p);
    return it != ranges.begin() && (--it, p + bytes <= it->first + it->second);
}
bool is_pinned(const void *p, size_t bytes) {
    return holds(pinned, p, bytes) || holds(registered, p, bytes);
}

bool take_fault() {
    return fail_allocation > 0 && --fail_allocation == 0;
}

} // namespace

cudaError_t device_fault() {
    return lost;
}
cudaError_t remember(cudaError_t error) {
    return note(error);
}

cudaError_t device_alloc(void **out, size_t bytes) {
    *out = nullptr;
    if (lost) return note(lost);
    if (take_fault() || arena_allocated_bytes() + bytes > memory_bytes())
        return note(cudaErrorMemoryAllocation);
    *out = bytes ? arena_alloc(bytes) : nullptr;
    return cudaSuccess;
}

cudaError_t host_alloc(void **out, size_t bytes) {
    *out = nullptr;
    if (take_fault() || posix_memalign(out, 4096, bytes ? bytes : 1) != 0)
        return note(cudaErrorMemoryAllocation);
    pinned[static_cast<char *>(*out)] = bytes;
    return cudaSuccess;
}

cudaError_t max_dynamic_shared(const void *kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<size_t>(value) > shared_optin()) return note(cudaErrorInvalidValue);
    dynamic_limit[kernel] = static_cast<size_t>(value);
    return cudaSuccess;
}

static size_t dynamic_shared_limit(const void *kernel) {
    auto limit = dynamic_limit.find(kernel);
    return limit == dynamic_limit.end() ? shared_default : limit->second;
}

cudaError_t function_attributes(cudaFuncAttributes *out, const void *kernel) {
    *out = {0, static_cast<int>(dynamic_shared_limit(kernel))};
    return lost ? note(lost) : cudaSuccess;
}

cudaError_t blocks_per_multiprocessor(int *out, int threads, size_t shared_bytes) {
    int by_threads = 2048 / (threads > 0 ? threads : 1);
    int by_shared = shared_bytes ? static_cast<int>((shared_optin() + 1024) / (shared_bytes + 1024)) : 32;
    *out = by_threads < by_shared ? by_threads : by_shared;
    return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t &c, const void *kernel, std::function<void()> body) {
    if (lost) return note(lost);
    unsigned long long threads = 1ull * c.blockDim.x * c.blockDim.y * c.blockDim.z;
    if (threads < 1 || threads > 1024 || c.blockDim.z > 64 || c.gridDim.x < 1 || c.gridDim.x > 0x7fffffffu ||
        c.gridDim.y < 1 || c.gridDim.y > 65535 || c.gridDim.z < 1 || c.gridDim.z > 65535)
        return note(cudaErrorInvalidConfiguration);
    if (c.dynamicSmemBytes > dynamic_shared_limit(kernel)) return note(cudaErrorInvalidValue);
    dim3 grid = c.gridDim, block = c.blockDim;
    size_t bytes = c.dynamicSmemBytes;
    bool dependent = false;
    for (unsigned i = 0; i < c.numAttrs; i++)
        if (c.attrs[i].id == cudaLaunchAttributeProgrammaticStreamSerialization)
            dependent = c.attrs[i].val.programmaticStreamSerializationAllowed != 0;
    enqueue(c.stream, [=] {
        launches++;
        run_grid(kernel, grid, block, bytes, dependent, body);
    });
    return cudaSuccess;
}

void check_shuffle(unsigned from, unsigned mask) {
    if (!(mask >> from & 1))
        fail("a shuffle reads lane %u, which is not among the lanes %08x that take part", from, mask);
}
void vote_compute(void **arguments, unsigned mask) {
    unsigned result = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if ((mask >> lane & 1) && static_cast<vote *>(arguments[lane])->value) result |= 1u << lane;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) static_cast<vote *>(arguments[lane])->ballot = result;
}
void nothing_compute(void **, unsigned) {}

static bool in_device(const void *p) {
    return arena_holds(p);
}

static void check_side(const void *p, size_t bytes, bool device_side, const char *what) {
    if (device_side) return arena_check(p, bytes, what);
    if (in_device(p)) fail("%s: %p is device memory where host memory is expected", what, p);
}

static cudaError_t copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (lost) return note(lost);
    if (bytes == 0) return cudaSuccess;
    if (kind == cudaMemcpyDefault)
        kind = static_cast<cudaMemcpyKind>((in_device(from) ? 2 : 0) + (in_device(to) ? 1 : 0));
    check_side(to, bytes, kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice, "copy to");
    check_side(from, bytes, kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice, "copy from");
    bool pageable = (kind == cudaMemcpyHostToDevice && !is_pinned(from, bytes)) ||
                    (kind == cudaMemcpyDeviceToHost && !is_pinned(to, bytes)) || kind == cudaMemcpyHostToHost;
    if (pageable && capturing(stream)) fail("a copy of pageable memory is being captured");
    if (pageable && kind == cudaMemcpyHostToDevice) { /* staged: the caller may use its memory again */
        std::vector<char> staged(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
        enqueue(stream, [to, staged] { memcpy(to, staged.data(), staged.size()); });
        return cudaSuccess;
    }
    enqueue(stream, [=] { memmove(to, from, bytes); });
    if (pageable) drain(stream);
    return cudaSuccess;
}

} // namespace shim

using namespace shim;

const char *cudaGetErrorName(cudaError_t error) {
    return cudaGetErrorString(error);
}
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    default:
        return "unknown error";
    }
}

cudaError_t cudaGetLastError() {
    cudaError_t error = last_error;
    last_error = lost;
    return error;
}
cudaError_t cudaPeekAtLastError() {
    return last_error;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = device.driver_version < 0 ? 0 : device.driver_version ? device.driver_version : CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    int driver;
    cudaDriverGetVersion(&driver);
    *count = 0;
    if (driver < CUDART_VERSION) return note(cudaErrorInsufficientDriver);
    if (device.count < 0) return note(cudaErrorNoDevice);
    *count = device.count ? device.count : 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int index) {
    int n;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) return error;
    return index >= 0 && index < n ? cudaSuccess : note(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int *index) {
    *index = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int index) {
    cudaError_t error = cudaSetDevice(index);
    if (error != cudaSuccess) return error;
    *out = cudaDeviceProp{};
    snprintf(out->name, sizeof out->name, "CUDA shim (host)");
    out->totalGlobalMem = memory_bytes();
    out->sharedMemPerBlock = shared_default;
    out->sharedMemPerBlockOptin = shared_optin();
    out->sharedMemPerMultiprocessor = shared_optin() + 1024;
    out->major = compute_major(), out->minor = device.minor;
    out->multiProcessorCount = device.multiprocessors ? device.multiprocessors : 4;
    out->l2CacheSize = 4 << 20;
    out->warpSize = 32, out->maxThreadsPerBlock = 1024, out->maxThreadsPerMultiProcessor = 2048;
    out->regsPerBlock = 65536, out->regsPerMultiprocessor = 65536, out->memoryBusWidth = 256;
    out->asyncEngineCount = 2, out->canMapHostMemory = 1, out->unifiedAddressing = 1,
    out->cooperativeLaunch = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *out, cudaDeviceAttr attribute, int index) {
    cudaDeviceProp p;
    cudaError_t error = cudaGetDeviceProperties(&p, index);
    if (error != cudaSuccess) return error;
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *out = static_cast<int>(p.sharedMemPerBlockOptin);
        break;
    case cudaDevAttrMultiProcessorCount:
        *out = p.multiProcessorCount;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *out = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *out = p.minor;
        break;
    case cudaDevAttrL2CacheSize:
        *out = p.l2CacheSize;
        break;
    default:
        return note(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int) {
    snprintf(out, static_cast<size_t>(bytes), "0000:00:00.0");
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    *total_bytes = memory_bytes();
    *free_bytes = arena_allocated_bytes() < *total_bytes ? *total_bytes - arena_allocated_bytes() : 0;
    return lost ? note(lost) : cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
    cudaError_t error = cudaDeviceSynchronize();
    if (pointer) arena_free(pointer);
    return error;
}
cudaError_t cudaFreeHost(void *pointer) {
    cudaError_t error = cudaDeviceSynchronize();
    if (!pointer) return error;
    if (!pinned.erase(static_cast<char *>(pointer)))
        fail("cudaFreeHost of %p, which cudaHostAlloc did not give", pointer);
    free(pointer);
    return error;
}
cudaError_t cudaHostRegister(void *pointer, size_t bytes, unsigned) {
    registered[static_cast<char *>(pointer)] = bytes;
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *pointer) {
    cudaDeviceSynchronize();
    return registered.erase(static_cast<char *>(pointer)) ? cudaSuccess : note(cudaErrorInvalidValue);
}
cudaError_t cudaHostGetDevicePointer(void **out, void *pointer, unsigned) {
    if (!is_pinned(pointer, 1)) return note(cudaErrorInvalidValue);
    *out = pointer;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return copy(to, from, bytes, kind, stream);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    cudaError_t error = copy(to, from, bytes, kind, nullptr);
    return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    for (size_t y = 0; y < height; y++) {
        cudaError_t error = copy(static_cast<char *>(to) + y * to_pitch,
                                 static_cast<const char *>(from) + y * from_pitch, width, kind, stream);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    if (lost) return note(lost);
    if (bytes == 0) return cudaSuccess;
    arena_check(to, bytes, "memset");
    enqueue(stream, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

void __trap() {
    fail("__trap in a kernel");
}

extern "C" void qb_shim_set_device(const qb_shim_device *d) {
    device = d ? *d : qb_shim_device{};
    lost = cudaSuccess;
    last_error = cudaSuccess;
}
extern "C" void qb_shim_fail_allocation(int nth) {
    fail_allocation = nth;
}
extern "C" void qb_shim_lose_device(int error) {
    lost = error ? static_cast<cudaError_t>(error) : cudaErrorIllegalAddress;
}
extern "C" int64_t qb_shim_allocated_bytes(void) {
    return static_cast<int64_t>(arena_allocated_bytes());
}
extern "C" int qb_shim_allocations(void) {
    return arena_allocations();
}
extern "C" int64_t qb_shim_launches(void) {
    return launches;
}
