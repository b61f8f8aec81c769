#include "base/temporary.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PLACE_DIGITS = 12, MOST_TRIES = 1000, DAY_S = 86400 };
static const char mark[] = ".tmp.";

/* ---- where process ids mean what they mean here ---- */

static char place[PLACE_DIGITS + 1];

static void find_place(void) {
    char text[512] = "", hex[QB_SHA256_HEX];
    size_t n = gethostname(text, 255) == 0 ? strlen(text) : 0;
    text[n++] = '\n';
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text + n, 64) : -1;
    if (fd >= 0) close(fd);
    if (got > 0) n += (size_t)got;
    got = readlink("/proc/self/ns/pid", text + n, sizeof text - n);
    if (got > 0) n += (size_t)got;
    /* Without a hash nothing is ours: names stay exclusive, and leftovers wait for their day. */
    if (qb_hash_bytes(text, n, hex) != QB_OK) memset(hex, '0', sizeof hex);
    memcpy(place, hex, PLACE_DIGITS);
    place[PLACE_DIGITS] = 0;
}

static const char *place_here(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_place);
    return place;
}

static qb_status next_name(const char *path, qb_str *out) {
    static _Atomic unsigned number;
    qb_str_free(out);
    qb_str_printf(out, "%s%s%s.%ld.%u", path, mark, place_here(), (long)getpid(),
                  atomic_fetch_add(&number, 1));
    return qb_str_status(out);
}

typedef struct {
    bool here; /* made by a process of this place */
    long pid;
} maker;

/* Takes "BASE.tmp.PLACE.PID.N" apart; false for every other name, and for another base. */
static bool maker_of(const char *name, const char *base, maker *out) {
    const char *found = NULL;
    for (const char *p = name; (p = strstr(p, mark)); p++) found = p;
    if (!found || found == name) return false;
    size_t n = (size_t)(found - name);
    if (base && (strlen(base) != n || strncmp(name, base, n) != 0)) return false;
    const char *at = found + sizeof mark - 1;
    if (strspn(at, "0123456789abcdef") != PLACE_DIGITS || at[PLACE_DIGITS] != '.') return false;
    out->here = !strncmp(at, place_here(), PLACE_DIGITS);
    at += PLACE_DIGITS + 1;
    size_t digits = strspn(at, "0123456789"),
           more = at[digits] == '.' ? strspn(at + digits + 1, "0123456789") : 0;
    if (!digits || digits > 9 || !more || at[digits + 1 + more]) return false;
    out->pid = strtol(at, NULL, 10);
    return out->pid > 0;
}

/* ---- files ---- */

qb_status qb_temporary_file(const char *path, unsigned mode, char **name, int *fd) {
    qb_str text = {0};
    *name = NULL;
    *fd = -1;
    for (int i = 0; i < MOST_TRIES; i++) {
        qb_status st = next_name(path, &text);
        if (st != QB_OK) {
            qb_str_free(&text);
            return st;
        }
        *fd = open(text.text, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
        if (*fd < 0 && errno == EEXIST) continue;
        if (*fd < 0) break;
        qb_lock_answer answer = qb_lock_try(*fd, QB_LOCK_EXCLUSIVE);
        if (answer == QB_LOCK_UNSURE || (answer == QB_LOCK_TAKEN && qb_lock_is_linked(*fd, text.text))) {
            *name = text.text;
            return QB_OK;
        }
        unlink(text.text); /* who sweeps was quicker than the lock, or it cannot be looked at */
        close(*fd);
        *fd = -1;
    }
    int error = errno;
    qb_str_free(&text);
    qb_status st = qb_fail(error == ENOENT || error == ENOTDIR ? QB_ERR_NOT_FOUND : QB_ERR_IO,
                           "cannot write %s: %s", path, strerror(error));
    errno = error;
    return st;
}

/* ---- directories ---- */

static char *lock_path(const char *dir) {
    return qb_path_join(dir, "lock");
}

qb_status qb_temporary_dir_lock(qb_temporary_dir *d, const char *target) {
    char *path = lock_path(d->path);
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_status st = QB_OK;
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    qb_lock_answer answer = d->lock_fd >= 0 ? qb_lock_try(d->lock_fd, QB_LOCK_EXCLUSIVE) : QB_LOCK_UNSURE;
    int error = errno;
    if (d->lock_fd < 0)
        st = qb_fail(QB_ERR_IO, "cannot open %s: %s", path, strerror(error));
    else if (answer == QB_LOCK_BUSY || (answer == QB_LOCK_TAKEN && !qb_lock_is_linked(d->lock_fd, path)))
        st = qb_fail(QB_ERR_IO,
                     "another process is writing %s (it holds %s); wait for it or choose another directory",
                     target, d->path);
    else if (answer == QB_LOCK_UNSURE)
        qb_warn("%s cannot be locked (%s): see to it that no other process writes %s", d->path,
                strerror(error), target);
    if (st != QB_OK && d->lock_fd >= 0) {
        close(d->lock_fd);
        d->lock_fd = -1;
    }
    qb_free(path);
    return st;
}

/* False when who sweeps was quicker: another name is to be tried. */
static bool lock_fresh(qb_temporary_dir *d, qb_status *st) {
    char *path = lock_path(d->path);
    if (!path) {
        *st = qb_fail(QB_ERR_MEMORY, "out of memory");
        return true;
    }
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool swept = d->lock_fd < 0 && errno == ENOENT;
    if (d->lock_fd < 0 && !swept) *st = qb_fail(QB_ERR_IO, "cannot write %s: %s", path, strerror(errno));
    if (d->lock_fd >= 0) {
        qb_lock_answer answer = qb_lock_try(d->lock_fd, QB_LOCK_EXCLUSIVE);
        swept = answer == QB_LOCK_BUSY || (answer == QB_LOCK_TAKEN && !qb_lock_is_linked(d->lock_fd, path));
        if (swept) {
            close(d->lock_fd);
            d->lock_fd = -1;
        }
    }
    qb_free(path);
    return !swept;
}

qb_status qb_temporary_dir_make(const char *target, qb_temporary_dir *out) {
    qb_str name = {0};
    qb_status st = QB_OK;
    *out = (qb_temporary_dir){.lock_fd = -1};
    for (int i = 0; st == QB_OK && i < MOST_TRIES; i++) {
        if ((st = next_name(target, &name)) != QB_OK) break;
        if (mkdir(name.text, 0777) != 0) {
            if (errno == EEXIST) continue;
            st = qb_fail(QB_ERR_IO, "cannot create %s: %s", name.text, strerror(errno));
            break;
        }
        out->path = name.text;
        bool ours = lock_fresh(out, &st);
        if (ours && st == QB_OK) return QB_OK;
        out->path = NULL;
        if (qb_remove_tree(name.text) != QB_OK) qb_warn("%s", qb_error_text());
        if (ours) break;
    }
    if (st == QB_OK) st = qb_fail(QB_ERR_IO, "cannot create a temporary directory for %s", target);
    qb_str_free(&name);
    return st;
}

qb_status qb_temporary_dir_remove(qb_temporary_dir *d) {
    if (!d->path) return QB_OK;
    qb_status st = qb_remove_tree(d->path);
    qb_temporary_dir_close(d);
    return st;
}

void qb_temporary_dir_close(qb_temporary_dir *d) {
    if (d->path && d->lock_fd >= 0) close(d->lock_fd);
    qb_free(d->path);
    *d = (qb_temporary_dir){.lock_fd = -1};
}

/* ---- what others left ---- */

/* Opens and tries the lock of a temporary file or directory; *fd (-1: none) keeps it. */
static qb_lock_answer ask(const char *path, bool is_dir, int *fd) {
    char *inner = is_dir ? lock_path(path) : qb_strdup(path);
    *fd = inner ? open(inner, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    qb_free(inner);
    return *fd >= 0 ? qb_lock_try(*fd, QB_LOCK_EXCLUSIVE) : QB_LOCK_UNSURE;
}

static bool is_old(const char *path) {
    struct stat info;
    return lstat(path, &info) == 0 && time(NULL) - info.st_mtime > DAY_S;
}

static bool is_abandoned(const char *path, bool is_dir, const maker *m, int *fd) {
    qb_lock_answer answer = ask(path, is_dir, fd);
    if (answer == QB_LOCK_BUSY) return false;
    if (!m->here) return answer == QB_LOCK_TAKEN && is_old(path);
    if (m->pid == (long)getpid()) return answer == QB_LOCK_TAKEN; /* the id was given out again */
    return kill((pid_t)m->pid, 0) != 0 && errno == ESRCH;
}

void qb_temporary_sweep(const char *dir, const char *base) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) { /* what is not seen now is swept another time */
        maker m;
        if (!maker_of(e->d_name, base, &m)) continue;
        char *path = qb_path_join(dir, e->d_name);
        int fd = -1;
        struct stat info;
        bool seen = path && lstat(path, &info) == 0;
        bool is_dir = seen && S_ISDIR(info.st_mode);
        if (seen &&
            is_abandoned(path, is_dir, &m, &fd)) { /* under the lock: no maker takes it up meanwhile */
            if (is_dir) qb_info("removing %s, left by a run that was interrupted", path);
            if (qb_remove_tree(path) != QB_OK) qb_warn("%s", qb_error_text());
        }
        if (fd >= 0) close(fd);
        qb_free(path);
    }
    if (d) closedir(d);
}
