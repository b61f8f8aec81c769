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

qb_status qb_vocab_create(qb_vocab *v, int32_t count, size_t pieces, size_t text_bytes) {
    v->texts_size = text_bytes;
    v->room = pieces;
    size_t slots = 16;
    while (slots < 2 * pieces) slots *= 2;
    v->mask = (uint32_t)slots - 1;
    qb_status st = qb_alloc(slots, sizeof *v->slots, &v->slots);
    if (st != QB_OK) return st;
    memset(v->slots, 0xFF, slots * sizeof *v->slots);
    st = qb_alloc(slots, sizeof *v->tags, &v->tags);
    if (st != QB_OK) return st;
    st = qb_alloc(text_bytes, 1, &v->texts);
    if (st != QB_OK) return st;
    return qb_vocab_extend(v, count);
}

void qb_vocab_free(qb_vocab *v) {
    if (!v) return;
    qb_free(v->pieces);
    qb_free(v->slots);
    qb_free(v->tags);
    qb_free(v->texts);
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

static void insert(qb_vocab *v, int32_t id) {
    uint64_t h = mix(hash_of(v->pieces[id].text, v->pieces[id].length));
    uint32_t s = (uint32_t)h & v->mask;
    while (v->slots[s] >= 0) s = (s + 1) & v->mask;
    v->slots[s] = id;
    v->tags[s] = (uint32_t)(h >> 32);
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
    if (v->room == 0 || n >= v->texts_size - v->texts_used)
        return qb_fail(QB_ERR_INTERNAL, "%s: the texts outgrow their room", name);
    char *copy = v->texts + v->texts_used;
    v->texts_used += n + 1;
    copy[n] = 0;
    memcpy(copy, text, n);
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
