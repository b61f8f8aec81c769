#include "quant/stream.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    char magic[8];
    int64_t blocks, tokens, hidden;
    char sha256[96]; /* of the values, as text */
} header;

static const char magic[8] = "qbstrm1";
enum { CHUNK = 4 << 20 }; /* values */

static int64_t value_count(const qb_calibration *c) {
    return c->memory.tokens * c->m->config.hidden;
}

static qb_status fail_write(const char *path) {
    return qb_fail(QB_ERR_IO, "cannot write %s: %s", path, strerror(errno));
}

static qb_status write_values(const qb_calibration *c, FILE *f, const char *path, header *h) {
    const qb_backend *be = c->m->dev->backend;
    int64_t n = value_count(c);
    float *values = NULL;
    qb_hash *hash = NULL;
    char hex[QB_SHA256_HEX];
    qb_status st;
    QB_TRY(st, qb_alloc(CHUNK, sizeof *values, &values));
    QB_TRY(st, qb_hash_begin(&hash));
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        st = be->download(c->m->dev, values, c->x + at, part * (int64_t)sizeof *values);
        if (st == QB_OK && fwrite(values, sizeof *values, (size_t)part, f) != (size_t)part)
            st = fail_write(path);
        if (st != QB_OK) break;
        qb_hash_add(hash, values, (size_t)part * sizeof *values);
    }
    qb_hash_end(hash, hex);
    memcpy(h->sha256, hex, sizeof hex);
out:
    qb_free(values);
    return st;
}

/* The header goes last into its place at the front: without it the file is not taken for a stream. */
static qb_status write_all(const qb_calibration *c, FILE *f, const char *path, int64_t blocks) {
    header h = {.blocks = blocks, .tokens = c->memory.tokens, .hidden = c->m->config.hidden};
    if (fwrite(&h, sizeof h, 1, f) != 1) return fail_write(path);
    qb_status st = write_values(c, f, path, &h);
    if (st != QB_OK) return st;
    memcpy(h.magic, magic, sizeof magic);
    if (fseek(f, 0, SEEK_SET) != 0 || fwrite(&h, sizeof h, 1, f) != 1 || fflush(f) != 0 ||
        fsync(fileno(f)) != 0)
        return fail_write(path);
    return QB_OK;
}

qb_status qb_stream_save(const qb_calibration *c, const char *path, int64_t blocks) {
    qb_str fresh = {0};
    qb_str_printf(&fresh, "%s.new", path);
    qb_status st = qb_str_status(&fresh);
    if (st != QB_OK) return st;
    FILE *f = fopen(fresh.text, "wb");
    if (!f) {
        st = fail_write(fresh.text);
    } else {
        st = write_all(c, f, fresh.text, blocks);
        if (fclose(f) != 0 && st == QB_OK) st = fail_write(fresh.text);
    }
    if (st == QB_OK && rename(fresh.text, path) != 0) st = fail_write(path);
    if (st != QB_OK) unlink(fresh.text);
    qb_str_free(&fresh);
    return st;
}

static bool is_whole(const qb_calibration *c, const qb_map *map, int64_t limit, header *h) {
    char hex[QB_SHA256_HEX];
    size_t bytes = (size_t)value_count(c) * sizeof(float);
    if (map->size != sizeof *h + bytes) return false;
    memcpy(h, map->bytes, sizeof *h);
    return !memcmp(h->magic, magic, sizeof magic) && h->tokens == c->memory.tokens &&
           h->hidden == c->m->config.hidden && h->blocks > 0 && h->blocks <= limit &&
           qb_hash_bytes(map->bytes + sizeof *h, bytes, hex) == QB_OK && !memcmp(h->sha256, hex, sizeof hex);
}

qb_status qb_stream_restore(qb_calibration *c, const char *path, int64_t limit, int64_t *blocks) {
    qb_map map;
    header h;
    *blocks = 0;
    bool there;
    qb_status st = qb_path_look(path, &there);
    if (st != QB_OK || !there) return st;
    if ((st = qb_map_open(path, &map)) != QB_OK) return st;
    if (is_whole(c, &map, limit, &h)) {
        st = c->m->dev->backend->upload(c->m->dev, c->x, map.bytes + sizeof h,
                                        value_count(c) * (int64_t)sizeof(float));
        if (st == QB_OK) *blocks = h.blocks;
    } else {
        qb_warn("%s is not whole: the tokens are forwarded from the first block", path);
    }
    qb_map_close(&map);
    return st;
}
