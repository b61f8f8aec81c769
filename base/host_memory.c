#include "base/host_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4400 };

static FILE *open_in(const char *root, const char *path) {
    char whole[PATH_BYTES];
    int n = snprintf(whole, sizeof whole, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof whole) return NULL;
    FILE *file = fopen(whole, "re");
    return file || errno == ENOENT
               ? file
               : fopen(whole, "re"); /* a passing lack of descriptors is no lack of memory */
}

static int64_t meminfo_bytes(const char *root, const char *key) {
    FILE *file = open_in(root, "/proc/meminfo");
    char line[256];
    int64_t found = 0;
    size_t n = strlen(key);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, n) && line[n] == ':' && sscanf(line + n + 1, "%" SCNd64, &found) == 1) break;
    if (file) fclose(file);
    return found * 1024;
}

/* One number from a control group's file; -1 when absent or "max". */
static int64_t group_number(const char *root, const char *group, const char *name) {
    char path[PATH_BYTES];
    int64_t v = -1;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", group, name) >= sizeof path) return -1;
    FILE *file = open_in(root, path);
    if (file && fscanf(file, "%" SCNd64, &v) != 1) v = -1;
    if (file) fclose(file);
    return v;
}

/* Page cache counts as used in a control group but yields; "inactive_file" of its statistics says how much.
 */
static int64_t group_reclaimable(const char *root, const char *group, const char *key) {
    char path[PATH_BYTES], name[64];
    int64_t v, found = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/memory.stat", group) >= sizeof path) return 0;
    FILE *file = open_in(root, path);
    if (!file) return -1; /* then what is used says nothing */
    while (fscanf(file, "%63s %" SCNd64, name, &v) == 2)
        if (!strcmp(name, key)) found = v;
    fclose(file);
    return found;
}

typedef struct {
    const char *top, *limit, *used, *reclaimable;
} hierarchy;
static const hierarchy v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
static const hierarchy v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                             "total_inactive_file"};

static void apply_group(const char *root, const hierarchy *h, const char *group, qb_host_memory *m) {
    int64_t limit = group_number(root, group, h->limit), used = group_number(root, group, h->used);
    if (limit <= 0) return;
    if (limit < m->total_bytes) m->total_bytes = limit;
    if (used < 0) used = 0;
    int64_t reclaimable = group_reclaimable(root, group, h->reclaimable);
    int64_t left = reclaimable < 0 ? limit : limit - used + reclaimable;
    if (left < 0) left = 0;
    if (left < m->available_bytes) m->available_bytes = left;
}

/* A limit of any group above binds too. In a container the path may be the host's, and only its top is
 * mounted. */
static void apply_hierarchy(const char *root, const hierarchy *h, const char *path, qb_host_memory *m) {
    char group[PATH_BYTES];
    size_t top = strlen(h->top);
    int n = snprintf(group, sizeof group, "%s%s", h->top, path);
    if (n < 0 || (size_t)n >= sizeof group) return;
    for (;;) {
        size_t length = strlen(group);
        while (length > top && group[length - 1] == '/') group[--length] = 0;
        apply_group(root, h, group, m);
        char *slash = strrchr(group, '/');
        if (length <= top || !slash || slash < group + top) return;
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

qb_host_memory qb_host_memory_in(const char *root) {
    qb_host_memory m = {meminfo_bytes(root, "MemTotal"), meminfo_bytes(root, "MemAvailable")};
    if (m.total_bytes <= 0) m.total_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    if (m.available_bytes <= 0)
        m.available_bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    char line[PATH_BYTES];
    FILE *file = open_in(root, "/proc/self/cgroup");
    while (file && fgets(line, sizeof line, file)) {
        const char *path;
        const hierarchy *h = parse_line(line, &path);
        if (h) apply_hierarchy(root, h, path, &m);
    }
    if (file) fclose(file);
    return m;
}

qb_host_memory qb_host_memory_now(void) {
    return qb_host_memory_in("");
}
