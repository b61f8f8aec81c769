/* For open file description locks. */
#define _GNU_SOURCE
#include "base/lock.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

qb_lock_answer qb_lock_try(int fd, qb_lock_kind kind) {
    struct flock all = {.l_type = kind == QB_LOCK_SHARED ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    while (fcntl(fd, F_OFD_SETLK, &all) != 0) {
        if (errno == EINTR) continue;
        return errno == EAGAIN || errno == EACCES ? QB_LOCK_BUSY : QB_LOCK_UNSURE;
    }
    return QB_LOCK_TAKEN;
}

bool qb_lock_is_linked(int fd, const char *path) {
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

qb_status qb_file_lock_try(const char *path, qb_lock_kind kind, qb_file_lock *out, qb_lock_answer *answer) {
    qb_str name = {0};
    *out = (qb_file_lock){0};
    qb_str_printf(&name, "%s.lock", path);
    qb_status st = qb_str_status(&name);
    while (st == QB_OK) {
        int fd = open(name.text, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
        if (fd < 0) {
            st = qb_fail(errno == ENOENT || errno == ENOTDIR ? QB_ERR_NOT_FOUND : QB_ERR_IO,
                         "cannot open %s: %s", name.text, strerror(errno));
            break;
        }
        *answer = qb_lock_try(fd, kind);
        if (*answer != QB_LOCK_BUSY && !qb_lock_is_linked(fd, name.text)) {
            close(fd); /* its holder went between open and lock */
            continue;
        }
        if (*answer != QB_LOCK_BUSY) {
            *out = (qb_file_lock){name.text, fd};
            return QB_OK;
        }
        close(fd);
        break;
    }
    qb_str_free(&name);
    return st;
}

qb_status qb_file_lock_take(const char *path, qb_file_lock *out) {
    qb_lock_answer answer = QB_LOCK_UNSURE;
    qb_status st = qb_file_lock_try(path, QB_LOCK_EXCLUSIVE, out, &answer);
    if (st == QB_OK && answer == QB_LOCK_BUSY)
        st = qb_fail(QB_ERR_USAGE, "%s is being written by another process; name another file or wait for it",
                     path);
    if (st == QB_OK && answer == QB_LOCK_UNSURE)
        qb_warn("%s cannot be locked (%s): see to it that no other process writes %s", out->path,
                strerror(errno), path);
    return st;
}

void qb_file_unlock(qb_file_lock *lock) {
    if (!lock->path) return;
    /* Who alone holds it removes the file; under a lock that others share, a new file would be a new lock. */
    if (qb_lock_try(lock->fd, QB_LOCK_EXCLUSIVE) == QB_LOCK_TAKEN) unlink(lock->path);
    close(lock->fd);
    qb_free(lock->path);
    *lock = (qb_file_lock){0};
}
