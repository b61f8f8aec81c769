#include "bench/machine/machine.h"

#include "base/file.h"
#include "base/host_memory.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/threads.h"
#include "generated/revision.h" /* QB_GIT; written by the build */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The preprocessor knows the instrumentation, the build type only the speed. */
#if defined(QB_SANITIZED)
#define BUILD QB_BUILD_TYPE "+sanitizers"
#else
#define BUILD QB_BUILD_TYPE
#endif

const char *qb_program_version(void) {
    static char text[160];
    snprintf(text, sizeof text, "%s (%s%s, %s)", QB_VERSION, QB_GIT[0] ? "git " QB_GIT ", " : "", BUILD,
             QB_COMPILER);
    return text;
}

qb_json *qb_program_json(void) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "name", "bench");
    qb_json_put_text(j, "version", QB_VERSION);
    qb_json_put_text(j, "git", QB_GIT[0] ? QB_GIT : NULL);
    qb_json_put_text(j, "build", BUILD);
    qb_json_put_text(j, "compiler", QB_COMPILER);
    return j;
}

qb_status qb_program_sha256(char hex[QB_SHA256_HEX]) {
    return qb_hash_file("/proc/self/exe", hex);
}

/* The value of the first "key<spaces>:<spaces>value" line of a /proc or os-release file. */
static bool line_value(const char *path, const char *key, char separator, char *out, size_t size) {
    FILE *file = fopen(path, "re");
    if (!file) return false;
    char line[1024];
    bool found = false;
    size_t n = strlen(key);
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, n) != 0) continue;
        const char *p = line + n;
        p += strspn(p, " \t");
        if (*p != separator) continue;
        p++;
        p += strspn(p, " \t\"");
        size_t length = strcspn(p, "\"\n");
        snprintf(out, size, "%.*s", (int)length, p);
        found = true;
    }
    fclose(file);
    return found;
}

int64_t qb_disk_free_bytes(const char *path) {
    char *at = qb_strdup(path);
    struct statvfs info;
    int64_t free_bytes = -1;
    while (at) {
        if (statvfs(at, &info) == 0) {
            free_bytes = (int64_t)info.f_bavail * (int64_t)info.f_frsize;
            break;
        }
        if (errno != ENOENT || !strcmp(at, ".") || !strcmp(at, "/")) break;
        char *up = qb_path_dir(at);
        qb_free(at);
        at = up;
    }
    qb_free(at);
    return free_bytes;
}

static void put_cpu(qb_json *j) {
    char text[256];
    /* "model name" on x86; ARM kernels give only numbers, so the architecture speaks. */
    bool named = false; /* tried again: a name lost to a passing lack of descriptors would bar --resume */
    for (int tries = 0; !named && tries < 2; tries++)
        named = line_value("/proc/cpuinfo", "model name", ':', text, sizeof text);
    if (!named) {
        struct utsname u;
        snprintf(text, sizeof text, "%s", uname(&u) == 0 ? u.machine : "unknown");
    }
    qb_json_put_text(j, "cpu", text);
    qb_json_put_int(j, "cores", qb_cores_available());
}

static void put_memory(qb_json *j) {
    qb_host_memory m;
    if (qb_host_memory_now(&m) != QB_OK) {
        qb_warn("%s: memory_bytes is the machine's, whatever the control group allows", qb_error_text());
        qb_error_clear();
        m.total_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    }
    qb_json_put_int(j, "memory_bytes", m.total_bytes);
}

qb_json *qb_machine_json(void) {
    qb_json *j = qb_json_object();
    put_cpu(j);
    put_memory(j);
    char os[256];
    qb_json_put_text(j, "os",
                     line_value("/etc/os-release", "PRETTY_NAME", '=', os, sizeof os) ? os : "unknown");
    struct utsname u;
    if (uname(&u) == 0) {
        char kernel[160];
        snprintf(kernel, sizeof kernel, "%.60s %.80s", u.sysname, u.release);
        qb_json_put_text(j, "kernel", kernel);
    } else {
        qb_json_put_null(j, "kernel");
    }
    qb_json_put(j, "gpu", qb_gpus_json());
    return j;
}
