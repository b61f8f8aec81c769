/* Which files a GGUF model lies in: one, or the parts that llama.cpp's llama-gguf-split writes,
   NAME-00001-of-00003.gguf and so on, each a GGUF file with metadata split.no and split.count. */
#include "base/file.h"
#include "checkpoint/gguf/gguf_model.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TAIL_LENGTH = sizeof "-00001-of-00003.gguf" - 1 };

static bool is_gguf_name(const char *name) {
    size_t n = strlen(name);
    return n >= 5 && !strcmp(name + n - 5, ".gguf");
}

/* The numbers in a part's name; false for other names. */
static bool part_numbers(const char *path, int *part, int *parts) {
    size_t n = strlen(path);
    if (n <= TAIL_LENGTH || !is_gguf_name(path)) return false;
    const char *tail = path + n - TAIL_LENGTH;
    if (tail[0] != '-' || strspn(tail + 1, "0123456789") != 5 || strncmp(tail + 6, "-of-", 4) != 0 ||
        strspn(tail + 10, "0123456789") != 5)
        return false;
    return sscanf(tail, "-%5d-of-%5d", part, parts) == 2 && *part >= 1 && *part <= *parts;
}

/* The path of part `part` of the same model; NULL on exhaustion. */
static char *part_path(const char *path, int part) {
    char *copy = qb_strdup(path), digits[8];
    if (!copy) return NULL;
    snprintf(digits, sizeof digits, "%05d", part % 100000);
    memcpy(copy + strlen(copy) - TAIL_LENGTH + 1, digits, 5);
    return copy;
}

static qb_status first_part(const char *path, char **out) {
    int part, parts;
    *out = part_numbers(path, &part, &parts) && part > 1 ? part_path(path, 1) : qb_strdup(path);
    return *out ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

typedef struct {
    char found[256]; /* one model's name; of several, the first in order */
    int models, others;
} listing;

static qb_status list_directory(const char *path, listing *l) {
    DIR *dir = opendir(path);
    if (!dir) return qb_fail(QB_ERR_NOT_FOUND, "cannot list %s", path);
    *l = (listing){0};
    qb_status st = QB_OK;
    for (struct dirent *e; (e = qb_dir_next(dir, path, &st));) {
        static const char *const ends[] = {".safetensors", ".index.json", ".bin", ".pt", ".pth"};
        const char *name = e->d_name;
        size_t n = strlen(name);
        int part, parts;
        if (name[0] == '.') continue;
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
            l->others += n >= strlen(ends[i]) && !strcmp(name + n - strlen(ends[i]), ends[i]);
        if (!is_gguf_name(name) || (part_numbers(name, &part, &parts) && part > 1)) continue;
        if (!l->models++ || strcmp(name, l->found) < 0) snprintf(l->found, sizeof l->found, "%s", name);
    }
    closedir(dir);
    return st;
}

qb_status qb_checkpoint_find_gguf(const char *path, char **out) {
    listing l = {0};
    bool is_dir;
    *out = NULL;
    qb_status st = qb_path_look_dir(path, &is_dir);
    if (st != QB_OK) return st;
    if (!is_dir) return first_part(path, out);
    st = list_directory(path, &l);
    if (st != QB_OK || l.others || l.models == 0) return st;
    if (l.models > 1)
        return qb_fail(QB_ERR_USAGE, "%s holds %d GGUF models; give the path of one of them, such as %s/%s",
                       path, l.models, path, l.found);
    *out = qb_path_join(path, l.found);
    return *out ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

/* ---- reading ---- */

static qb_status read_part(qb_checkpoint *ck, const char *path, qb_gguf *out) {
    qb_status st = qb_checkpoint_add_shard(ck, path);
    if (st != QB_OK) return st;
    qb_shard *s = &ck->shards[ck->n_shards - 1];
    st = qb_map_open(s->path, &s->map);
    if (st == QB_OK) st = qb_checkpoint_check_magic(s->path, s->map.bytes, s->map.size);
    return st == QB_OK ? qb_gguf_parse(s->map.bytes, s->map.size, s->path, &ck->arena, out) : st;
}

/* Whether a file is part `part` of `parts`, by its own word. A whole file says nothing, or 0 parts. */
static qb_status check_part(const qb_gguf *g, int part, int parts) {
    int64_t no = 0, count = 1;
    qb_status st = qb_gguf_int(g, "split.no", false, 0, UINT16_MAX, &no);
    if (st == QB_OK) st = qb_gguf_int(g, "split.count", false, 0, UINT16_MAX, &count);
    if (st != QB_OK) return st;
    if (count == 0) count = 1;
    if (no == part - 1 && count == parts) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: says that it is part %" PRId64 " of %" PRId64
                   ", its name part %d of %d (parts are named NAME-00001-of-00002.gguf)",
                   g->file, no + 1, count, part, parts);
}

static qb_status add_part(qb_checkpoint *ck, const char *first, int part, int parts) {
    qb_gguf g = {0}, *to = ck->gguf;
    char *path = part_path(first, part);
    qb_status st = path ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = read_part(ck, path, &g);
    if (st != QB_OK) {
        st = qb_fail_prefix(st, "part %d of %d", part, parts);
        goto out;
    }
    QB_TRY(st, check_part(&g, part, parts));
    QB_TRY(st,
           qb_grow(&to->tensors, &to->tensors_capacity, to->n_tensors + g.n_tensors, sizeof *to->tensors));
    if (g.n_tensors) memcpy(to->tensors + to->n_tensors, g.tensors, g.n_tensors * sizeof *g.tensors);
    to->n_tensors += g.n_tensors;
out:
    qb_gguf_free(&g);
    qb_free(path);
    return st;
}

qb_status qb_gguf_read_parts(qb_checkpoint *ck, const char *path) {
    int part = 1, parts = 1;
    int64_t tensors;
    qb_status st;
    QB_TRY(st, qb_arena_alloc(&ck->arena, 1, sizeof *ck->gguf, &ck->gguf));
    QB_TRY(st, read_part(ck, path, ck->gguf));
    if (!part_numbers(path, &part, &parts)) part = parts = 1;
    QB_TRY(st, check_part(ck->gguf, part, parts));
    while (part < parts) QB_TRY(st, add_part(ck, path, ++part, parts));
    tensors = (int64_t)ck->gguf->n_tensors;
    QB_TRY(st, qb_gguf_int(ck->gguf, "split.tensors.count", false, 0, INT64_MAX, &tensors));
    if (tensors != (int64_t)ck->gguf->n_tensors)
        st = qb_fail(QB_ERR_FORMAT,
                     "%s: metadata split.tensors.count is %" PRId64 ", but the %d parts hold %zu tensors",
                     path, tensors, parts, ck->gguf->n_tensors);
out:
    return st;
}
