/* Writing into the hub's cache: always so that whoever reads it at the same time, Python's tools included,
   finds a file whole or not at all. */
#include "base/file.h"
#include "base/lock.h"
#include "base/memory.h"
#include "base/str.h"
#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

/* CACHE/models--ORG--NAME/A/B, B without its own slashes resolved. */
static char *below(const char *cache, const qb_hub_repo *repo, const char *a, const char *b) {
    char *folder = qb_hub_folder(cache, repo), *first = folder ? qb_path_join(folder, a) : NULL,
         *out = first && b ? qb_path_join(first, b) : NULL;
    if (!b && first) {
        out = first;
        first = NULL;
    }
    qb_free(first);
    qb_free(folder);
    return out;
}

static qb_status make_parent(const char *path) {
    char *dir = qb_path_dir(path);
    qb_status st = dir ? qb_make_dirs(dir) : no_memory();
    qb_free(dir);
    return st;
}

/* The tag by which backup programs know caches: https://bford.info/cachedir/ */
static qb_status tag_cache(const char *cache) {
    static const char text[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                               "# This file marks a cache directory, which can be filled again.\n"
                               "# https://bford.info/cachedir/\n";
    char *path = qb_path_join(cache, "CACHEDIR.TAG");
    bool there = true;
    qb_status st = path ? qb_path_look(path, &there) : no_memory();
    if (st == QB_OK && !there) st = qb_file_write_atomic(path, text, sizeof text - 1);
    qb_free(path);
    return st;
}

qb_status qb_hub_make_folders(const char *cache, const qb_hub_repo *repo) {
    static const char *const folders[] = {"blobs", "refs", "snapshots"};
    qb_status st = qb_make_dirs(cache);
    if (st == QB_OK) st = tag_cache(cache);
    for (size_t i = 0; st == QB_OK && i < sizeof folders / sizeof folders[0]; i++) {
        char *path = below(cache, repo, folders[i], NULL);
        st = path ? qb_make_dirs(path) : no_memory();
        qb_free(path);
    }
    return st;
}

char *qb_hub_blob(const char *cache, const qb_hub_repo *repo, const char *etag) {
    return below(cache, repo, "blobs", etag);
}

static char *pointer_of(const char *cache, const qb_hub_repo *repo, const char *commit, const char *path) {
    char *snapshots = below(cache, repo, "snapshots", commit),
         *out = snapshots ? qb_path_join(snapshots, path) : NULL;
    qb_free(snapshots);
    return out;
}

qb_status qb_hub_has(const char *cache, const qb_hub_repo *repo, const char *commit, const char *path,
                     bool *there) {
    char *pointer = pointer_of(cache, repo, commit, path);
    qb_status st = pointer ? qb_path_look(pointer, there) : no_memory();
    qb_free(pointer);
    return st;
}

/* A new link under a name of its own, then renamed: who looks meanwhile sees the old one or the new one. */
static int put_link(const char *target, const char *pointer) {
    qb_str name = {0};
    qb_str_printf(&name, "%s.tmp.%ld", pointer, (long)getpid());
    int failed = qb_str_status(&name) == QB_OK ? symlink(target, name.text) : -1;
    if (failed && errno == EEXIST && unlink(name.text) == 0) failed = symlink(target, name.text);
    if (!failed && rename(name.text, pointer) != 0) {
        int error = errno;
        unlink(name.text);
        errno = error;
        failed = -1;
    }
    qb_str_free(&name);
    return failed;
}

qb_status qb_hub_link(const qb_hub *hub, const qb_hub_repo *repo, const char *commit, const char *path,
                      const char *etag) {
    char *pointer = pointer_of(hub->cache, repo, commit, path), *blob = qb_hub_blob(hub->cache, repo, etag);
    qb_str target = {0};
    qb_status st;
    if (!pointer || !blob) QB_TRY(st, no_memory());
    QB_TRY(st, make_parent(pointer));
    for (const char *p = path; (p = strchr(p, '/')); p++) qb_str_text(&target, "../");
    qb_str_printf(&target, "../../blobs/%s", etag);
    QB_TRY(st, qb_str_status(&target));
    if (!hub->copies && put_link(target.text, pointer) == 0) goto out;
    if (!hub->copies && errno != EPERM && errno != ENOTSUP && errno != ENOSYS) {
        st = qb_fail(QB_ERR_IO, "cannot link %s: %s", pointer, strerror(errno));
        goto out;
    }
    st = qb_copy_file(blob, pointer);
out:
    qb_str_free(&target);
    qb_free(pointer);
    qb_free(blob);
    return st;
}

qb_status qb_hub_set_ref(const char *cache, const qb_hub_repo *repo, const char *commit) {
    const char *revision = repo->revision ? repo->revision : "main";
    if (qb_hub_is_commit(revision)) return QB_OK;
    char *path = below(cache, repo, "refs", revision);
    qb_status st = path ? make_parent(path) : no_memory();
    if (st == QB_OK) st = qb_file_write_atomic(path, commit, strlen(commit));
    qb_free(path);
    return st;
}

qb_status qb_hub_set_absent(const char *cache, const qb_hub_repo *repo, const char *commit,
                            const char *path) {
    char *folder = below(cache, repo, ".no_exist", commit),
         *file = folder ? qb_path_join(folder, path) : NULL;
    qb_status st = file ? make_parent(file) : no_memory();
    if (st == QB_OK) st = qb_file_write_atomic(file, "", 0);
    qb_free(file);
    qb_free(folder);
    return st;
}

/* ---- locks ---- */

/* Python's filelock takes flock(2), which knows nothing of the locks of base/lock.h. */
static qb_status wait_for(int fd, const char *path, bool (*stopped)(void), bool *again) {
    static const struct timespec pause = {.tv_nsec = 50000000};
    *again = false;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK) return qb_fail(QB_ERR_UNSUPPORTED, "%s", strerror(errno));
        if (stopped && stopped()) return qb_fail(QB_ERR_INTERRUPTED, "interrupted");
        nanosleep(&pause, NULL);
    }
    *again = !qb_lock_is_linked(fd, path); /* whoever held it last removed it */
    return QB_OK;
}

qb_status qb_hub_lock(const char *cache, const qb_hub_repo *repo, const char *etag, bool (*stopped)(void),
                      int *fd) {
    char *folder = qb_hub_folder(cache, repo);
    qb_str path = {0};
    bool again = true;
    qb_status st = folder ? QB_OK : no_memory();
    *fd = -1;
    if (st == QB_OK) qb_str_printf(&path, "%s/.locks/%s/%s.lock", cache, qb_path_base(folder), etag);
    if (st == QB_OK) st = qb_str_status(&path);
    if (st == QB_OK) st = make_parent(path.text);
    while (st == QB_OK && again) {
        *fd = open(path.text, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*fd < 0) {
            st = qb_fail(QB_ERR_IO, "cannot open %s: %s", path.text, strerror(errno));
            break;
        }
        st = wait_for(*fd, path.text, stopped, &again);
        if (st != QB_OK || again) {
            close(*fd);
            *fd = -1;
        }
        if (st == QB_ERR_UNSUPPORTED) { /* best effort, as in Python's tools */
            st = QB_OK;
            break;
        }
    }
    qb_str_free(&path);
    qb_free(folder);
    return st;
}

void qb_hub_unlock(int fd) {
    if (fd >= 0) close(fd);
}
