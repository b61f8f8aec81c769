#include "bench/run/cache.h"

#include "base/file.h"
#include "base/lock.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/temporary.h"
#include "bench/machine/machine.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { KEY_DIGITS = 32 };
static const char stamp_schema[] = "qb.cache/1";

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

static qb_status key_text(const qb_cache_key *key, char **text) {
    /* What a device says of itself that its arithmetic depends on. */
    static const char *const facts[] = {"simd", "blas", "name", "device", "compute_capability"};
    char program[QB_SHA256_HEX];
    qb_json *j = qb_json_object();
    qb_status st;
    *text = NULL;
    QB_TRY(st, qb_program_sha256(program));
    qb_json_put_text(j, "program", program);
    qb_json_put_text(j, "model", key->model_sha256);
    qb_json_put(j, "options", qb_json_copy(key->options));
    qb_json_put_text(j, "calibration", key->calibration_sha256);
    qb_json_put_text(j, "backend", key->backend);
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        const qb_json *fact = qb_json_get(key->device, facts[i]);
        if (fact) qb_json_put(j, facts[i], qb_json_copy(fact));
    }
    st = qb_json_print(j, false, text);
out:
    qb_json_free(j);
    return st;
}

void qb_cache_place_free(qb_cache_place *place) {
    qb_free(place->dir);
    qb_free(place->key);
    *place = (qb_cache_place){0};
}

qb_status qb_cache_find(const qb_cache_key *key, qb_cache_place *out) {
    char hex[QB_SHA256_HEX], *folder = NULL;
    qb_status st;
    *out = (qb_cache_place){0};
    QB_TRY(st, key_text(key, &out->key));
    QB_TRY(st, qb_hash_bytes(out->key, strlen(out->key), hex));
    hex[KEY_DIGITS] = 0; /* 128 bits are plenty for a file name */
    folder = cache_folder("quantized");
    if (!folder || !(out->dir = qb_path_join(folder, hex))) st = no_memory();
out:
    if (st != QB_OK) qb_cache_place_free(out);
    qb_free(folder);
    return st;
}

static char *stamp_path(const char *dir) {
    return qb_path_join(dir, "cache.json");
}

qb_status qb_cache_has(const qb_cache_place *place, bool *found) {
    char *path = stamp_path(place->dir);
    qb_status st = path ? qb_path_look(path, found) : no_memory();
    qb_free(path);
    return st;
}

qb_status qb_cache_stamp(const qb_cache_place *place, const qb_cache_hashes *hashes) {
    char *path = stamp_path(place->dir);
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "schema", stamp_schema);
    qb_json_put_text(j, "key", place->key);
    qb_json_put_text(j, "weights_sha256", hashes->weights);
    qb_json_put_text(j, "files_sha256", hashes->files);
    qb_status st = path ? qb_json_write_atomic(j, path) : no_memory();
    qb_json_free(j);
    qb_free(path);
    return st;
}

static qb_status take_hash(const qb_json *stamp, const char *key, const char *where,
                           char hex[QB_SHA256_HEX]) {
    const char *text = NULL;
    qb_status st = qb_json_text(stamp, key, where, true, &text);
    if (st == QB_OK &&
        (strlen(text) != QB_SHA256_HEX - 1 || strspn(text, "0123456789abcdef") != QB_SHA256_HEX - 1))
        st = qb_fail(QB_ERR_FORMAT, "%s: \"%s\" is no SHA-256", where, key);
    if (st == QB_OK) memcpy(hex, text, QB_SHA256_HEX);
    return st;
}

qb_status qb_cache_read_stamp(const qb_cache_place *place, qb_cache_hashes *out) {
    char *path = stamp_path(place->dir);
    qb_json *j = NULL;
    const char *text = NULL;
    qb_status st;
    QB_TRY(st, path ? QB_OK : no_memory());
    QB_TRY(st, qb_json_read(path, 1 << 20, &j));
    QB_TRY(st, qb_json_text(j, "schema", path, true, &text));
    if (strcmp(text, stamp_schema) != 0)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s: schema %.60s, expected %s", path, text, stamp_schema));
    QB_TRY(st, qb_json_text(j, "key", path, true, &text));
    if (strcmp(text, place->key) != 0)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s is of another model, method, program or machine", path));
    QB_TRY(st, take_hash(j, "weights_sha256", path, out->weights));
    st = take_hash(j, "files_sha256", path, out->files);
out:
    qb_json_free(j);
    qb_free(path);
    return st;
}

/* ---- the folder ---- */

qb_status qb_cache_writable(void) {
    char *folder = cache_folder("quantized");
    if (!folder) return no_memory();
    qb_status st = qb_make_dirs(folder);
    if (st == QB_OK) st = qb_dir_writable(folder);
    if (st == QB_OK) qb_temporary_sweep(folder, NULL);
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
        int64_t n = 0; /* what vanishes meanwhile takes no room */
        if (file && e->d_name[0] != '.' && qb_file_size(file, &n) != QB_OK) qb_error_clear();
        sum += n;
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
    return strspn(name, "0123456789abcdef") == KEY_DIGITS &&
           (!name[KEY_DIGITS] || !strcmp(name + KEY_DIGITS, ".partial"));
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
    for (struct dirent *e; dir && st == QB_OK && (e = qb_dir_next(dir, folder, &st));) {
        struct stat info;
        if (!is_key(e->d_name)) continue; /* only what this program made is ever removed */
        char *path = qb_path_join(folder, e->d_name);
        if (!path || stat(path, &info) != 0) {
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

/* Removes an entry that nobody makes or measures; *removed stays false where somebody does, or where it
 * cannot be said. */
static qb_status remove_unused(const char *path, bool *removed) {
    qb_file_lock lock;
    qb_lock_answer answer = QB_LOCK_UNSURE;
    char *key = qb_strdup(path);
    *removed = false;
    if (!key) return no_memory();
    key[strlen(key) - strlen(qb_path_base(key)) + KEY_DIGITS] = 0; /* KEY.partial is made under KEY's lock */
    qb_status st = qb_file_lock_try(key, QB_LOCK_EXCLUSIVE, &lock, &answer);
    *removed = st == QB_OK && answer == QB_LOCK_TAKEN;
    if (*removed) st = qb_remove_tree(path);
    if (st == QB_OK) qb_file_unlock(&lock);
    qb_free(key);
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
        bool gone = false;
        st = remove_unused(entries[i].path, &gone);
        if (!gone) continue;
        sum -= entries[i].bytes;
        *removed += 1;
    }
    for (size_t i = 0; i < n; i++) qb_free(entries[i].path);
    qb_free(entries);
    qb_free(folder);
    return st;
}
