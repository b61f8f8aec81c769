#define _GNU_SOURCE /* sync_file_range */
#include "checkpoint/writer.h"

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/writing/writer_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MAX_COMPANION_BYTES = 256 << 20 };

/* ---- create ---- */

static qb_status no_memory(void) {
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

static void free_writer(qb_writer *w) {
    for (size_t i = 0; i < w->n_shards; i++)
        if (w->shards[i].fd >= 0) close(w->shards[i].fd);
    qb_staging_close(&w->staging);
    qb_writer_journal_free(w->journal);
    qb_free(w->shards);
    qb_free(w->planned);
    qb_names_free(&w->names);
    qb_arena_free(&w->arena);
    qb_free(w);
}

qb_status qb_writer_create_in(qb_staging *staging, int64_t shard_bytes, qb_writer **out) {
    *out = NULL;
    qb_writer *w = NULL;
    qb_status st = QB_OK;
    if (shard_bytes < 0) st = qb_fail(QB_ERR_USAGE, "shard size %" PRId64 " is negative", shard_bytes);
    if (st == QB_OK) st = qb_alloc_zero(1, sizeof *w, &w);
    if (st != QB_OK) {
        qb_staging_discard(staging);
        qb_staging_close(staging);
        return st;
    }
    w->shard_bytes = shard_bytes ? shard_bytes : 5000000000;
    w->staging = *staging;
    *out = w;
    return QB_OK;
}

qb_status qb_writer_create(const char *dir, bool replace, int64_t shard_bytes, qb_writer **out) {
    qb_staging staging;
    qb_status st = qb_staging_open(dir, replace, &staging);
    if (st == QB_OK) return qb_writer_create_in(&staging, shard_bytes, out);
    qb_staging_close(&staging);
    *out = NULL;
    return st;
}

void qb_writer_abort(qb_writer *w) {
    if (!w) return;
    qb_staging_discard(&w->staging);
    free_writer(w);
}

void qb_writer_keep(qb_writer *w) {
    if (w && w->journal && w->journal->saved)
        free_writer(w);
    else
        qb_writer_abort(w);
}

const char *qb_writer_path(const qb_writer *w) {
    return w->staging.path;
}

int64_t qb_writer_bytes(const qb_writer *w) {
    return w->total_bytes;
}

int64_t qb_writer_planned_bytes(const qb_writer *w, const char *name) {
    uint32_t position;
    return qb_names_find(&w->names, name, &position) ? w->planned[position].bytes : -1;
}

/* ---- plan ---- */

/* Names are written into JSON as they are. */
static bool name_ok(const char *name) {
    return qb_tensor_name_ok(name) && !strpbrk(name, "\"\\");
}

qb_status qb_writer_plan(qb_writer *w, const char *name, qb_dtype dtype, int n_dims, const int64_t *shape) {
    qb_planned p = {.dtype = dtype, .n_dims = n_dims};
    char text[128];
    uint32_t position;
    if (w->begun) return qb_fail(QB_ERR_INTERNAL, "tensor %.200s is planned after writing began", name);
    if (!name_ok(name))
        return qb_fail(QB_ERR_FORMAT, "a tensor name is empty or holds control characters, quotes or \\");
    if (n_dims < 0 || n_dims > QB_MAX_DIMS)
        return qb_fail(QB_ERR_UNSUPPORTED, "tensor %.200s: %d dimensions, at most %d can be written", name,
                       n_dims, QB_MAX_DIMS);
    if (!qb_shape_bytes(n_dims, shape, (unsigned)(8 * qb_dtype_bytes(dtype)), &p.bytes) ||
        __builtin_add_overflow(w->total_bytes, p.bytes, &w->total_bytes))
        return qb_fail(QB_ERR_FORMAT, "tensor %.200s: the size of %s overflows", name,
                       qb_shape_text(n_dims, shape, text));
    for (int d = 0; d < n_dims; d++) p.shape[d] = shape[d];
    qb_status st = qb_arena_strdup(&w->arena, name, &p.name);
    if (st == QB_OK) st = qb_grow(&w->planned, &w->capacity, w->n_planned + 1, sizeof *w->planned);
    if (st == QB_OK) st = qb_names_add(&w->names, p.name, (uint32_t)w->n_planned, &position);
    if (st != QB_OK) return st;
    if (position != w->n_planned) return qb_fail(QB_ERR_FORMAT, "tensor %.200s is planned twice", name);
    w->planned[w->n_planned++] = p;
    return QB_OK;
}

/* ---- begin: shards, headers, space ---- */

/* In planned order, a new shard where the next tensor would overflow this one. */
static qb_status assign_shards(qb_writer *w) {
    size_t n = 1;
    int64_t used = 0;
    for (size_t i = 0; i < w->n_planned; i++) {
        if (used > 0 && used + w->planned[i].bytes > w->shard_bytes) {
            n++;
            used = 0;
        }
        used += w->planned[i].bytes;
        w->planned[i].shard = (uint32_t)(n - 1);
    }
    qb_status st = qb_alloc_zero(n, sizeof *w->shards, &w->shards);
    if (st != QB_OK) return st;
    w->n_shards = n;
    for (size_t i = 0; i < n; i++) {
        qb_out_shard *s = &w->shards[i];
        s->fd = -1;
        if (n == 1)
            snprintf(s->name, sizeof s->name, "model.safetensors");
        else
            snprintf(s->name, sizeof s->name, "model-%05zu-of-%05zu.safetensors", i + 1, n);
    }
    return QB_OK;
}

/* Wider elements go first, as the reference writer orders them: each tensor is then aligned for its dtype,
   which PyTorch's reader needs. Otherwise the planned order stays. */
static void assign_offsets(qb_writer *w) {
    for (size_t width = 8; width >= 1; width /= 2)
        for (size_t i = 0; i < w->n_planned; i++) {
            qb_planned *p = &w->planned[i];
            if (qb_dtype_bytes(p->dtype) != width) continue;
            p->offset = w->shards[p->shard].data_bytes;
            w->shards[p->shard].data_bytes += p->bytes;
        }
}

static void header_entry(const qb_planned *p, qb_str *out) {
    qb_str_printf(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", p->name, qb_dtype_name(p->dtype));
    for (int d = 0; d < p->n_dims; d++) qb_str_printf(out, d ? ",%" PRId64 : "%" PRId64, p->shape[d]);
    qb_str_printf(out, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", p->offset, p->offset + p->bytes);
}

/* The headers of all shards in one pass over the tensors. The blanks at the end align the data to 8 bytes. */
static qb_status build_headers(const qb_writer *w, qb_str *headers) {
    for (size_t i = 0; i < w->n_shards; i++)
        qb_str_text(&headers[i], "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t width = 8; width >= 1; width /= 2)
        for (size_t i = 0; i < w->n_planned; i++)
            if (qb_dtype_bytes(w->planned[i].dtype) == width)
                header_entry(&w->planned[i], &headers[w->planned[i].shard]);
    for (size_t i = 0; i < w->n_shards; i++) {
        qb_str_text(&headers[i], "}");
        while (headers[i].length % 8 != 0 && !headers[i].failed) qb_str_text(&headers[i], " ");
        qb_status st = qb_str_status(&headers[i]);
        if (st != QB_OK) return st;
        if (headers[i].length > QB_SAFETENSORS_MAX_HEADER)
            return qb_fail(QB_ERR_UNSUPPORTED,
                           "%s: a header of %zu bytes is above the format's limit of %d; use smaller shards",
                           w->shards[i].name, headers[i].length, QB_SAFETENSORS_MAX_HEADER);
    }
    return QB_OK;
}

static qb_status write_at(int fd, const void *bytes, size_t n, int64_t offset, const char *path) {
    const uint8_t *p = bytes;
    while (n > 0) {
        ssize_t wrote = pwrite(fd, p, n, (off_t)offset);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0)
            return qb_fail(QB_ERR_IO, "cannot write %s: %s", path, strerror(wrote < 0 ? errno : EIO));
        p += wrote;
        n -= (size_t)wrote;
        offset += wrote;
    }
    return QB_OK;
}

static qb_status fail_reserve(const qb_writer *w, int error) {
    struct statvfs info;
    char need[32], free_text[32] = "unknown";
    if (statvfs(w->staging.path, &info) == 0)
        qb_format_bytes((double)info.f_bavail * (double)info.f_frsize, free_text);
    return qb_fail(
        QB_ERR_IO, "cannot reserve %s for %s: %s (free now: %s); free space or choose another directory",
        qb_format_bytes((double)w->total_bytes, need), w->staging.target, strerror(error), free_text);
}

/* Reserves the blocks of a shard. Filesystems without reservation get the file's length only. */
static qb_status reserve(const qb_writer *w, int fd, int64_t bytes) {
    int error = posix_fallocate(fd, 0, (off_t)bytes);
    if (error == EINVAL || error == EOPNOTSUPP || error == ENOSYS)
        error = ftruncate(fd, (off_t)bytes) == 0 ? 0 : errno;
    return error == 0 ? QB_OK : fail_reserve(w, error);
}

static qb_status begin_shard(qb_writer *w, qb_out_shard *s, const qb_str *header) {
    char *path = qb_path_join(w->staging.path, s->name);
    if (!path) return no_memory();
    uint64_t length = header->length;
    qb_status st = QB_OK;
    s->data_begin = 8 + (int64_t)header->length;
    s->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s->fd < 0) st = qb_fail(QB_ERR_IO, "cannot create %s: %s", path, strerror(errno));
    if (st == QB_OK) st = reserve(w, s->fd, s->data_begin + s->data_bytes);
    if (st == QB_OK) st = write_at(s->fd, &length, 8, 0, path);
    if (st == QB_OK) st = write_at(s->fd, header->text, header->length, 8, path);
    qb_free(path);
    return st;
}

qb_status qb_writer_write_index(const qb_writer *w) {
    qb_str text = {0};
    char *path = qb_path_join(w->staging.path, "model.safetensors.index.json");
    qb_str_printf(&text, "{\n  \"metadata\": {\n    \"total_size\": %" PRId64 "\n  },\n  \"weight_map\": {",
                  w->total_bytes);
    for (size_t i = 0; i < w->n_planned; i++)
        qb_str_printf(&text, "%s\n    \"%s\": \"%s\"", i ? "," : "", w->planned[i].name,
                      w->shards[w->planned[i].shard].name);
    qb_str_text(&text, "\n  }\n}\n");
    qb_status st = path ? qb_str_status(&text) : no_memory();
    if (st == QB_OK) st = qb_file_write_atomic(path, text.text, text.length);
    qb_free(path);
    qb_str_free(&text);
    return st;
}

qb_status qb_writer_begin(qb_writer *w) {
    qb_str *headers = NULL;
    bool taken = false;
    qb_status st;
    if (w->begun) return qb_fail(QB_ERR_INTERNAL, "%s: writing began already", w->staging.target);
    QB_TRY(st, assign_shards(w));
    assign_offsets(w);
    QB_TRY(st, qb_alloc_zero(w->n_shards, sizeof *headers, &headers));
    QB_TRY(st, build_headers(w, headers));
    if (w->journal) QB_TRY(st, qb_writer_take_over(w, headers, &taken));
    for (size_t i = 0; !taken && i < w->n_shards; i++) QB_TRY(st, begin_shard(w, &w->shards[i], &headers[i]));
    if (w->n_shards > 1) QB_TRY(st, qb_writer_write_index(w));
    w->begun = true;
out:
    for (size_t i = 0; headers && i < w->n_shards; i++) qb_str_free(&headers[i]);
    qb_free(headers);
    return st;
}

/* ---- put ---- */

void qb_writer_use_threads(qb_writer *w, qb_threads *threads) {
    w->threads = threads;
}

qb_threads *qb_writer_threads(const qb_writer *w) {
    return w->threads;
}

/* The disk works while the next tensor is packed; a hint, which some file systems do not take. */
static void begin_writeback(int fd, int64_t offset, int64_t bytes) {
    (void)sync_file_range(fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
}

qb_status qb_writer_put(qb_writer *w, const char *name, const void *data, int64_t bytes) {
    return qb_writer_put_passing(w, name, data, bytes, NULL, NULL);
}

qb_status qb_writer_put_passing(qb_writer *w, const char *name, const void *data, int64_t bytes,
                                qb_passed *passed, void *user) {
    enum { PART = 4 << 20 };
    uint32_t position;
    if (!w->begun) return qb_fail(QB_ERR_INTERNAL, "tensor %.200s is put before writing began", name);
    if (!qb_names_find(&w->names, name, &position))
        return qb_fail(QB_ERR_INTERNAL, "tensor %.200s was not planned", name);
    qb_planned *p = &w->planned[position];
    if (bytes != p->bytes)
        return qb_fail(QB_ERR_INTERNAL, "tensor %.200s: %" PRId64 " bytes were planned, %" PRId64 " are put",
                       name, p->bytes, bytes);
    if (atomic_exchange(&p->put, true)) return qb_fail(QB_ERR_INTERNAL, "tensor %.200s is put twice", name);
    const qb_out_shard *s = &w->shards[p->shard];
    qb_status st = QB_OK;
    for (int64_t at = 0; st == QB_OK && at < bytes; at += PART) {
        int64_t n = bytes - at < PART ? bytes - at : PART;
        st = write_at(s->fd, (const uint8_t *)data + at, (size_t)n, s->data_begin + p->offset + at, s->name);
        if (st == QB_OK && passed) passed(user, at, n);
    }
    if (st != QB_OK) atomic_store(&w->failed, true);
    if (st == QB_OK) begin_writeback(s->fd, s->data_begin + p->offset, bytes);
    return st != QB_OK ? qb_fail_prefix(st, "%s", w->staging.target) : st;
}

static bool plain_file_name(const char *name) {
    return name[0] && name[0] != '.' && !strchr(name, '/');
}

qb_status qb_writer_put_json(qb_writer *w, const char *file_name, const qb_json *json) {
    if (!plain_file_name(file_name))
        return qb_fail(QB_ERR_INTERNAL, "\"%s\" is not a plain file name", file_name);
    char *path = qb_path_join(w->staging.path, file_name);
    if (!path) return no_memory();
    qb_status st = qb_json_write_atomic(json, path);
    qb_free(path);
    return st;
}

qb_status qb_writer_put_text(qb_writer *w, const char *file_name, const char *text) {
    if (!plain_file_name(file_name))
        return qb_fail(QB_ERR_INTERNAL, "\"%s\" is not a plain file name", file_name);
    char *path = qb_path_join(w->staging.path, file_name);
    if (!path) return no_memory();
    qb_str clean = {0}; /* cards hold names out of files */
    qb_text_clean_lines(text, strlen(text), &clean);
    qb_status st = qb_str_status(&clean);
    if (st == QB_OK) st = qb_file_write_atomic(path, qb_str_get(&clean), clean.length);
    qb_str_free(&clean);
    qb_free(path);
    return st;
}

/* A link that a stranger's directory holds may point at anything of the user's. A link is followed to JSON
   under a JSON name, within the model's own folder, to the blobs of the hub's cache, or to a file of the same
   name. */
static qb_status may_follow(const char *dir, const char *from, const char *file_name, bool *ok) {
    struct stat info;
    *ok = true;
    if (lstat(from, &info) != 0)
        return errno == ENOENT ? QB_OK : qb_fail(QB_ERR_IO, "cannot look at %s: %s", from, strerror(errno));
    if (!S_ISLNK(info.st_mode)) return QB_OK; /* absent: reading says so */
    size_t n = strlen(file_name);
    if (n > 5 && !strcmp(file_name + n - 5, ".json")) {
        qb_json *json = NULL;
        qb_status st = qb_json_read(from, MAX_COMPANION_BYTES, &json);
        qb_json_free(json);
        *ok = st == QB_OK;
        if (st == QB_ERR_IO || st == QB_ERR_MEMORY) return st; /* unread is not read as something else */
        qb_error_clear();
        return QB_OK;
    }
    char *target = realpath(from, NULL), *home = target ? realpath(dir, NULL) : NULL, *hub = NULL;
    int error = errno;
    char *snapshots = home ? qb_path_dir(home) : NULL, *cache = snapshots ? qb_path_dir(snapshots) : NULL;
    if (cache) hub = qb_path_join(cache, "blobs/");
    *ok = target && home &&
          ((!strncmp(target, home, strlen(home)) && target[strlen(home)] == '/') ||
           (hub && !strcmp(qb_path_base(snapshots), "snapshots") && !strncmp(target, hub, strlen(hub))) ||
           !strcmp(qb_path_base(target), file_name));
    qb_status st = target && home ? QB_OK : qb_fail(QB_ERR_IO, "cannot follow %s: %s", from, strerror(error));
    if (st == QB_OK && !hub) st = no_memory();
    free(target);
    free(home);
    qb_free(snapshots);
    qb_free(cache);
    qb_free(hub);
    return st;
}

qb_status qb_writer_copy_file(qb_writer *w, const char *from_dir, const char *file_name) {
    if (!plain_file_name(file_name))
        return qb_fail(QB_ERR_INTERNAL, "\"%s\" is not a plain file name", file_name);
    char *from = qb_path_join(from_dir, file_name), *to = qb_path_join(w->staging.path, file_name);
    bool there = false, follow = false;
    qb_status st = from && to ? qb_path_look(from, &there) : no_memory();
    if (st == QB_OK && there) st = may_follow(from_dir, from, file_name, &follow);
    if (st == QB_OK && there && !follow)
        qb_warn("%s is a link to what does not look like it: not copied", from);
    else if (st == QB_OK && there)
        st = qb_copy_file(from, to);
    qb_free(from);
    qb_free(to);
    return st;
}

/* ---- finish ---- */

static qb_status check_complete(const qb_writer *w) {
    size_t missing = 0, first = 0;
    for (size_t i = 0; i < w->n_planned; i++)
        if (!atomic_load(&w->planned[i].put) && missing++ == 0) first = i;
    if (!w->begun) return qb_fail(QB_ERR_INTERNAL, "%s: finished before writing began", w->staging.target);
    if (missing)
        return qb_fail(QB_ERR_INTERNAL, "%s: %zu planned tensors were not put, first %.200s",
                       w->staging.target, missing, w->planned[first].name);
    if (atomic_load(&w->failed))
        return qb_fail(QB_ERR_IO, "%s: a tensor could not be written", w->staging.target);
    return QB_OK;
}

qb_status qb_writer_sweep(const char *dir) {
    return qb_staging_sweep(dir);
}

qb_status qb_writer_finish(qb_writer *w) {
    qb_status st;
    QB_TRY(st, check_complete(w));
    for (size_t i = 0; i < w->n_shards; i++) {
        int fd = w->shards[i].fd;
        w->shards[i].fd = -1;
        int synced = fsync(fd), error = errno;
        if (close(fd) != 0 && synced == 0) {
            synced = -1;
            error = errno;
        }
        if (synced != 0) {
            st = qb_fail(QB_ERR_IO, "cannot write %s/%s: %s", w->staging.target, w->shards[i].name,
                         strerror(error));
            goto out;
        }
    }
    QB_TRY(st, qb_staging_publish(&w->staging));
out:
    if (st != QB_OK)
        qb_writer_keep(w);
    else
        free_writer(w);
    return st;
}
