/* What CUDA sees on this machine, before a device is opened: plain C, extern "C" here and at the definitions.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qb_cuda_info {
    char name[128];
    int compute_major, compute_minor;
    int64_t memory_bytes, free_bytes;
    int multiprocessors;
} qb_cuda_info;

/* Number of devices, 0 without; `why` says in one sentence why there is none (no driver, too old a driver, no
 * device). */
int qb_cuda_count(char *why, size_t why_bytes);
/* 0 on success; otherwise `why` holds the reason. */
int qb_cuda_describe(int device, qb_cuda_info *out, char *why, size_t why_bytes);

#ifdef __cplusplus
}
#endif
