/* Writers that can be killed: TARGET.partial holds the shards in `checkpoint` and, in progress.json, which
   tensors are on disk for good. The journal is replaced atomically after the shards are synced, so that it
   never promises what is not there. It names the directory that it speaks of: a process that ended when it
   had exchanged that for an older target left the older one in its place, with shards of the same names and
   headers. */
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "checkpoint/writer.h"
#include "checkpoint/writing/writer_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char schema[] = "qb.progress/1";
enum { MAX_JOURNAL_BYTES = 256 << 20 };

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

qb_status qb_writer_create_resumable(const char *dir, bool replace, int64_t shard_bytes,
                                     const char *fingerprint, bool resume, qb_writer **out) {
    qb_staging staging;
    *out = NULL;
    if (strlen(fingerprint) >= QB_SHA256_HEX)
        return qb_fail(QB_ERR_INTERNAL, "a fingerprint has 64 digits, not %zu", strlen(fingerprint));
    qb_status st = qb_staging_open_kept(dir, replace, &staging);
    if (st != QB_OK) {
        qb_staging_close(&staging);
        return st;
    }
    st = qb_writer_create_in(&staging, shard_bytes, out);
    if (st == QB_OK) st = qb_alloc_zero(1, sizeof *(*out)->journal, &(*out)->journal);
    if (st != QB_OK) {
        qb_writer_abort(*out);
        *out = NULL;
        return st;
    }
    memcpy((*out)->journal->fingerprint, fingerprint, strlen(fingerprint) + 1);
    (*out)->journal->resume = resume;
    return QB_OK;
}

void qb_writer_journal_free(qb_writer_journal *journal) {
    if (!journal) return;
    qb_json_free(journal->state);
    qb_free(journal);
}

const qb_json *qb_writer_saved(const qb_writer *w) {
    return w->begun && w->journal ? w->journal->state : NULL;
}

char *qb_writer_beside(const qb_writer *w, const char *name) {
    return w->journal ? qb_path_join(w->staging.outer.path, name) : NULL;
}

/* ---- which tensors are done, as hex digits in planned order ---- */

static qb_status marks_of(const qb_writer *w, qb_str *out) {
    for (size_t i = 0; i < w->n_planned; i += 4) {
        unsigned digit = 0;
        for (size_t j = i; j < i + 4 && j < w->n_planned; j++)
            digit |= (unsigned)atomic_load(&w->planned[j].put) << (j - i);
        qb_str_printf(out, "%x", digit);
    }
    return qb_str_status(out);
}

/* False when the text is not one digit for every four tensors. */
static bool set_marks(qb_writer *w, const char *marks) {
    if (!marks || strlen(marks) != (w->n_planned + 3) / 4 ||
        strspn(marks, "0123456789abcdef") != strlen(marks))
        return false;
    for (size_t i = 0; i < w->n_planned; i++) {
        char c = marks[i / 4];
        int digit = c <= '9' ? c - '0' : c - 'a' + 10;
        atomic_store(&w->planned[i].put, digit >> (i % 4) & 1);
    }
    return true;
}

/* ---- saving ---- */

static qb_status sync_shards(const qb_writer *w) {
    for (size_t i = 0; i < w->n_shards; i++)
        if (fdatasync(w->shards[i].fd) != 0)
            return qb_fail(QB_ERR_IO, "cannot write %s/%s: %s", w->staging.path, w->shards[i].name,
                           strerror(errno));
    return QB_OK;
}

qb_status qb_writer_save(qb_writer *w, qb_json *state) {
    if (!w->journal || !w->begun) {
        qb_json_free(state);
        return w->journal ? qb_fail(QB_ERR_INTERNAL, "%s: saved before writing began", w->staging.target)
                          : QB_OK;
    }
    qb_str marks = {0};
    qb_json *j = qb_json_object();
    qb_json_put(j, "state", state);
    qb_json_free(w->journal->state); /* of the run before, which nobody reads any more */
    w->journal->state = NULL;
    char *path = qb_path_join(w->staging.outer.path, "progress.json"), *directory = NULL;
    qb_status st;
    QB_TRY(st, path ? QB_OK : no_memory());
    QB_TRY(st, qb_staging_identity(&w->staging, &directory));
    QB_TRY(st, sync_shards(w));
    QB_TRY(st, marks_of(w, &marks));
    qb_json_put_text(j, "schema", schema);
    qb_json_put_text(j, "fingerprint", w->journal->fingerprint);
    qb_json_put_text(j, "plan", w->journal->plan);
    qb_json_put_text(j, "directory", directory);
    qb_json_put_text(j, "put", qb_str_get(&marks));
    QB_TRY(st, qb_json_write_atomic(j, path));
    w->journal->saved = true;
out:
    qb_json_free(j);
    qb_str_free(&marks);
    qb_free(directory);
    qb_free(path);
    return st;
}

/* ---- taking over ---- */

static qb_status hash_plan(const qb_writer *w, const qb_str *headers, char hex[QB_SHA256_HEX]) {
    qb_hash *hash;
    qb_status st = qb_hash_begin(&hash);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < w->n_shards; i++) {
        qb_hash_add(hash, w->shards[i].name, strlen(w->shards[i].name) + 1);
        qb_hash_add(hash, headers[i].text, headers[i].length);
    }
    qb_hash_end(hash, hex);
    return QB_OK;
}

static qb_json *read_journal(const qb_writer *w) {
    qb_json *j = NULL;
    char *path = qb_path_join(w->staging.outer.path, "progress.json");
    bool there = false;
    qb_status st = path ? qb_path_look(path, &there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (there) st = qb_json_read(path, MAX_JOURNAL_BYTES, &j);
    if (st != QB_OK) {
        qb_warn("%s: starting anew", qb_error_text());
        qb_error_clear();
    }
    qb_free(path);
    return j;
}

static bool same_text(const qb_json *j, const char *key, const char *text) {
    const char *found = qb_json_string(qb_json_get(j, key));
    return found && !strcmp(found, text);
}

/* Whether the journal may speak of another directory than the one at hand. Without a target nothing was
   exchanged, and a copy of what is half made is as good. */
static qb_status is_exchanged(const qb_writer *w, const qb_json *j, bool *out) {
    char *directory = NULL;
    qb_status st = qb_staging_has_target(&w->staging, out);
    if (st == QB_OK && *out) st = qb_staging_identity(&w->staging, &directory);
    if (st == QB_OK && *out) *out = !same_text(j, "directory", directory);
    qb_free(directory);
    return st;
}

/* A shard of the expected length with the expected header; the header is compared through the plan's hash,
   and here by its length, so that a file that was exchanged for another is noticed. */
static bool open_shard(const qb_writer *w, qb_out_shard *s, const qb_str *header) {
    char *path = qb_path_join(w->staging.path, s->name);
    struct stat info;
    uint64_t length = 0;
    s->data_begin = 8 + (int64_t)header->length;
    s->fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    qb_free(path);
    if (s->fd >= 0 && fstat(s->fd, &info) == 0 && S_ISREG(info.st_mode) &&
        info.st_size == s->data_begin + s->data_bytes && pread(s->fd, &length, 8, 0) == 8 &&
        length == header->length)
        return true;
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
    return false;
}

static bool is_shard(const qb_writer *w, const char *name) {
    for (size_t i = 0; i < w->n_shards; i++)
        if (!strcmp(w->shards[i].name, name)) return true;
    return false;
}

/* What lies beside the shards is written again; a file that was being written when the process died would
 * otherwise be published with the rest. */
static qb_status remove_others(const qb_writer *w) {
    qb_status st = QB_OK;
    DIR *dir = opendir(w->staging.path);
    if (!dir) return qb_fail(QB_ERR_IO, "cannot list %s: %s", w->staging.path, strerror(errno));
    for (struct dirent *e; st == QB_OK && (e = qb_dir_next(dir, w->staging.path, &st));) {
        if (is_shard(w, e->d_name)) continue;
        char *path = qb_path_join(w->staging.path, e->d_name);
        st = path ? qb_remove_tree(path) : no_memory();
        qb_free(path);
    }
    closedir(dir);
    return st;
}

static bool take(qb_writer *w, qb_json *j, const qb_str *headers) {
    bool whole = true;
    for (size_t i = 0; whole && i < w->n_shards; i++) whole = open_shard(w, &w->shards[i], &headers[i]);
    if (whole && set_marks(w, qb_json_string(qb_json_get(j, "put"))) &&
        qb_json_is_object(qb_json_get(j, "state"))) {
        w->journal->state = qb_json_take(j, "state");
        return w->journal->saved = true;
    }
    for (size_t i = 0; i < w->n_shards; i++) {
        if (w->shards[i].fd >= 0) close(w->shards[i].fd);
        w->shards[i].fd = -1;
    }
    for (size_t i = 0; i < w->n_planned; i++) atomic_store(&w->planned[i].put, false);
    return false;
}

qb_status qb_writer_take_over(qb_writer *w, const qb_str *headers, bool *taken) {
    *taken = false;
    qb_status st = hash_plan(w, headers, w->journal->plan);
    if (st != QB_OK) return st;
    qb_json *j = read_journal(w);
    bool same = j && same_text(j, "schema", schema) && same_text(j, "fingerprint", w->journal->fingerprint) &&
                same_text(j, "plan", w->journal->plan);
    if (j && w->journal->resume && !same)
        qb_warn("%s was begun with another model, other options, other data or another program: starting "
                "anew",
                w->staging.outer.path);
    bool exchanged = false;
    if (same && w->journal->resume) st = is_exchanged(w, j, &exchanged);
    if (exchanged) {
        qb_warn("%s holds what was at %s before, which an interrupted run had written already: starting anew",
                w->staging.outer.path, w->staging.target);
    } else if (st == QB_OK && same && w->journal->resume) {
        *taken = take(w, j, headers);
        if (!*taken) qb_warn("%s is damaged: starting anew", w->staging.outer.path);
    }
    qb_json_free(j);
    if (st != QB_OK) return st;
    return *taken ? remove_others(w) : qb_staging_clear(&w->staging);
}
