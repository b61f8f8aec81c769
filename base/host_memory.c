#include "base/host_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4400, TRIES = 3, PAUSE_NS = 2000000 };

static qb_status fail_errno(const char *path) {
    return qb_fail(QB_ERR_IO, "cannot read %s, so that how much memory there is is not known: %s", path,
                   strerror(errno));
}

/* *out stays NULL where the file is not there: no /proc is mounted, or no control group sets this. ENODEV is
   what a group's file says when the group was removed meanwhile, EACCES what a sandbox that hides it says. */
static qb_status open_in(const char *root, const char *path, FILE **out) {
    char whole[PATH_BYTES];
    int n = snprintf(whole, sizeof whole, "%s%s", root, path);
    *out = NULL;
    if (n < 0 || (size_t)n >= sizeof whole) return QB_OK;
    for (int tries = 0; !*out && tries < TRIES; tries++) { /* a lack of descriptors may pass */
        if (tries) nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
        *out = fopen(whole, "re");
        if (!*out && (errno == ENOENT || errno == ENOTDIR || errno == ENODEV || errno == EACCES))
            return QB_OK;
    }
    return *out ? QB_OK : fail_errno(whole);
}

/* Closes, and fails where reading met an error. */
static qb_status close_in(FILE *file, const char *path) {
    qb_status st = QB_OK;
    if (ferror(file) && errno != ENODEV) st = fail_errno(path);
    fclose(file);
    return st;
}

/* Stays as it is where the file or the key is absent. */
static qb_status read_meminfo(const char *root, qb_host_memory *m) {
    static const char path[] = "/proc/meminfo";
    FILE *file;
    char line[256];
    int64_t kib;
    qb_status st = open_in(root, path, &file);
    if (!file) return st;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemTotal: %" SCNd64, &kib) == 1) m->total_bytes = kib * 1024;
        if (sscanf(line, "MemAvailable: %" SCNd64, &kib) == 1) m->available_bytes = kib * 1024;
    }
    return close_in(file, path);
}

/* One number from a control group's file; -1 when absent or "max". */
static qb_status group_number(const char *root, const char *group, const char *name, int64_t *out) {
    char path[PATH_BYTES];
    FILE *file;
    *out = -1;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", group, name) >= sizeof path) return QB_OK;
    qb_status st = open_in(root, path, &file);
    if (!file) return st;
    if (fscanf(file, "%" SCNd64, out) != 1) *out = -1;
    return close_in(file, path);
}

/* Page cache counts as used in a control group but yields; "inactive_file" of its statistics says how much.
   -1 without statistics: then what is used says nothing. */
static qb_status group_reclaimable(const char *root, const char *group, const char *key, int64_t *out) {
    char path[PATH_BYTES], name[64];
    int64_t v;
    FILE *file;
    *out = -1;
    if ((size_t)snprintf(path, sizeof path, "%s/memory.stat", group) >= sizeof path) return QB_OK;
    qb_status st = open_in(root, path, &file);
    if (!file) return st;
    *out = 0;
    while (fscanf(file, "%63s %" SCNd64, name, &v) == 2)
        if (!strcmp(name, key)) *out = v;
    return close_in(file, path);
}

typedef struct {
    const char *top, *limit, *used, *reclaimable;
} hierarchy;
static const hierarchy v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
static const hierarchy v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                             "total_inactive_file"};

static qb_status apply_group(const char *root, const hierarchy *h, const char *group, qb_host_memory *m) {
    int64_t limit, used, reclaimable;
    qb_status st;
    QB_TRY(st, group_number(root, group, h->limit, &limit));
    if (limit <= 0) return QB_OK;
    if (limit < m->total_bytes) m->total_bytes = limit;
    QB_TRY(st, group_number(root, group, h->used, &used));
    QB_TRY(st, group_reclaimable(root, group, h->reclaimable, &reclaimable));
    if (used < 0) used = 0;
    int64_t left = reclaimable < 0 ? limit : limit - used + reclaimable;
    if (left < 0) left = 0;
    if (left < m->available_bytes) m->available_bytes = left;
out:
    return st;
}

/* A limit of any group above binds too. In a container the path may be the host's, and only its top is
 * mounted. */
static qb_status apply_hierarchy(const char *root, const hierarchy *h, const char *path, qb_host_memory *m) {
    char group[PATH_BYTES];
    size_t top = strlen(h->top);
    int n = snprintf(group, sizeof group, "%s%s", h->top, path);
    if (n < 0 || (size_t)n >= sizeof group) return QB_OK;
    for (;;) {
        size_t length = strlen(group);
        while (length > top && group[length - 1] == '/') group[--length] = 0;
        qb_status st = apply_group(root, h, group, m);
        char *slash = strrchr(group, '/');
        if (st != QB_OK || length <= top || !slash || slash < group + top) return st;
        *slash = 0;
    }
}

/* "hierarchy:controllers:path", the memory controller's or version 2's, whose controllers are not named. */
static const hierarchy *parse_line(char *line, const char **path) {
    char *controllers = strchr(line, ':'), *second = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!second) return NULL;
    *second = 0;
    *path = second + 1;
    second[1 + strcspn(second + 1, "\n")] = 0;
    controllers++;
    if (!*controllers) return &v2;
    for (char *word = controllers; word; word = strchr(word, ',')) {
        if (*word == ',') word++;
        if (!strncmp(word, "memory", 6) && (!word[6] || word[6] == ',')) return &v1;
    }
    return NULL;
}

qb_status qb_host_memory_in(const char *root, qb_host_memory *out) {
    char line[PATH_BYTES];
    FILE *file = NULL;
    *out = (qb_host_memory){0};
    qb_status st = read_meminfo(root, out);
    if (st != QB_OK) return st;
    int64_t page = (int64_t)sysconf(_SC_PAGESIZE);
    if (out->total_bytes <= 0) out->total_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * page;
    if (out->available_bytes <= 0) out->available_bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * page;
    st = open_in(root, "/proc/self/cgroup", &file);
    while (st == QB_OK && file && fgets(line, sizeof line, file)) {
        const char *path;
        const hierarchy *h = parse_line(line, &path);
        if (h) st = apply_hierarchy(root, h, path, out);
    }
    if (!file) return st;
    qb_status closed = close_in(file, "/proc/self/cgroup");
    return st != QB_OK ? st : closed;
}

qb_status qb_host_memory_now(qb_host_memory *out) {
    return qb_host_memory_in("", out);
}
