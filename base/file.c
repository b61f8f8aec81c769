#include "base/file.h"

#include "base/lost_map.h"
#include "base/memory.h"
#include "base/str.h"
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static qb_status fail_errno(const char *what, const char *path) {
    qb_status code = errno == ENOENT || errno == ENOTDIR ? QB_ERR_NOT_FOUND : QB_ERR_IO;
    return qb_fail(code, "%s %s: %s", what, path, strerror(errno));
}

qb_status qb_map_open(const char *path, qb_map *out) {
    *out = (qb_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused below, not waited for */
    if (fd < 0) return fail_errno("cannot open", path);
    qb_status st = QB_OK;
    struct stat info;
    if (fstat(fd, &info) != 0) {
        st = fail_errno("cannot stat", path);
    } else if (!S_ISREG(info.st_mode)) {
        st = qb_fail(QB_ERR_IO, "%s is not a regular file", path);
    } else if (info.st_size > 0) {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            st = fail_errno("cannot map", path);
        } else {
            *out = (qb_map){p, (size_t)info.st_size};
            qb_lost_map_add(p, (size_t)info.st_size, path);
        }
    }
    close(fd);
    return st;
}

void qb_map_close(qb_map *map) {
    if (!map) return;
    if (map->bytes) {
        qb_lost_map_remove(map->bytes);
        munmap((void *)(uintptr_t)map->bytes, map->size);
    }
    *map = (qb_map){0};
}

void qb_map_release(const void *bytes, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)bytes + page - 1) / page * page, to = ((uintptr_t)bytes + n) / page * page;
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

void qb_map_prefetch(const void *bytes, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)bytes / page * page;
    if (n) madvise((void *)from, (uintptr_t)bytes + n - from, MADV_WILLNEED);
}

/* A pipe is read when somebody writes into it, but not waited for: nobody may ever come. */
static FILE *open_stream(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    FILE *f = flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? fdopen(fd, "rb") : NULL;
    if (!f && fd >= 0) close(fd);
    return f;
}

qb_status qb_file_read(const char *path, size_t max_bytes, char **out, size_t *out_size) {
    *out = NULL;
    if (out_size) *out_size = 0;
    FILE *f = open_stream(path);
    if (!f) return fail_errno("cannot open", path);
    qb_str text = {0};
    char buffer[65536];
    size_t n;
    qb_status st = QB_OK;
    while ((n = fread(buffer, 1, sizeof buffer, f)) > 0) {
        if (text.length + n > max_bytes) {
            st = qb_fail(QB_ERR_FORMAT, "%s is larger than the %zu bytes such a file may have", path,
                         max_bytes);
            break;
        }
        qb_str_append(&text, buffer, n);
    }
    if (st == QB_OK && ferror(f)) st = fail_errno("cannot read", path);
    if (st == QB_OK && !text.text) qb_str_append(&text, "", 0);
    if (st == QB_OK) st = qb_str_status(&text);
    fclose(f);
    if (st != QB_OK) {
        qb_str_free(&text);
        return st;
    }
    *out = text.text;
    if (out_size) *out_size = text.length;
    return QB_OK;
}

static bool write_all(int fd, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    while (n > 0) {
        ssize_t wrote = write(fd, p, n);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return false;
        p += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

static void sync_dir_of(const char *path) {
    char *dir = qb_path_dir(path);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    qb_free(dir);
}

qb_status qb_file_replaceable(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0 || S_ISREG(info.st_mode)) return QB_OK;
    return qb_fail(QB_ERR_USAGE, "%s is %s; name a file to write", path,
                   S_ISDIR(info.st_mode) ? "a directory" : "a device or a pipe");
}

qb_status qb_file_write_atomic(const char *path, const void *bytes, size_t n) {
    char *temporary, *dir = NULL;
    int fd;
    qb_status st = qb_file_replaceable(path);
    if (st != QB_OK) return st;
    if (!(dir = qb_path_dir(path))) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_temporary_sweep(dir, qb_path_base(path));
    qb_free(dir);
    if ((st = qb_temporary_file(path, 0666, &temporary, &fd)) != QB_OK) return st;
    if (!write_all(fd, bytes, n) || fsync(fd) != 0) st = fail_errno("cannot write", path);
    if (st == QB_OK && rename(temporary, path) != 0) st = fail_errno("cannot rename into", path);
    if (st != QB_OK) unlink(temporary);
    if (close(fd) != 0 && st == QB_OK) st = fail_errno("cannot write", path);
    if (st == QB_OK) sync_dir_of(path);
    qb_free(temporary);
    return st;
}

bool qb_path_exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* Nothing can stand under a name that no filesystem takes, such as a long list of words that might be a path.
 */
static qb_status look(const char *path, struct stat *info, bool *there) {
    *there = stat(path, info) == 0;
    if (*there || errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG) return QB_OK;
    return qb_fail(QB_ERR_IO, "cannot look for %s: %s", path, strerror(errno));
}

qb_status qb_path_look(const char *path, bool *there) {
    struct stat info;
    return look(path, &info, there);
}

qb_status qb_path_look_dir(const char *path, bool *is_dir) {
    struct stat info;
    qb_status st = look(path, &info, is_dir);
    *is_dir = *is_dir && S_ISDIR(info.st_mode);
    return st;
}

qb_status qb_file_size(const char *path, int64_t *bytes) {
    struct stat info;
    *bytes = 0;
    if (stat(path, &info) != 0) return fail_errno("cannot stat", path);
    *bytes = (int64_t)info.st_size;
    return QB_OK;
}

char *qb_path_join(const char *dir, const char *name) {
    qb_str s = {0};
    size_t n = strlen(dir);
    qb_str_printf(&s, n > 0 && dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
    if (s.failed) qb_str_free(&s);
    return s.text;
}

char *qb_path_dir(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return qb_strdup(".");
    if (slash == path) return qb_strdup("/");
    qb_str s = {0};
    qb_str_append(&s, path, (size_t)(slash - path));
    return s.text;
}

const char *qb_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

struct dirent *qb_dir_next(DIR *dir, const char *path, qb_status *st) {
    struct dirent *e;
    do {
        errno = 0;
        e = readdir(dir);
    } while (e && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")));
    if (!e && errno) *st = qb_fail(QB_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    return e;
}

qb_status qb_make_dirs(const char *path) {
    char *copy = qb_strdup(path);
    if (!copy) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_status st = QB_OK;
    for (char *p = copy + 1; st == QB_OK; p++) {
        if (*p != '/' && *p != 0) continue;
        char kept = *p;
        *p = 0;
        if (mkdir(copy, 0777) != 0) {
            int reason = errno;
            bool is_dir = false;
            if (reason == EEXIST) st = qb_path_look_dir(copy, &is_dir);
            if (reason == EEXIST) reason = ENOTDIR; /* it is the file that is in the way */
            if (st == QB_OK && !is_dir)
                st = qb_fail(QB_ERR_IO, "cannot create directory %s: %s", copy, strerror(reason));
        }
        *p = kept;
        if (kept == 0) break;
    }
    qb_free(copy);
    return st;
}

qb_status qb_remove_tree(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) return errno == ENOENT ? QB_OK : fail_errno("cannot stat", path);
    if (!S_ISDIR(info.st_mode)) return unlink(path) == 0 ? QB_OK : fail_errno("cannot remove", path);
    DIR *dir = opendir(path);
    if (!dir) return fail_errno("cannot open", path);
    qb_status st = QB_OK;
    for (struct dirent *e; st == QB_OK && (e = qb_dir_next(dir, path, &st));) {
        char *child = qb_path_join(path, e->d_name);
        st = child ? qb_remove_tree(child) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(child);
    }
    closedir(dir);
    if (st == QB_OK && rmdir(path) != 0) st = fail_errno("cannot remove", path);
    return st;
}

qb_status qb_copy_file(const char *from, const char *to) {
    qb_map map;
    qb_status st = qb_map_open(from, &map);
    if (st != QB_OK) return st;
    st = qb_file_write_atomic(to, map.bytes, map.size);
    qb_map_close(&map);
    return st;
}

qb_status qb_dir_writable(const char *dir) {
    char *probe = qb_path_join(dir, ".bench-probe"), *name;
    int fd;
    if (!probe) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_temporary_sweep(dir, ".bench-probe");
    qb_status st = qb_temporary_file(probe, 0600, &name, &fd);
    if (st != QB_OK) {
        st = fail_errno("cannot write in", dir);
    } else {
        unlink(name);
        close(fd);
        qb_free(name);
    }
    qb_free(probe);
    return st;
}

char *qb_cache_dir(void) {
    const char *own = getenv("BENCH_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own) return qb_strdup(own);
    if (xdg && *xdg) return qb_path_join(xdg, "quantbench");
    return qb_path_join(home && *home ? home : "/tmp", ".cache/quantbench");
}

char *qb_share_dir(void) {
    const char *own = getenv("BENCH_SHARE");
    if (own && *own) return qb_strdup(own);
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0) return qb_strdup("share/quantbench");
    exe[n] = 0;
    char *bin = qb_path_dir(exe);
    char *top = bin ? qb_path_dir(bin) : NULL;
    char *share = top ? qb_path_join(top, "share/quantbench") : NULL;
    qb_free(bin);
    qb_free(top);
    return share;
}
