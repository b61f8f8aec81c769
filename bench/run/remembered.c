#include "bench/run/remembered.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

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
    for (struct dirent *e; st == QB_OK && (e = qb_dir_next(dir, path, &st));) {
        char *file = qb_path_join(path, e->d_name);
        bool seen = file && e->d_name[0] != '.' && stat(file, &info) == 0;
        if (!file)
            st = no_memory();
        else if (e->d_name[0] != '.' && !seen && errno != ENOENT) /* a link to nothing decides nothing */
            st = qb_fail(QB_ERR_IO, "cannot stat %s: %s", file, strerror(errno));
        if (seen) {
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
    char *real = realpath(dir, NULL), *top = NULL, *folder = NULL;
    qb_str text = {0};
    qb_status st;
    *path = NULL;
    qb_str_printf(&text, "%s\n", real ? real : dir);
    QB_TRY(st, fingerprint(dir, &text));
    QB_TRY(st, qb_hash_bytes(qb_str_get(&text), text.length, hex));
    top = qb_cache_dir();
    folder = top ? qb_path_join(top, "identity") : NULL;
    if (!folder || !(*path = qb_path_join(folder, hex))) st = no_memory();
out:
    free(real);
    qb_free(top);
    qb_free(folder);
    qb_str_free(&text);
    return st;
}

qb_status qb_identity_recall(const char *dir, char hex[QB_SHA256_HEX], bool *found) {
    char *path, *text = NULL;
    size_t n = 0;
    *found = false;
    qb_status st = identity_path(dir, &path);
    bool there = false;
    if (st == QB_OK) st = qb_path_look(path, &there);
    if (st == QB_OK && there) st = qb_file_read(path, 256, &text, &n);
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
