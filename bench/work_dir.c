#include "bench/work_dir.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <stdlib.h>

qb_status qb_work_dir_open(const char *keep, const char *name, qb_work_dir *out) {
    char *target = NULL;
    qb_status st = QB_OK;
    *out = (qb_work_dir){.own.lock_fd = -1};
    if (keep) {
        QB_TRY(st, qb_make_dirs(keep));
        QB_TRY(st, qb_dir_writable(keep));
    } else {
        const char *tmp = getenv("TMPDIR");
        target = qb_path_join(tmp && *tmp ? tmp : "/tmp", name);
        if (!target) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
        QB_TRY(st, qb_temporary_dir_make(target, &out->own));
    }
    out->path = qb_strdup(keep ? keep : out->own.path);
    if (!out->path) st = qb_fail(QB_ERR_MEMORY, "out of memory");
out:
    qb_free(target);
    return st;
}

void qb_work_dir_close(qb_work_dir *dir) {
    qb_free(dir->path);
    dir->path = NULL;
    if (dir->own.path && qb_temporary_dir_remove(&dir->own) != QB_OK) qb_warn("%s", qb_error_text());
}
