/* The execution shim: kernels/cuda/ compiled as host C++ and run on the processor, so that every kernel and
   the whole CUDA backend are tested without a GPU. The headers beside this one carry the toolkit's names;
   this one is for the tests. Faults that real hardware would let pass (divergent barriers, host access to
   device memory, copies out of bounds) end the program with one line on stderr.

   Work queued on a stream runs as late as it may: when something waits for it. A missing wait therefore shows
   as old data. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
#include <cstddef>
namespace shim {
/* One line on stderr, then abort. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
} // namespace shim
extern "C" {
#endif

/* The device that the runtime reports. Zero-initialised fields mean the default in brackets. */
typedef struct qb_shim_device {
    int count;            /* devices [1]; negative: none */
    int driver_version;   /* [the toolkit's]; negative: no driver */
    int major, minor;     /* compute capability [9.0] */
    int multiprocessors;  /* [4] */
    int64_t memory_bytes; /* [1 GiB] */
} qb_shim_device;
void qb_shim_set_device(const qb_shim_device *device); /* NULL: the defaults; no device may be open */

/* Blocks, and the threads between two barriers, run in a random order that the seed gives; 0: in order. */
void qb_shim_set_seed(uint64_t seed);
/* The n-th call from now (1: the next) of cudaMalloc or cudaHostAlloc finds no memory; 0: none. */
void qb_shim_fail_allocation(int nth);
/* From now on every call that waits for the device reports this error of the runtime; 0: an illegal access in
   a kernel. */
void qb_shim_lose_device(int error);
/* The next Cholesky factorization of cuSOLVER returns this status. */
void qb_shim_fail_solver(int status);
/* Allocations of device memory that live now: bytes and number. */
int64_t qb_shim_allocated_bytes(void);
int qb_shim_allocations(void);
/* Kernel launches run so far (of a graph: each time it ran). */
int64_t qb_shim_launches(void);

#ifdef __cplusplus
}
#endif
