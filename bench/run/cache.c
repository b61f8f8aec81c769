#include "bench/run/cache.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"
#include "bench/machine/machine.h"
#include "bench/run/leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

static char *cache_folder(const char *name) {
    char *top = qb_cache_dir();
    char *dir = top ? qb_path_join(top, name) : NULL;
    qb_free(top);
    return dir;
}

/* ---- quantized checkpoints ---- */

qb_status qb_cache_path(const qb_cache_key *key, char **dir) {
    char program[QB_SHA256_HEX], hex[QB_SHA256_HEX];
    char *text = NULL, *folder = NULL;
    qb_json *j = qb_json_object();
    qb_status st;
    *dir = NULL;
    QB_TRY(st, qb_program_sha256(program));
    qb_json_put_text(j, "program", program);
    qb_json_put_text(j, "model", key->model_sha256);
    qb_json_put(j, "options", qb_json_copy(key->options));
    qb_json_put_text(j, "calibration", key->calibration_sha256);
    QB_TRY(st, qb_json_print(j, false, &text));
    QB_TRY(st, qb_hash_bytes(text, strlen(text), hex));
    hex[32] = 0; /* 128 bits are plenty for a file name */
    folder = cache_folder("quantized");
    if (!folder || !(*dir = qb_path_join(folder, hex))) st = no_memory();
out:
    qb_json_free(j);
    qb_free(text);
    qb_free(folder);
    return st;
}

bool qb_cache_hit(const char *dir) {
    char *report = qb_path_join(dir, "quantize_report.json");
    bool hit = report && qb_path_exists(report);
    qb_free(report);
    if (hit) (void)!utimensat(AT_FDCWD, dir, NULL, 0); /* "used now", for qb_cache_shrink */
    return hit;
}

qb_status qb_cache_writable(void) {
    char *folder = cache_folder("quantized");
    if (!folder) return no_memory();
    qb_status st = qb_make_dirs(folder);
    if (st == QB_OK) st = qb_dir_writable(folder);
    if (st == QB_OK) qb_leftovers_remove(folder, NULL);
    if (st != QB_OK) st = qb_fail_prefix(st, "the cache (set BENCH_CACHE to another folder)");
    qb_free(folder);
    return st;
}

int64_t qb_cache_free_bytes(void) {
    char *folder = cache_folder("quantized");
    int64_t bytes = folder ? qb_disk_free_bytes(folder) : -1;
    qb_free(folder);
    return bytes;
}

typedef struct {
    char *path;
    int64_t bytes;
    struct timespec used;
} entry;

static int64_t folder_bytes(const char *path) {
    DIR *dir = opendir(path);
    int64_t sum = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char *file = qb_path_join(path, e->d_name);
        int64_t n = file && e->d_name[0] != '.' ? qb_file_size(file) : 0;
        sum += n > 0 ? n : 0;
        qb_free(file);
    }
    if (dir) closedir(dir);
    return sum;
}

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const entry *)a)->used, *y = &((const entry *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

/* "KEY", or "KEY.partial", which an interrupted run left to be taken up. */
static bool is_key(const char *name) {
    return strspn(name, "0123456789abcdef") == 32 && (!name[32] || !strcmp(name + 32, ".partial"));
}

/* Another process is writing it (checkpoint/writing/staging.h). */
static bool is_locked(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (fd >= 0) close(fd);
    return locked;
}

bool qb_cache_busy(const char *dir) {
    qb_str partial = {0};
    qb_str_printf(&partial, "%s.partial", dir);
    bool busy = !partial.failed && is_locked(partial.text);
    qb_str_free(&partial);
    return busy;
}

static int64_t entry_bytes(const char *path) {
    char *inner = qb_path_join(path, "checkpoint");
    int64_t bytes = folder_bytes(path) + (inner ? folder_bytes(inner) : 0);
    qb_free(inner);
    return bytes;
}

static qb_status list_entries(const char *folder, entry **out, size_t *n) {
    size_t capacity = 0;
    DIR *dir = opendir(folder);
    qb_status st = QB_OK;
    for (struct dirent *e; dir && st == QB_OK && (e = readdir(dir));) {
        struct stat info;
        if (!is_key(e->d_name)) continue; /* only what this program made is ever removed */
        char *path = qb_path_join(folder, e->d_name);
        if (!path || stat(path, &info) != 0 || is_locked(path)) {
            qb_free(path);
            continue;
        }
        st = qb_grow(out, &capacity, *n + 1, sizeof **out);
        if (st == QB_OK)
            (*out)[(*n)++] = (entry){path, entry_bytes(path), info.st_mtim};
        else
            qb_free(path);
    }
    if (dir) closedir(dir);
    return st;
}

qb_status qb_cache_shrink(int64_t bytes, int64_t *removed) {
    char *folder = cache_folder("quantized");
    entry *entries = NULL;
    size_t n = 0;
    int64_t sum = 0;
    *removed = 0;
    qb_status st = folder ? list_entries(folder, &entries, &n) : no_memory();
    for (size_t i = 0; i < n; i++) sum += entries[i].bytes;
    if (n) qsort(entries, n, sizeof *entries, by_use);
    for (size_t i = 0; st == QB_OK && i < n && sum > bytes; i++) {
        st = qb_remove_tree(entries[i].path);
        sum -= entries[i].bytes;
        *removed += 1;
    }
    for (size_t i = 0; i < n; i++) qb_free(entries[i].path);
    qb_free(entries);
    qb_free(folder);
    return st;
}

/* ---- identities of models ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void file_line(const char *name, const struct stat *info, qb_str *out) {
    qb_str_printf(out, "%s %" PRId64 " %" PRIu64 " %" PRId64 ".%09ld\n", name, (int64_t)info->st_size,
                  (uint64_t)info->st_ino, (int64_t)info->st_mtim.tv_sec, info->st_mtim.tv_nsec);
}

/* One line a file that decides the weights: name, size, inode, times. */
static qb_status fingerprint(const char *path, qb_str *out) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) { /* a model in one file */
        file_line(qb_path_base(path), &info, out);
        return qb_str_status(out);
    }
    DIR *dir = opendir(path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    char **lines = NULL;
    size_t n = 0, capacity = 0;
    qb_status st = QB_OK;
    for (struct dirent *e; st == QB_OK && (e = readdir(dir));) {
        char *file = qb_path_join(path, e->d_name);
        if (file && e->d_name[0] != '.' && stat(file, &info) == 0) {
            qb_str line = {0};
            file_line(e->d_name, &info, &line);
            st = qb_grow(&lines, &capacity, n + 1, sizeof *lines);
            if (st == QB_OK) st = (lines[n] = qb_strdup(qb_str_get(&line))) ? QB_OK : no_memory();
            if (st == QB_OK) n++;
            qb_str_free(&line);
        }
        qb_free(file);
    }
    closedir(dir);
    if (n) qsort(lines, n, sizeof *lines, by_text);
    for (size_t i = 0; i < n; i++) {
        qb_str_text(out, lines[i]);
        qb_free(lines[i]);
    }
    qb_free(lines);
    return st == QB_OK ? qb_str_status(out) : st;
}

static qb_status identity_path(const char *dir, char **path) {
    char hex[QB_SHA256_HEX];
    char *real = realpath(dir, NULL), *folder = NULL;
    qb_str text = {0};
    qb_status st;
    *path = NULL;
    qb_str_printf(&text, "%s\n", real ? real : dir);
    QB_TRY(st, fingerprint(dir, &text));
    QB_TRY(st, qb_hash_bytes(qb_str_get(&text), text.length, hex));
    folder = cache_folder("identity");
    if (!folder || !(*path = qb_path_join(folder, hex))) st = no_memory();
out:
    free(real);
    qb_free(folder);
    qb_str_free(&text);
    return st;
}

qb_status qb_identity_recall(const char *dir, char hex[QB_SHA256_HEX], bool *found) {
    char *path, *text = NULL;
    size_t n = 0;
    *found = false;
    qb_status st = identity_path(dir, &path);
    if (st == QB_OK && qb_path_exists(path)) st = qb_file_read(path, 256, &text, &n);
    if (st == QB_OK && n == QB_SHA256_HEX - 1 && strspn(text, "0123456789abcdef") == n) {
        memcpy(hex, text, n + 1);
        *found = true;
    }
    qb_free(text);
    qb_free(path);
    return st;
}

qb_status qb_identity_remember(const char *dir, const char *hex) {
    char *path, *folder = NULL;
    qb_status st = identity_path(dir, &path);
    if (st == QB_OK) st = (folder = qb_path_dir(path)) ? qb_make_dirs(folder) : no_memory();
    if (st == QB_OK) st = qb_file_write_atomic(path, hex, strlen(hex));
    qb_free(folder);
    qb_free(path);
    return st;
}
