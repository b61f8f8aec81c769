#include "bench/run/supply.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "bench/run/casework.h"
#include "bench/run/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

qb_status qb_supply_find(const qb_run *run, const qb_case *c, qb_cache_place *out) {
    const qb_subject *s = qb_case_subject(run, c);
    const qb_windows *calibration = qb_subject_calibration(s, c->variant);
    qb_json *options = qb_variant_json(c->variant);
    qb_cache_key key = {s->sha256, options, calibration ? calibration->sha256 : NULL, c->backend,
                        qb_run_device_of(run, c)->facts.describe};
    qb_status st = qb_cache_find(&key, out);
    qb_json_free(options);
    return st;
}

/* ---- hashes ---- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_beside(const char *name) {
    size_t n = strlen(name);
    bool weights = n > 12 && !strcmp(name + n - 12, ".safetensors");
    return strcmp(name, "cache.json") != 0 && !weights;
}

static qb_status list_beside(const char *path, char ***names, size_t *n) {
    size_t capacity = 0;
    qb_status st = QB_OK;
    DIR *dir = opendir(path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    for (struct dirent *e; st == QB_OK && (e = qb_dir_next(dir, path, &st));) {
        if (!is_beside(e->d_name)) continue;
        st = qb_grow(names, &capacity, *n + 1, sizeof **names);
        if (st == QB_OK) st = ((*names)[*n] = qb_strdup(e->d_name)) ? QB_OK : no_memory();
        if (st == QB_OK) ++*n;
    }
    closedir(dir);
    if (*n) qsort(*names, *n, sizeof **names, by_text);
    return st;
}

/* What stands beside the weights decides what they mean: config.json, the tokenizer. */
static qb_status hash_beside(const char *path, char hex[QB_SHA256_HEX]) {
    char **names = NULL;
    size_t n = 0;
    qb_str text = {0};
    qb_status st = list_beside(path, &names, &n);
    for (size_t i = 0; i < n; i++) {
        char own[QB_SHA256_HEX], *file = qb_path_join(path, names[i]);
        if (st == QB_OK) st = file ? qb_hash_file(file, own) : no_memory();
        if (st == QB_OK) qb_str_printf(&text, "%s %s\n", own, names[i]);
        qb_free(file);
        qb_free(names[i]);
    }
    qb_free(names);
    if (st == QB_OK) st = qb_str_status(&text);
    if (st == QB_OK) st = qb_hash_bytes(qb_str_get(&text), text.length, hex);
    qb_str_free(&text);
    return st;
}

/* In a process of its own: the pages that are read here must not stand in the memory of what follows. */
static qb_status hash_checkpoint(void *ctx, qb_json **result) {
    const char *dir = ctx;
    char weights[QB_SHA256_HEX], files[QB_SHA256_HEX];
    qb_model *m = NULL;
    qb_status st;
    QB_TRY(st, qb_model_open(dir, &m));
    QB_TRY(st, qb_checkpoint_sha256(m->checkpoint, weights));
    QB_TRY(st, hash_beside(dir, files));
    *result = qb_json_object();
    qb_json_put_text(*result, "weights", weights);
    qb_json_put_text(*result, "files", files);
out:
    qb_model_close(m);
    return st;
}

static qb_status find_hashes(const char *dir, qb_cache_hashes *out) {
    qb_child_end end;
    qb_status st =
        qb_child_run("hashing the weights in the cache", hash_checkpoint, (void *)(uintptr_t)dir, &end);
    const char *weights = qb_json_string(qb_json_get(end.result, "weights"));
    const char *files = qb_json_string(qb_json_get(end.result, "files"));
    if (st == QB_OK &&
        (!weights || !files || strlen(weights) != QB_SHA256_HEX - 1 || strlen(files) != QB_SHA256_HEX - 1))
        st = qb_fail(QB_ERR_INTERNAL, "%s has no hashes", dir);
    if (st == QB_OK) {
        memcpy(out->weights, weights, QB_SHA256_HEX);
        memcpy(out->files, files, QB_SHA256_HEX);
    }
    qb_json_free(end.result);
    return st;
}

/* ---- what is cached ---- */

static qb_status read_report(qb_supply *s) {
    if (!s->report_name) return QB_OK;
    char *path = qb_path_join(s->dir, s->report_name);
    qb_status st = path ? qb_json_read(path, (size_t)64 << 20, &s->report) : no_memory();
    qb_free(path);
    return st;
}

static qb_status verify(qb_supply *s) {
    qb_cache_hashes stamped, found;
    qb_status st;
    QB_TRY(st, qb_cache_read_stamp(&s->place, &stamped));
    QB_TRY(st, find_hashes(s->dir, &found));
    if (strcmp(stamped.weights, found.weights) != 0)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT,
                           "its weights are not those that were written (SHA-256 %.16s, expected %.16s)",
                           found.weights, stamped.weights));
    if (strcmp(stamped.files, found.files) != 0)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT, "a file beside its weights was changed, added or removed"));
    QB_TRY(st, read_report(s));
    memcpy(s->sha256, found.weights, sizeof s->sha256);
    s->cached = true;
    (void)!utimensat(AT_FDCWD, s->dir, NULL, 0); /* "used now", for qb_cache_shrink */
out:
    return st;
}

/* ---- a checkpoint of this case alone ---- */

static qb_status make_private(qb_supply *s) {
    qb_file_unlock(&s->lock);
    qb_status st = qb_temporary_dir_make(s->place.dir, &s->own);
    if (st != QB_OK) return st;
    s->own_path = qb_path_join(s->own.path, "private");
    s->dir = s->own_path;
    s->private = true;
    return s->own_path ? QB_OK : no_memory();
}

/* ---- open, made, close ---- */

/* The shared lock becomes the exclusive one under which entries are made and removed; false: others share it.
 */
static bool lock_to_make(const qb_supply *s) {
    return qb_lock_try(s->lock.fd, QB_LOCK_EXCLUSIVE) == QB_LOCK_TAKEN;
}

static qb_status open_shared(qb_supply *s) {
    bool there;
    qb_status st = qb_path_look(s->dir, &there);
    if (st == QB_OK && there) {
        st = verify(s);
        if (st == QB_OK || st == QB_ERR_INTERRUPTED) return st;
        qb_warn("the cached checkpoint %s is dropped and made anew: %s", s->dir, qb_error_text());
        qb_error_clear();
        st = QB_OK;
    }
    if (st != QB_OK) return st;
    if (!lock_to_make(s)) {
        qb_info("another run makes or measures %s: this one makes its own", s->dir);
        return make_private(s);
    }
    return there ? qb_remove_tree(s->dir) : QB_OK;
}

qb_status qb_supply_open_place(qb_cache_place *place, bool cache, const char *report, qb_supply *out) {
    qb_lock_answer answer = QB_LOCK_UNSURE;
    *out = (qb_supply){.own.lock_fd = -1, .place = *place, .dir = place->dir, .report_name = report};
    *place = (qb_cache_place){0};
    if (!cache) return make_private(out);
    qb_status st = qb_file_lock_try(out->place.dir, QB_LOCK_SHARED, &out->lock, &answer);
    if (st != QB_OK) return st;
    if (answer == QB_LOCK_TAKEN) return open_shared(out);
    if (answer == QB_LOCK_UNSURE)
        qb_warn("the cache cannot be locked here (%s), so it is not used; set BENCH_CACHE to another disk",
                strerror(errno));
    else
        qb_info("another run is making %s: this one makes its own", out->dir);
    return make_private(out);
}

qb_status qb_supply_open(const qb_run *run, const qb_case *c, qb_supply *out) {
    qb_cache_place place;
    *out = (qb_supply){.own.lock_fd = -1};
    qb_status st = qb_supply_find(run, c, &place);
    return st == QB_OK ? qb_supply_open_place(&place, run->options->cache, "quantize_report.json", out) : st;
}

qb_status qb_supply_made(qb_supply *s) {
    qb_cache_hashes hashes;
    qb_status st = find_hashes(s->dir, &hashes);
    if (st != QB_OK) return st;
    memcpy(s->sha256, hashes.weights, sizeof s->sha256);
    if (s->private) return QB_OK;
    if ((st = qb_cache_stamp(&s->place, &hashes)) != QB_OK) return st;
    /* From exclusive to shared nothing can come between. */
    return qb_lock_try(s->lock.fd, QB_LOCK_SHARED) == QB_LOCK_TAKEN
               ? QB_OK
               : qb_fail(QB_ERR_IO, "cannot lock %s: %s", s->lock.path, strerror(errno));
}

void qb_supply_close(qb_supply *s) {
    if (s->own.path && qb_temporary_dir_remove(&s->own) != QB_OK) qb_warn("%s", qb_error_text());
    qb_file_unlock(&s->lock);
    qb_json_free(s->report);
    qb_free(s->own_path);
    qb_cache_place_free(&s->place);
    *s = (qb_supply){.own.lock_fd = -1};
}
