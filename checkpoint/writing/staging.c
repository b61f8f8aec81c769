/* For renameat2, the atomic exchange of two directories. */
#define _GNU_SOURCE
#include "checkpoint/writing/staging.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

/* ---- the target ---- */

/* A copy without trailing slashes; an existing target with its links resolved, so that the link stays. */
static qb_status resolve(const char *target, char **out) {
    char *real = realpath(target, NULL);
    if (!real && errno != ENOENT && errno != ENOTDIR)
        return qb_fail(QB_ERR_IO, "cannot look for %s: %s", target, strerror(errno));
    *out = qb_strdup(real ? real : target);
    free(real);
    if (!*out) return no_memory();
    for (size_t n = strlen(*out); n > 1 && (*out)[n - 1] == '/'; n--) (*out)[n - 1] = 0;
    const char *base = qb_path_base(*out);
    if (!base[0] || !strcmp(base, ".") || !strcmp(base, ".."))
        return qb_fail(QB_ERR_USAGE, "\"%s\" is no name for an output directory", target);
    return QB_OK;
}

typedef struct {
    int entries;
    bool like_checkpoint;
} content;

static qb_status look_into(const char *path, content *out) {
    *out = (content){0};
    DIR *dir = opendir(path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    qb_status st = QB_OK;
    for (struct dirent *e; (e = qb_dir_next(dir, path, &st));) {
        out->entries++;
        if (!strcmp(e->d_name, "config.json") || strstr(e->d_name, ".safetensors"))
            out->like_checkpoint = true;
    }
    closedir(dir);
    return st;
}

static qb_status find_content(const char *target, bool *out) {
    content found = {0};
    qb_status st = qb_path_look_dir(target, out);
    if (st == QB_OK && *out) st = look_into(target, &found);
    *out = found.entries > 0;
    return st;
}

static qb_status check_target(const char *target, bool replace) {
    content found;
    bool there;
    qb_status st = qb_path_look(target, &there);
    if (st != QB_OK || !there) return st;
    bool is_dir;
    st = qb_path_look_dir(target, &is_dir);
    if (st != QB_OK) return st;
    if (!is_dir) return qb_fail(QB_ERR_IO, "%s exists and is not a directory", target);
    st = look_into(target, &found);
    if (st != QB_OK || found.entries == 0) return st;
    if (!replace)
        return qb_fail(QB_ERR_IO, "%s exists and is not empty; choose another directory or ask to replace it",
                       target);
    if (!found.like_checkpoint)
        return qb_fail(
            QB_ERR_IO,
            "%s holds neither config.json nor a safetensors file, so it is not replaced; remove it by hand",
            target);
    return QB_OK;
}

/* ---- the outer directory ---- */

static qb_status make_dir(const char *path) {
    if (mkdir(path, 0777) == 0) return QB_OK;
    int reason = errno;
    bool is_dir = false;
    qb_status st = reason == EEXIST ? qb_path_look_dir(path, &is_dir) : QB_OK;
    if (st != QB_OK || is_dir) return st;
    return qb_fail(QB_ERR_IO, "cannot create %s: %s", path, strerror(reason));
}

static qb_status has_entry(const char *dir, const char *name, bool *out) {
    char *path = qb_path_join(dir, name);
    qb_status st = path ? qb_path_look(path, out) : no_memory();
    qb_free(path);
    return st;
}

/* Whether a run left what is there: what else bears the name is somebody's own. */
static qb_status is_kept(const char *kept, bool *out) {
    static const char *const ours[] = {"checkpoint", "progress.json", "lock"};
    qb_status st = QB_OK;
    *out = false;
    for (size_t i = 0; st == QB_OK && !*out && i < sizeof ours / sizeof ours[0]; i++)
        st = has_entry(kept, ours[i], out);
    return st;
}

static qb_status check_kept(const char *kept, const char *target) {
    bool there, ours = false;
    qb_status st = find_content(kept, &there);
    if (st == QB_OK && there) st = is_kept(kept, &ours);
    if (st != QB_OK || !there || ours) return st;
    return qb_fail(QB_ERR_IO,
                   "%s is there and was not left by an interrupted run; writing %s needs that name: move it "
                   "away or choose another output",
                   kept, target);
}

static qb_status make_temporary(qb_staging *s) {
    return qb_temporary_dir_make(s->target, &s->outer);
}

static qb_status kept_name(const char *target, qb_str *out) {
    qb_str_printf(out, "%s.partial", target);
    return qb_str_status(out);
}

static qb_status make_kept(qb_staging *s) {
    qb_str outer = {0};
    qb_status st = kept_name(s->target, &outer);
    if (st == QB_OK) st = check_kept(outer.text, s->target);
    if (st == QB_OK) st = make_dir(outer.text);
    if (st != QB_OK) {
        qb_str_free(&outer);
        return st;
    }
    s->outer.path = outer.text;
    st = qb_temporary_dir_lock(&s->outer, s->target);
    if (st != QB_OK) qb_temporary_dir_close(&s->outer); /* not ours to remove */
    return st;
}

qb_status qb_staging_clear(qb_staging *s) {
    qb_status st = QB_OK;
    DIR *dir = opendir(s->outer.path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", s->outer.path, strerror(errno));
    for (struct dirent *e; st == QB_OK && (e = qb_dir_next(dir, s->outer.path, &st));) {
        if (!strcmp(e->d_name, "lock")) continue;
        char *path = qb_path_join(s->outer.path, e->d_name);
        st = path ? qb_remove_tree(path) : no_memory();
        qb_free(path);
    }
    closedir(dir);
    return st == QB_OK ? make_dir(s->path) : st;
}

/* ---- what others left ---- */

/* TARGET.partial without a checkpoint beside a target that has content: its process ended when it had renamed
   the one to the other. */
static qb_status sweep_kept(const char *target) {
    bool target_there = false, kept_there = false, unpublished = false;
    qb_str name = {0};
    qb_temporary_dir kept = {.lock_fd = -1};
    qb_status st = kept_name(target, &name);
    if (st == QB_OK) st = find_content(target, &target_there);
    if (st == QB_OK && target_there) st = is_kept(name.text, &kept_there);
    if (st == QB_OK && kept_there) st = has_entry(name.text, "checkpoint", &unpublished);
    if (st != QB_OK || !kept_there || unpublished) {
        qb_str_free(&name);
        return st;
    }
    kept.path = name.text;
    st = qb_temporary_dir_lock(&kept, target);
    if (st != QB_OK) {
        qb_temporary_dir_close(&kept);
        return st;
    }
    qb_info("removing %s, left by a run that was interrupted when it had written %s", kept.path, target);
    if (qb_temporary_dir_remove(&kept) != QB_OK) qb_warn("%s", qb_error_text());
    return QB_OK;
}

static qb_status sweep(const char *target, const char *parent) {
    qb_temporary_sweep(parent, qb_path_base(target));
    return sweep_kept(target);
}

qb_status qb_staging_sweep(const char *target) {
    char *resolved = NULL, *parent = NULL;
    qb_status st = resolve(target, &resolved);
    if (st == QB_OK) parent = qb_path_dir(resolved);
    if (st == QB_OK) st = parent ? sweep(resolved, parent) : no_memory();
    qb_free(resolved);
    qb_free(parent);
    return st;
}

/* ---- open ---- */

static qb_status open_with(const char *target, bool replace, qb_status (*make)(qb_staging *),
                           qb_staging *out) {
    *out = (qb_staging){.outer.lock_fd = -1, .replace = replace};
    char *parent = NULL;
    qb_status st;
    QB_TRY(st, resolve(target, &out->target));
    parent = qb_path_dir(out->target);
    if (!parent) {
        st = no_memory();
        goto out;
    }
    QB_TRY(st, sweep(out->target, parent));
    QB_TRY(st, check_target(out->target, replace));
    QB_TRY(st, qb_make_dirs(parent));
    QB_TRY(st, qb_dir_writable(parent));
    QB_TRY(st, make(out));
    out->path = qb_path_join(out->outer.path, "checkpoint");
    st = out->path ? make_dir(out->path) : no_memory();
    if (st != QB_OK && make == make_temporary) qb_staging_discard(out);
out:
    qb_free(parent);
    return st;
}

qb_status qb_staging_open(const char *target, bool replace, qb_staging *out) {
    return open_with(target, replace, make_temporary, out);
}
qb_status qb_staging_open_kept(const char *target, bool replace, qb_staging *out) {
    return open_with(target, replace, make_kept, out);
}

qb_status qb_staging_identity(const qb_staging *s, char **out) {
    struct stat info;
    qb_str text = {0};
    *out = NULL;
    if (stat(s->path, &info) != 0)
        return qb_fail(QB_ERR_IO, "cannot look for %s: %s", s->path, strerror(errno));
    qb_str_printf(&text, "%llu:%llu", (unsigned long long)info.st_dev, (unsigned long long)info.st_ino);
    qb_status st = qb_str_status(&text);
    if (st == QB_OK)
        *out = text.text;
    else
        qb_str_free(&text);
    return st;
}

qb_status qb_staging_has_target(const qb_staging *s, bool *out) {
    return find_content(s->target, out);
}

/* ---- publish, discard ---- */

static void sync_dir(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

/* Puts s->path in the place of the older target and the older target in its place. */
static qb_status exchange(const qb_staging *s) {
    if (renameat2(AT_FDCWD, s->path, AT_FDCWD, s->target, RENAME_EXCHANGE) == 0) return QB_OK;
    if (errno != EINVAL && errno != ENOSYS)
        return qb_fail(QB_ERR_IO, "cannot exchange %s with %s: %s", s->path, s->target, strerror(errno));
    /* No exchange on this filesystem: for a moment there is no target, but both directories are whole. */
    qb_str aside = {0};
    qb_str_printf(&aside, "%s.old.%ld", s->target, (long)getpid());
    qb_status st = qb_str_status(&aside);
    if (st == QB_OK && rename(s->target, aside.text) != 0) {
        st = qb_fail(QB_ERR_IO, "cannot replace %s: %s", s->target, strerror(errno));
    } else if (st == QB_OK && rename(s->path, s->target) != 0) {
        st = qb_fail(QB_ERR_IO, "cannot replace %s: %s", s->target, strerror(errno));
        if (rename(aside.text, s->target) != 0)
            st = qb_fail_prefix(st, "what was there is now %s", aside.text);
    } else if (st == QB_OK && rename(aside.text, s->path) != 0) {
        qb_warn("the older directory stays as %s: %s", aside.text, strerror(errno));
    }
    qb_str_free(&aside);
    return st;
}

qb_status qb_staging_publish(qb_staging *s) {
    bool there = false;
    sync_dir(s->path);
    qb_status st = check_target(s->target, s->replace); /* it may have come into being meanwhile */
    if (st == QB_OK) st = find_content(s->target, &there);
    if (st == QB_OK && there)
        st = exchange(s);
    else if (st == QB_OK && rename(s->path, s->target) != 0)
        st = qb_fail(QB_ERR_IO, "cannot rename %s to %s: %s", s->path, s->target, strerror(errno));
    if (st != QB_OK) return st;
    qb_free(s->path);
    s->path = NULL;
    if (qb_temporary_dir_remove(&s->outer) != QB_OK) qb_warn("what is done with stays: %s", qb_error_text());
    char *parent = qb_path_dir(s->target);
    if (parent) sync_dir(parent);
    qb_free(parent);
    return QB_OK;
}

void qb_staging_discard(qb_staging *s) {
    if (!s->outer.path) return;
    /* The error that led here is the one to tell. */
    char kept[1024];
    snprintf(kept, sizeof kept, "%s", qb_error_text());
    if (qb_temporary_dir_remove(&s->outer) != QB_OK) qb_warn("%s", qb_error_text());
    (void)qb_fail(QB_OK, "%s", kept);
    qb_free(s->path);
    s->path = NULL;
}

void qb_staging_close(qb_staging *s) {
    qb_temporary_dir_close(&s->outer);
    qb_free(s->path);
    qb_free(s->target);
    *s = (qb_staging){.outer.lock_fd = -1};
}
