#define _GNU_SOURCE
#include "base/host_counters.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PATH_CHARS = 512, CORES_LOOKED_AT = 256 };

/* The first line of a file that the kernel writes. */
static bool read_line(const char *path, char *line, int size) {
    FILE *file = fopen(path, "re");
    if (!file) return false;
    bool got = fgets(line, size, file) != NULL;
    fclose(file);
    if (got) line[strcspn(line, "\n")] = 0;
    return got;
}

/* Each thread has a file of its own: that of the process tells of its first thread alone. A thread that ended
   between listing and reading takes its figure along, which only makes the sum smaller. */
static int64_t waited_ns(const char *root) {
    char path[PATH_CHARS], line[128];
    snprintf(path, sizeof path, "%s/proc/self/task", root);
    DIR *dir = opendir(path);
    int64_t sum = -1;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        int64_t ran, waited;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/proc/self/task/%.20s/schedstat", root, e->d_name);
        if (!read_line(path, line, sizeof line) || sscanf(line, "%" SCNd64 " %" SCNd64, &ran, &waited) != 2)
            continue;
        sum = (sum < 0 ? 0 : sum) + waited;
    }
    if (dir) closedir(dir);
    return sum;
}

/* "cpu user nice system idle iowait irq softirq steal ..", in ticks. */
static int64_t stolen_ns(const char *root) {
    char path[PATH_CHARS], line[256];
    int64_t steal;
    snprintf(path, sizeof path, "%s/proc/stat", root);
    if (!read_line(path, line, sizeof line) ||
        sscanf(line, "cpu %*d %*d %*d %*d %*d %*d %*d %" SCNd64, &steal) != 1)
        return -1;
    long ticks = sysconf(_SC_CLK_TCK);
    return ticks > 0 ? steal * (1000000000 / ticks) : -1;
}

static int64_t throttled(const char *root) {
    char path[PATH_CHARS], line[64];
    int64_t sum = -1, count;
    for (int cpu = 0; cpu < CORES_LOOKED_AT; cpu++) {
        snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count",
                 root, cpu);
        if (!read_line(path, line, sizeof line)) break;
        if (sscanf(line, "%" SCNd64, &count) == 1) sum = (sum < 0 ? 0 : sum) + count;
    }
    return sum;
}

static bool cpufreq(const char *root, const char *name, char *line, int size) {
    char path[PATH_CHARS];
    int cpu = sched_getcpu();
    snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/cpufreq/%s", root, cpu < 0 ? 0 : cpu, name);
    return read_line(path, line, size);
}

static int64_t nanoseconds(struct timeval t) {
    return (int64_t)t.tv_sec * 1000000000 + (int64_t)t.tv_usec * 1000;
}

void qb_host_counters_read(const char *root, qb_host_counters *out) {
    struct rusage usage;
    char line[64];
    double khz;
    *out = (qb_host_counters){.cpu_ns = -1, .involuntary = -1, .cpu_hz = (double)NAN};
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        out->cpu_ns = nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime);
        out->involuntary = usage.ru_nivcsw;
    }
    out->waited_ns = waited_ns(root);
    out->stolen_ns = stolen_ns(root);
    out->throttled = throttled(root);
    if (cpufreq(root, "scaling_cur_freq", line, sizeof line) && sscanf(line, "%lf", &khz) == 1)
        out->cpu_hz = khz * 1e3;
}

void qb_host_governor(const char *root, char out[32]) {
    char line[64];
    out[0] = 0;
    if (cpufreq(root, "scaling_governor", line, sizeof line)) snprintf(out, 32, "%.31s", line);
}
