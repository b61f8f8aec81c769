/* Facts about the program and the machine it runs on: for the context of a result and for `bench doctor`.
   Nothing here starts threads. */
#pragma once

#include "base/hash.h"
#include "base/host_memory.h"
#include "base/json.h"

#include <stdint.h>

const char *qb_program_version(void); /* "0.1.0 (git 1a2b3c, Release, GNU 12.2.0)" */
qb_json *qb_program_json(void);       /* {name, version, git, build, compiler} */
/* SHA-256 of the running program's file: what a cached result must have been made by. */
qb_status qb_program_sha256(char hex[QB_SHA256_HEX]) QB_NODISCARD;

int64_t qb_disk_free_bytes(
    const char *path); /* of the file system that holds path or its nearest parent; -1: unknown */

/* {cpu, cores, memory_bytes, os, kernel, gpu: [{name, memory_bytes, driver}]} */
qb_json *qb_machine_json(void);
/* The GPUs that the NVIDIA driver shows; an empty array without driver. */
qb_json *qb_gpus_json(void);
/* {built, devices: [{name, compute_capability, memory_bytes, free_bytes, multiprocessors, copy_bytes_per_s,
   gemm_flop_per_s, and where the driver's library is there: power_limit_w, temperature_c, sm_clock_hz,
   memory_clock_hz, throttled, foreign_processes}], reason}: what this build's CUDA sees; the reason says why
   there is no device. Measures each device's ceilings. */
qb_json *qb_cuda_json(void);
