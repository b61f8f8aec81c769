#include "tokenizer/vocab.h"

#include <ctype.h>
#include <string.h>

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ (h >> 32);
}

static uint64_t hash_of(const char *text, size_t n) {
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++) h = qb_vocab_hash_add(h, (uint8_t)text[i]);
    return h;
}

static void insert(qb_vocab *v, int32_t id) {
    uint64_t h = mix(hash_of(v->pieces[id].text, v->pieces[id].length));
    uint32_t s = (uint32_t)h & v->mask;
    while (v->slots[s] >= 0) s = (s + 1) & v->mask;
    v->slots[s] = id;
    v->tags[s] = (uint32_t)(h >> 32);
}

/* Fresh slots for `pieces` pieces, with those that are there already in them. */
static qb_status make_slots(qb_vocab *v, size_t pieces) {
    size_t slots = 16, used = 0;
    while (slots < 2 * pieces) slots *= 2;
    int32_t *ids = NULL;
    uint32_t *tags = NULL;
    qb_status st = qb_alloc(slots, sizeof *ids, &ids);
    if (st == QB_OK) st = qb_alloc(slots, sizeof *tags, &tags);
    if (st != QB_OK) {
        qb_free(ids);
        return st;
    }
    qb_free(v->slots);
    qb_free(v->tags);
    memset(ids, 0xFF, slots * sizeof *ids);
    v->slots = ids;
    v->tags = tags;
    v->mask = (uint32_t)slots - 1;
    for (int32_t id = 0; id < v->count; id++)
        if (v->pieces[id].type != QB_PIECE_NONE) insert(v, id), used++;
    v->room = pieces - used;
    return QB_OK;
}

qb_status qb_vocab_create(qb_vocab *v, int32_t count, size_t pieces, size_t text_bytes) {
    v->texts_size = text_bytes;
    qb_status st = make_slots(v, pieces);
    if (st == QB_OK) st = qb_alloc(text_bytes, 1, &v->texts);
    return st == QB_OK ? qb_vocab_extend(v, count) : st;
}

void qb_vocab_free(qb_vocab *v) {
    if (!v) return;
    qb_free(v->pieces);
    qb_free(v->slots);
    qb_free(v->tags);
    qb_free(v->texts);
    qb_arena_free(&v->late);
    *v = (qb_vocab){0};
}

qb_status qb_vocab_extend(qb_vocab *v, int32_t count) {
    if (count <= v->count) return QB_OK;
    qb_status st = qb_grow(&v->pieces, &v->capacity, (size_t)count, sizeof *v->pieces);
    if (st != QB_OK) return st;
    memset(v->pieces + v->count, 0, (size_t)(count - v->count) * sizeof *v->pieces);
    v->count = count;
    return QB_OK;
}

int32_t qb_vocab_find_hashed(const qb_vocab *v, uint64_t hash, const char *text, size_t n) {
    if (!v->slots) return -1;
    uint64_t h = mix(hash);
    uint32_t tag = (uint32_t)(h >> 32);
    for (uint32_t s = (uint32_t)h & v->mask; v->slots[s] >= 0; s = (s + 1) & v->mask) {
        if (v->tags[s] != tag) continue;
        const qb_piece *p = &v->pieces[v->slots[s]];
        if (p->length == n && memcmp(p->text, text, n) == 0) return v->slots[s];
    }
    return -1;
}

int32_t qb_vocab_find(const qb_vocab *v, const char *text, size_t n) {
    return qb_vocab_find_hashed(v, hash_of(text, n), text, n);
}

static qb_status place_text(qb_vocab *v, const char *text, size_t n, char **copy) {
    if (v->texts_size - v->texts_used > n) {
        *copy = v->texts + v->texts_used;
        v->texts_used += n + 1;
    } else {
        qb_status st = qb_arena_alloc(&v->late, n + 1, 1, copy);
        if (st != QB_OK) return st;
    }
    (*copy)[n] = 0;
    memcpy(*copy, text, n);
    return QB_OK;
}

qb_status qb_vocab_add(qb_vocab *v, const char *name, int32_t id, const char *text, size_t n,
                       qb_piece_type type) {
    if (n == 0) return qb_fail(QB_ERR_FORMAT, "%s: the piece of id %d is empty", name, id);
    if (v->pieces[id].type != QB_PIECE_NONE)
        return qb_fail(QB_ERR_FORMAT, "%s: id %d is given to two pieces, \"%s\" and \"%.*s\"", name, id,
                       v->pieces[id].text, (int)(n < 64 ? n : 64), text);
    int32_t twin = qb_vocab_find(v, text, n);
    if (twin >= 0)
        return qb_fail(QB_ERR_FORMAT, "%s: the piece \"%.*s\" appears twice, as ids %d and %d", name,
                       (int)(n < 64 ? n : 64), text, twin, id);
    char *copy;
    qb_status st = v->room ? QB_OK : make_slots(v, (size_t)v->mask + 1);
    if (st == QB_OK) st = place_text(v, text, n, &copy);
    if (st != QB_OK) return st;
    v->pieces[id] = (qb_piece){.text = copy, .length = (uint32_t)n, .type = (uint8_t)type};
    insert(v, id);
    v->room--;
    return QB_OK;
}

int qb_piece_byte(const char *text, size_t n) {
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        int c = (unsigned char)text[i];
        if (!isxdigit(c)) return -1;
        value = value * 16 + (isdigit(c) ? c - '0' : toupper(c) - 'A' + 10);
    }
    return value;
}
