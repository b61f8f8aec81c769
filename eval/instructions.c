#include "eval/instructions.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

double qb_counter_sum(const qb_counter_reading *readings, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const qb_counter_reading *r = &readings[i];
        if (r->running_ns)
            sum += (double)r->count * ((double)r->enabled_ns / (double)r->running_ns);
        else if (r->enabled_ns)
            return (double)NAN;
    }
    return sum;
}

/* One thread's counter; -1 with errno. glibc has no function of that name. */
static int open_one(pid_t thread, uint32_t type, uint64_t config) {
    struct perf_event_attr attr = {.type = type,
                                   .size = sizeof attr,
                                   .config = config,
                                   .read_format =
                                       PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING,
                                   .disabled = 1,
                                   .inherit = 1,
                                   .exclude_kernel = 1,
                                   .exclude_hv = 1};
    return (int)syscall(SYS_perf_event_open, &attr, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static bool add_thread(qb_counters *c, pid_t thread, uint32_t type, uint64_t config) {
    if (qb_grow(&c->threads, &c->capacity, c->n + 1, sizeof *c->threads) != QB_OK) {
        snprintf(c->why, sizeof c->why, "out of memory");
        return false;
    }
    int fd = open_one(thread, type, config);
    if (fd >= 0)
        c->threads[c->n++] = (qb_thread_counter){.fd = fd};
    else if (errno != ESRCH) /* it has ended */
        snprintf(c->why, sizeof c->why, "perf_event_open: %s", strerror(errno));
    return !c->why[0];
}

bool qb_counters_open(qb_counters *c, uint32_t type, uint64_t config) {
    *c = (qb_counters){0};
    DIR *threads = opendir("/proc/self/task");
    if (!threads) snprintf(c->why, sizeof c->why, "/proc/self/task: %s", strerror(errno));
    for (struct dirent *e; threads && (e = readdir(threads));) {
        long thread = strtol(e->d_name, NULL, 10);
        if (thread > 0 && !add_thread(c, (pid_t)thread, type, config)) break;
    }
    if (threads) closedir(threads);
    if (!c->n && !c->why[0]) snprintf(c->why, sizeof c->why, "/proc/self/task names no thread");
    if (c->why[0]) qb_counters_close(c);
    return !c->why[0];
}

bool qb_instructions_open(qb_counters *c) {
    return qb_counters_open(c, PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS);
}

static bool read_one(int fd, qb_counter_reading *r) {
    return read(fd, r, sizeof *r) == (ssize_t)sizeof *r;
}

/* Differences of readings, as a reset clears the threads that live and leaves in what ended ones counted. */
void qb_counters_begin(qb_counters *c) {
    for (size_t i = 0; i < c->n; i++) {
        qb_thread_counter *t = &c->threads[i];
        t->known = read_one(t->fd, &t->begun);
        ioctl(t->fd, PERF_EVENT_IOC_ENABLE, 0);
    }
}

double qb_counters_end(qb_counters *c) {
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) ioctl(c->threads[i].fd, PERF_EVENT_IOC_DISABLE, 0);
    for (size_t i = 0; i < c->n; i++) {
        const qb_thread_counter *t = &c->threads[i];
        qb_counter_reading r;
        if (!t->known || !read_one(t->fd, &r)) return (double)NAN;
        r.count -= t->begun.count;
        r.enabled_ns -= t->begun.enabled_ns;
        r.running_ns -= t->begun.running_ns;
        sum += qb_counter_sum(&r, 1);
    }
    return sum;
}

void qb_counters_close(qb_counters *c) {
    for (size_t i = 0; i < c->n; i++) close(c->threads[i].fd);
    qb_free(c->threads);
    c->threads = NULL;
    c->n = c->capacity = 0;
}
