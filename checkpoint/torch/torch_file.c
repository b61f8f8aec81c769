#include "checkpoint/torch/torch_file.h"

#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <zip.h>

struct qb_torch_file {
    qb_arena arena;
    const uint8_t *bytes;
    size_t size;
    const char *name;
    zip_t *zip; /* NULL: the older form */
    pthread_mutex_t lock;
    qb_torch_entry *entries;
    size_t count, capacity;
};

/* ---- the archive ---- */

static qb_status zip_problem(const qb_torch_file *f, const char *what, const char *why) {
    return qb_fail(QB_ERR_FORMAT, "%s: %s: %s; the file is damaged or incomplete", f->name, what, why);
}

/* A member that lies in the file as it is: its size can be believed. */
static qb_status stat_stored(const qb_torch_file *f, zip_uint64_t member, zip_stat_t *s) {
    const zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if (zip_stat_index(f->zip, member, 0, s) != 0 || (s->valid & needed) != needed)
        return zip_problem(f, "a member of the archive", zip_strerror(f->zip));
    if (s->comp_method != ZIP_CM_STORE || (s->valid & ZIP_STAT_ENCRYPTION_METHOD && s->encryption_method))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: %.200s is compressed or encrypted, which torch.save never does", f->name,
                       s->name);
    if (s->comp_size != s->size || s->size > f->size)
        return zip_problem(f, s->name, "its sizes contradict each other");
    return QB_OK;
}

/* Members do not overlap: the sizes in the directory together fit the file, or a small file could stand for
   as many bytes as it likes. Nothing is decompressed (stat_stored). */
static qb_status check_sum_of_sizes(const qb_torch_file *f) {
    zip_int64_t n = zip_get_num_entries(f->zip, 0);
    zip_uint64_t left = f->size;
    for (zip_int64_t i = 0; i < n; i++) {
        zip_stat_t s;
        if (zip_stat_index(f->zip, (zip_uint64_t)i, 0, &s) != 0 || !(s.valid & ZIP_STAT_COMP_SIZE)) continue;
        if (s.comp_size > left)
            return qb_fail(
                QB_ERR_FORMAT,
                "%s: the sizes of its zip members (at %.200s) add up to more than the %zu bytes of "
                "the file; it is damaged, or made to fill memory",
                f->name, s.valid & ZIP_STAT_NAME ? s.name : "a member", f->size);
        left -= s.comp_size;
    }
    return QB_OK;
}

static qb_status open_zip(qb_torch_file *f) {
    zip_error_t why;
    zip_error_init(&why);
    zip_source_t *source = zip_source_buffer_create(f->bytes, f->size, 0, &why);
    if (source) f->zip = zip_open_from_source(source, ZIP_RDONLY, &why);
    qb_status st = f->zip ? QB_OK : zip_problem(f, "no zip archive", zip_error_strerror(&why));
    if (!f->zip && source) zip_source_free(source);
    zip_error_fini(&why);
    return st == QB_OK ? check_sum_of_sizes(f) : st;
}

/* n bytes from `offset` of a stored member. */
static qb_status read_member(const qb_torch_file *f, zip_uint64_t member, int64_t offset, int64_t n,
                             void *out) {
    zip_file_t *in = zip_fopen_index(f->zip, member, 0);
    const char *name = zip_get_name(f->zip, member, 0);
    if (!in) return zip_problem(f, name ? name : "a member", zip_strerror(f->zip));
    qb_status st = QB_OK;
    if (offset && zip_fseek(in, offset, SEEK_SET) != 0)
        st = zip_problem(f, name ? name : "a member", zip_file_strerror(in));
    for (int64_t done = 0; st == QB_OK && done < n;) {
        zip_int64_t got = zip_fread(in, (uint8_t *)out + done, (zip_uint64_t)(n - done));
        if (got <= 0)
            st = zip_problem(f, name ? name : "a member", got < 0 ? zip_file_strerror(in) : "it ends early");
        done += got;
    }
    /* The checksum is compared where a read meets the end. */
    uint8_t beyond;
    if (st == QB_OK && zip_fread(in, &beyond, 1) < 0)
        st = zip_problem(f, name ? name : "a member", zip_file_strerror(in));
    zip_fclose(in);
    return st;
}

/* The one member PREFIX/data.pkl; PREFIX is the name that the file once had. */
static qb_status find_pickle(const qb_torch_file *f, zip_uint64_t *member, char prefix[256]) {
    static const char end[] = "/data.pkl";
    zip_int64_t n = zip_get_num_entries(f->zip, 0);
    int found = 0;
    for (zip_int64_t i = 0; i < n; i++) {
        const char *name = zip_get_name(f->zip, (zip_uint64_t)i, 0);
        size_t length = name ? strlen(name) : 0;
        if (length < sizeof end - 1 || strcmp(name + length - (sizeof end - 1), end) != 0) continue;
        if (length - (sizeof end - 1) >= 200) continue;
        snprintf(prefix, 256, "%.*s", (int)(length - (sizeof end - 1)), name);
        *member = (zip_uint64_t)i;
        found++;
    }
    if (found == 1) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: a zip archive with %d members data.pkl: expected one, as torch.save writes", f->name,
                   found);
}

static qb_status check_byte_order(const qb_torch_file *f, const char *prefix) {
    char name[300], text[16] = "";
    zip_stat_t s;
    snprintf(name, sizeof name, "%s/byteorder", prefix);
    zip_int64_t member = zip_name_locate(f->zip, name, 0);
    if (member < 0) return QB_OK; /* older files have none, and were written on little-endian machines */
    qb_status st = stat_stored(f, (zip_uint64_t)member, &s);
    if (st == QB_OK && s.size < sizeof text)
        st = read_member(f, (zip_uint64_t)member, 0, (int64_t)s.size, text);
    if (st == QB_OK && strcmp(text, "little") != 0)
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: byte order \"%s\" is not supported (supported: little)",
                     f->name, text);
    return st;
}

static int64_t storage_bytes(const qb_torch_storage *s) {
    return s->n_elements * (int64_t)qb_dtype_bytes(s->dtype);
}

static qb_status locate_member(const qb_torch_file *f, const char *prefix, qb_torch_entry *e) {
    const qb_torch_storage *storage = e->tensor->storage;
    char name[600];
    zip_stat_t s;
    int length = snprintf(name, sizeof name, "%s/data/%s", prefix, storage->key);
    e->member = length > 0 && length < (int)sizeof name ? zip_name_locate(f->zip, name, 0) : -1;
    if (e->member < 0)
        return qb_fail(QB_ERR_FORMAT, "%s: the bytes of tensor %.200s (member %.100s) are missing", f->name,
                       e->name, name);
    qb_status st = stat_stored(f, (zip_uint64_t)e->member, &s);
    if (st == QB_OK && s.size != (zip_uint64_t)storage_bytes(storage))
        st = qb_fail(QB_ERR_FORMAT,
                     "%s: tensor %.200s: its storage takes %" PRId64 " bytes, member %.100s holds %" PRIu64,
                     f->name, e->name, storage_bytes(storage), name, s.size);
    return st;
}

/* ---- the dictionary ---- */

static qb_status add_entry(qb_torch_file *f, const char *name, const qb_torch_tensor *tensor) {
    if (!qb_tensor_name_ok(name))
        return qb_fail(QB_ERR_FORMAT, "%s: a tensor's name is empty or has control characters", f->name);
    qb_status st = qb_grow(&f->entries, &f->capacity, f->count + 1, sizeof *f->entries);
    if (st == QB_OK) f->entries[f->count++] = (qb_torch_entry){.name = name, .tensor = tensor};
    return st;
}

static qb_status add_tensors(qb_torch_file *f, const qb_pickle_value *dict) {
    qb_status st = QB_OK;
    for (size_t i = 0; dict && dict->kind == QB_PICKLE_DICT && st == QB_OK && i + 1 < dict->count; i += 2) {
        const qb_pickle_value *key = dict->items[i], *value = dict->items[i + 1];
        if (key->kind == QB_PICKLE_TEXT && value->kind == QB_PICKLE_TENSOR)
            st = add_entry(f, key->text, value->tensor);
    }
    return st;
}

static qb_status list_tensors(qb_torch_file *f, const qb_pickle_value *top) {
    static const char *const wrappers[] = {"state_dict", "model", "module"};
    if (top->kind != QB_PICKLE_DICT)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s holds no dictionary of tensors (torch.save(model.state_dict(), ..) makes one)",
                       f->name);
    qb_status st = add_tensors(f, top);
    for (size_t i = 0; st == QB_OK && f->count == 0 && i < sizeof wrappers / sizeof wrappers[0]; i++)
        st = add_tensors(f, qb_pickle_get(top, wrappers[i]));
    return st;
}

static qb_status read_archive(qb_torch_file *f) {
    zip_uint64_t member = 0;
    zip_stat_t s;
    char prefix[256];
    uint8_t *pickle;
    const qb_pickle_value *top;
    size_t used;
    qb_status st;
    QB_TRY(st, open_zip(f));
    QB_TRY(st, find_pickle(f, &member, prefix));
    QB_TRY(st, check_byte_order(f, prefix));
    QB_TRY(st, stat_stored(f, member, &s));
    if (s.size > QB_PICKLE_MAX_BYTES)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: data.pkl takes %" PRIu64 " bytes (at most %d)", f->name,
                       s.size, QB_PICKLE_MAX_BYTES);
    QB_TRY(st, qb_arena_alloc(&f->arena, s.size, 1, &pickle));
    QB_TRY(st, read_member(f, member, 0, (int64_t)s.size, pickle));
    QB_TRY(st, qb_pickle_read(pickle, s.size, f->name, &f->arena, &used, &top));
    QB_TRY(st, list_tensors(f, top));
    for (size_t i = 0; i < f->count; i++) QB_TRY(st, locate_member(f, prefix, &f->entries[i]));
out:
    return st;
}

/* ---- the older form ---- */

/* Four pickles (a magic number, a version, facts of the machine, the dictionary), the list of storages as a
   fifth, then each storage: its number of elements in 8 bytes, and they. */
static const uint8_t magic[] = {0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                                0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
enum { OLD_VERSION = 1001 };

static qb_status next_pickle(qb_torch_file *f, size_t *at, const qb_pickle_value **out) {
    size_t used = 0;
    qb_status st = qb_pickle_read(f->bytes + *at, f->size - *at, f->name, &f->arena, &used, out);
    *at += used;
    return st;
}

static qb_status check_old_header(qb_torch_file *f, size_t *at) {
    const qb_pickle_value *version, *facts, *little;
    qb_status st;
    *at = sizeof magic;
    QB_TRY(st, next_pickle(f, at, &version));
    QB_TRY(st, next_pickle(f, at, &facts));
    little = qb_pickle_get(facts, "little_endian");
    if (version->kind != QB_PICKLE_INT || version->integer != OLD_VERSION || !little ||
        little->kind != QB_PICKLE_BOOL)
        return qb_fail(QB_ERR_FORMAT, "%s: not a file of torch.save: expected version %d and its facts",
                       f->name, OLD_VERSION);
    if (!little->integer)
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: byte order big is not supported (supported: little)", f->name);
out:
    return st;
}

/* Storage `key` at `at`: checks it against what the dictionary says of it and passes over it. */
static qb_status pass_storage(const qb_torch_file *f, const qb_torch_storage *s, size_t *at, int64_t *begin) {
    int64_t n, bytes = storage_bytes(s);
    if (f->size - *at < 8) return zip_problem(f, "a storage", "the file ends before it");
    memcpy(&n, f->bytes + *at, 8);
    *at += 8;
    if (n != s->n_elements && !(s->untyped && n == bytes))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: storage %.40s: the dictionary says %" PRId64 " elements, the data %" PRId64,
                       f->name, s->key, s->n_elements, n);
    if ((uint64_t)bytes > f->size - *at)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: storage %.40s takes %" PRId64
                       " bytes, %zu are left in the file; it is incomplete",
                       f->name, s->key, bytes, f->size - *at);
    *begin = (int64_t)*at;
    *at += (size_t)bytes;
    return QB_OK;
}

/* For each key of the list the first tensor that uses it; a storage that no listed tensor uses cannot be
   passed over, as its size is not known. */
static qb_status locate_storages(qb_torch_file *f, const qb_pickle_value *keys, size_t at, qb_names *first,
                                 int64_t *begins) {
    qb_status st = QB_OK;
    uint32_t position;
    for (size_t i = 0; st == QB_OK && i < keys->count; i++) {
        const qb_pickle_value *key = keys->items[i];
        if (key->kind != QB_PICKLE_TEXT || !qb_names_find(first, key->text, &position))
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: a storage belongs to no tensor of the dictionary",
                           f->name);
        st = pass_storage(f, f->entries[position].tensor->storage, &at, &begins[position]);
    }
    return st;
}

static qb_status place_tensors(qb_torch_file *f, const qb_names *first, const int64_t *begins) {
    for (size_t i = 0; i < f->count; i++) {
        qb_torch_entry *e = &f->entries[i];
        uint32_t position;
        const qb_torch_storage *s = e->tensor->storage;
        bool found = qb_names_find(first, s->key, &position) && begins[position] > 0;
        if (!found || storage_bytes(s) != storage_bytes(f->entries[position].tensor->storage))
            return qb_fail(QB_ERR_FORMAT, "%s: the bytes of tensor %.200s are missing", f->name, e->name);
        e->member = begins[position];
        if (!e->tensor->transposed) e->mapped = f->bytes + e->member + e->tensor->offset_bytes;
    }
    return QB_OK;
}

static qb_status read_old(qb_torch_file *f) {
    size_t at = 0;
    const qb_pickle_value *top, *keys;
    qb_names first = {0};
    int64_t *begins = NULL;
    qb_status st;
    QB_TRY(st, check_old_header(f, &at));
    QB_TRY(st, next_pickle(f, &at, &top));
    QB_TRY(st, next_pickle(f, &at, &keys));
    if (keys->kind != QB_PICKLE_LIST) {
        st = qb_fail(QB_ERR_FORMAT, "%s: damaged pickle: the list of storages is missing", f->name);
        goto out;
    }
    QB_TRY(st, list_tensors(f, top));
    QB_TRY(st, qb_alloc_zero(f->count, sizeof *begins, &begins));
    for (size_t i = 0; i < f->count; i++) {
        uint32_t position;
        QB_TRY(st, qb_names_add(&first, f->entries[i].tensor->storage->key, (uint32_t)i, &position));
    }
    QB_TRY(st, locate_storages(f, keys, at, &first, begins));
    QB_TRY(st, place_tensors(f, &first, begins));
out:
    qb_names_free(&first);
    qb_free(begins);
    return st;
}

/* ---- open, read, close ---- */

qb_status qb_torch_file_open(const uint8_t *bytes, size_t size, const char *file, qb_torch_file **out) {
    qb_torch_file *f;
    *out = NULL;
    qb_status st = qb_alloc_zero(1, sizeof *f, &f);
    if (st != QB_OK) return st;
    pthread_mutex_init(&f->lock, NULL);
    f->bytes = bytes;
    f->size = size;
    QB_TRY(st, qb_arena_strdup(&f->arena, file, &f->name));
    if (size >= 4 && !memcmp(bytes, "PK\3\4", 4))
        st = read_archive(f);
    else if (size > sizeof magic && !memcmp(bytes, magic, sizeof magic))
        st = read_old(f);
    else
        st = qb_fail(QB_ERR_FORMAT,
                     "%s is no file of torch.save: neither a zip archive nor the form before PyTorch 1.6",
                     file);
out:
    if (st != QB_OK)
        qb_torch_file_close(f);
    else
        *out = f;
    return st;
}

void qb_torch_file_close(qb_torch_file *f) {
    if (!f) return;
    if (f->zip) zip_discard(f->zip);
    pthread_mutex_destroy(&f->lock);
    qb_free(f->entries);
    qb_arena_free(&f->arena);
    qb_free(f);
}

size_t qb_torch_file_count(const qb_torch_file *f) {
    return f->count;
}
const qb_torch_entry *qb_torch_file_at(const qb_torch_file *f, size_t index) {
    return &f->entries[index];
}

/* in [cols, rows] to out [rows, cols], elements of `width` bytes. */
static void transpose(const uint8_t *in, int64_t rows, int64_t cols, size_t width, uint8_t *out) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            memcpy(out + (size_t)(r * cols + c) * width, in + (size_t)(c * rows + r) * width, width);
}

static qb_status read_bytes(qb_torch_file *f, const qb_torch_entry *e, void *out) {
    if (!f->zip) {
        memcpy(out, f->bytes + e->member + e->tensor->offset_bytes, (size_t)e->tensor->bytes);
        return QB_OK;
    }
    pthread_mutex_lock(&f->lock);
    qb_status st = read_member(f, (zip_uint64_t)e->member, e->tensor->offset_bytes, e->tensor->bytes, out);
    pthread_mutex_unlock(&f->lock);
    return st;
}

qb_status qb_torch_file_read(qb_torch_file *f, const qb_torch_entry *e, void *out) {
    const qb_torch_tensor *t = e->tensor;
    if (t->bytes == 0) return QB_OK;
    if (!t->transposed) return read_bytes(f, e, out);
    uint8_t *swapped;
    qb_status st = qb_alloc((size_t)t->bytes, 1, &swapped);
    if (st == QB_OK) st = read_bytes(f, e, swapped);
    if (st == QB_OK) transpose(swapped, t->shape[0], t->shape[1], qb_dtype_bytes(t->dtype), out);
    qb_free(swapped);
    return st;
}
