/* What the host did to this process while it worked: counters of the kernel, whose differences over a timed
   stretch tell a disturbed measurement from a quiet one. */
#pragma once

#include <stdint.h>

/* Counted since some fixed moment; -1 and NaN where the kernel has no such counter. */
typedef struct qb_host_counters {
    int64_t waited_ns;   /* runnable without a core, all threads of this process (schedstat, 2nd field) */
    int64_t cpu_ns;      /* on a core, all threads of this process */
    int64_t involuntary; /* involuntary context switches of this process (getrusage) */
    int64_t stolen_ns;   /* cores that the hypervisor gave to others, all cores (/proc/stat, steal) */
    int64_t throttled;   /* times that heat slowed a core down (thermal_throttle/core_throttle_count) */
    double cpu_hz;       /* of the core that asks, now (cpufreq/scaling_cur_freq) */
} qb_host_counters;

/* `root` stands before /proc and /sys: "" but in tests. */
void qb_host_counters_read(const char *root, qb_host_counters *out);

/* The rule by which the kernel chooses clock rates, "performance"; "" where it tells none. */
void qb_host_governor(const char *root, char out[32]);
