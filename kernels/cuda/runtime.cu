/* The CUDA runtime as device.c needs it: opening a device, raw memory, timers, and its errors as sentences.
 */
#include "kernels/cuda/cuda.cuh"

extern "C" {
#include "base/log.h"
}

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int needed_major = 7, needed_minor = 5;

/* Newer than the oldest toolkit's headers, by the numbers that the driver gives. */
constexpr int error_contained = 226, error_tensor_memory_leak = 721;

/* After one of these every later call fails too: the context is gone, or the device is. cudaErrorUnknown is
   what drivers say of faults that they have no name for. */
bool ends_context(cudaError_t error) {
    switch (static_cast<int>(error)) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case error_contained:
    case error_tensor_memory_leak:
    case cudaErrorExternalDevice:
    case cudaErrorAssert:
    case cudaErrorDevicesUnavailable:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

/* cuBLAS takes this much where it is told to take nothing else (its documentation's figures). */
size_t blas_workspace_bytes(const cuda_device *d) {
    return static_cast<size_t>(d->major >= 9 ? 32 : 4) << 20;
}

qb_status check_driver(int index) {
    int n = 0, driver = 0, runtime = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (error != cudaSuccess) cudaGetLastError();
    if (error == cudaErrorInsufficientDriver && driver == 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "no NVIDIA driver on this machine; use --backend cpu");
    if (error == cudaErrorInsufficientDriver)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "the NVIDIA driver is too old: it serves CUDA %d.%d, this build needs %d.%d; update the driver "
            "or use --backend cpu",
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (error == cudaErrorNoDevice || (error == cudaSuccess && n == 0))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "the NVIDIA driver finds no GPU on this machine; use --backend cpu");
    if (error != cudaSuccess)
        return qb_fail(QB_ERR_UNSUPPORTED, "CUDA: %s; use --backend cpu", cudaGetErrorString(error));
    if (index < 0 || index >= n)
        return qb_fail(QB_ERR_USAGE, "--device %d: this machine has %d CUDA device%s, 0 to %d", index, n,
                       n == 1 ? "" : "s", n - 1);
    return QB_OK;
}

qb_status describe(cuda_device *d, int index) {
    cudaDeviceProp p;
    qb_status st = qb_cuda_status(d, cudaGetDeviceProperties(&p, index), "reading the device's properties");
    if (st != QB_OK) return st;
    d->index = index;
    snprintf(d->name, sizeof d->name, "%.*s", static_cast<int>(sizeof d->name) - 1, p.name);
    snprintf(d->pci_bus_id, sizeof d->pci_bus_id, "%04x:%02x:%02x.0", p.pciDomainID & 0xffff,
             p.pciBusID & 0xff, p.pciDeviceID & 0xff);
    d->major = p.major, d->minor = p.minor;
    d->multiprocessors = p.multiProcessorCount;
    d->total_bytes = static_cast<int64_t>(p.totalGlobalMem);
    d->l2_bytes = p.l2CacheSize;
    d->shared_bytes = static_cast<int64_t>(p.sharedMemPerBlockOptin);
    if (p.major < needed_major || (p.major == needed_major && p.minor < needed_minor))
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "device %d (%s) has compute capability %d.%d; %d.%d or above is needed; use --backend cpu", index,
            d->name, p.major, p.minor, needed_major, needed_minor);
    return QB_OK;
}

/* Where set to anything but 0 it may let cuBLAS round float32 operands to TF32, whatever the program asks
 * for. */
void refuse_tf32() {
    static const char name[] = "NVIDIA_TF32_OVERRIDE";
    const char *value = getenv(name);
    if (!value || strcmp(value, "0") == 0) return;
    qb_warn("%s=%s would have float32 products rounded to 10 bits: it is set to 0 here", name, value);
    setenv(name, "0", 1);
}

qb_status make_blas(cuda_device *d) {
    refuse_tf32();
    qb_status st = qb_cublas_status(d, cublasCreate(&d->blas), "starting cuBLAS");
    if (st != QB_OK) return st;
    st = qb_cuda_alloc(&d->base, QB_MEMORY_WORKSPACE, static_cast<int64_t>(blas_workspace_bytes(d)),
                       &d->blas_workspace);
    if (st != QB_OK) return st;
    st = qb_cublas_status(d, cublasSetStream(d->blas, d->stream), "starting cuBLAS");
    if (st == QB_OK) /* after the stream, which resets it */
        st = qb_cublas_status(d, cublasSetWorkspace(d->blas, d->blas_workspace, blas_workspace_bytes(d)),
                              "starting cuBLAS");
    /* The same bits on every run, and float32 stays float32. */
    if (st == QB_OK)
        st = qb_cublas_status(d, cublasSetMathMode(d->blas, CUBLAS_DEFAULT_MATH), "starting cuBLAS");
    if (st == QB_OK)
        st =
            qb_cublas_status(d, cublasSetAtomicsMode(d->blas, CUBLAS_ATOMICS_NOT_ALLOWED), "starting cuBLAS");
    return st;
}

} // namespace

qb_status qb_cuda_status(cuda_device *d, cudaError_t error, const char *op) {
    if (error == cudaSuccess) return QB_OK;
    cudaGetLastError(); /* said here; the next call shall not say it again */
    if (ends_context(error)) d->lost = true;
    if (d->lost)
        return qb_fail(QB_ERR_INTERNAL,
                       "device %d (%s) was lost, noticed in %s: %s; what was finished before is kept",
                       d->index, d->name, op, cudaGetErrorString(error));
    return qb_fail(error == cudaErrorMemoryAllocation ? QB_ERR_MEMORY : QB_ERR_INTERNAL, "CUDA, %s: %s", op,
                   cudaGetErrorString(error));
}

qb_status qb_library_status(cuda_device *d, bool no_memory, const char *library, const char *op,
                            const char *words) {
    cudaError_t error = cudaPeekAtLastError();
    if (d->lost || ends_context(error)) return qb_cuda_status(d, error, op);
    return qb_fail(no_memory ? QB_ERR_MEMORY : QB_ERR_INTERNAL, "%s, %s: %s", library, op, words);
}

qb_status qb_cublas_status(cuda_device *d, cublasStatus_t status, const char *op) {
    if (status == CUBLAS_STATUS_SUCCESS) return QB_OK;
    return qb_library_status(d, status == CUBLAS_STATUS_ALLOC_FAILED, "cuBLAS", op,
                             cublasGetStatusString(status));
}

extern "C" qb_status qb_cuda_runtime_open(cuda_device *d, int index) {
    static const char what[] = "opening the device";
    qb_status st = check_driver(index);
    if (st == QB_OK) st = describe(d, index);
    if (st == QB_OK) st = qb_cuda_status(d, cudaSetDevice(index), what);
    if (st == QB_OK)
        st = qb_cuda_status(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), what);
    if (st == QB_OK)
        st = qb_cuda_status(d, cudaStreamCreateWithFlags(&d->copy_stream, cudaStreamNonBlocking), what);
    if (st == QB_OK) st = qb_cuda_status(d, cudaEventCreate(&d->timer_from), what);
    if (st == QB_OK) st = qb_cuda_status(d, cudaEventCreate(&d->timer_to), what);
    if (st == QB_OK) st = make_blas(d);
    return st;
}

extern "C" void qb_cuda_runtime_close(cuda_device *d) {
    if (d->stream) cudaStreamSynchronize(d->stream);
    if (d->copy_stream) cudaStreamSynchronize(d->copy_stream);
    if (d->blas) cublasDestroy(d->blas);
    if (d->timer_from) cudaEventDestroy(d->timer_from);
    if (d->timer_to) cudaEventDestroy(d->timer_to);
    if (d->stream) cudaStreamDestroy(d->stream);
    if (d->copy_stream) cudaStreamDestroy(d->copy_stream);
    d->blas = nullptr, d->timer_from = d->timer_to = nullptr, d->stream = d->copy_stream = nullptr;
    cudaGetLastError();
}

extern "C" qb_status qb_cuda_raw_alloc(cuda_device *d, bool pinned, int64_t bytes, void **out) {
    size_t size = static_cast<size_t>(bytes);
    cudaError_t error = pinned ? cudaHostAlloc(out, size, cudaHostAllocDefault) : cudaMalloc(out, size);
    return qb_cuda_status(d, error, pinned ? "allocating pinned memory" : "allocating");
}

extern "C" void qb_cuda_raw_free(cuda_device *d, bool pinned, void *pointer) {
    if (pinned) { /* cudaFree waits for the device; that this does is nowhere said */
        if (d->stream) cudaStreamSynchronize(d->stream);
        cudaFreeHost(pointer);
    } else {
        cudaFree(pointer);
    }
    /* An earlier fault is told by the op that waits for the device next, or it has been told. */
}

extern "C" int64_t qb_cuda_raw_free_bytes(const cuda_device *d) {
    size_t free_bytes = 0, total = 0;
    (void)d;
    return cudaMemGetInfo(&free_bytes, &total) == cudaSuccess ? static_cast<int64_t>(free_bytes) : 0;
}

extern "C" qb_status qb_cuda_sync(qb_device *dev) {
    return qb_cuda_status(cuda_of(dev), cudaStreamSynchronize(cuda_of(dev)->stream),
                          "waiting for the device");
}

extern "C" qb_status qb_cuda_timer_start(qb_device *dev) {
    cuda_device *d = cuda_of(dev);
    return qb_cuda_status(d, cudaEventRecord(d->timer_from, d->stream), "starting the timer");
}

extern "C" qb_status qb_cuda_timer_stop(qb_device *dev, double *seconds) {
    cuda_device *d = cuda_of(dev);
    float ms = 0;
    *seconds = 0;
    cudaError_t error = cudaEventRecord(d->timer_to, d->stream);
    if (error == cudaSuccess) error = cudaEventSynchronize(d->timer_to);
    if (error == cudaSuccess) error = cudaEventElapsedTime(&ms, d->timer_from, d->timer_to);
    *seconds = static_cast<double>(ms) * 1e-3;
    return qb_cuda_status(d, error, "stopping the timer");
}
