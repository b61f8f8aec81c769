#include "tokenizer/trie.h"

#include "base/memory.h"

static qb_status add_node(qb_trie *t, uint8_t byte, uint32_t sibling, uint32_t *index) {
    qb_status st = qb_grow(&t->nodes, &t->capacity, t->count + 1, sizeof *t->nodes);
    if (st != QB_OK) return st;
    t->nodes[t->count++] = (qb_trie_node){.sibling = sibling, .value = -1, .byte = byte};
    *index = (uint32_t)t->count;
    return QB_OK;
}

uint32_t qb_trie_step(const qb_trie *t, uint32_t node, uint8_t byte) {
    uint32_t i = node ? t->nodes[node - 1].child : t->roots[byte];
    while (i && t->nodes[i - 1].byte != byte) i = t->nodes[i - 1].sibling;
    return i;
}

qb_status qb_trie_add(qb_trie *t, const char *text, size_t n, int32_t value) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t next = qb_trie_step(t, node, byte);
        if (!next) {
            qb_status st = add_node(t, byte, node ? t->nodes[node - 1].child : 0, &next);
            if (st != QB_OK) return st;
            if (node)
                t->nodes[node - 1].child = next;
            else
                t->roots[byte] = next;
        }
        node = next;
    }
    if (t->nodes[node - 1].value < 0) t->nodes[node - 1].value = value;
    return QB_OK;
}

size_t qb_trie_longest(const qb_trie *t, const char *p, size_t n, int32_t *value) {
    size_t longest = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = qb_trie_step(t, node, (uint8_t)p[i]);
        if (!node) break;
        if (t->nodes[node - 1].value >= 0) {
            longest = i + 1;
            *value = t->nodes[node - 1].value;
        }
    }
    return longest;
}

void qb_trie_free(qb_trie *t) {
    if (!t) return;
    qb_free(t->nodes);
    *t = (qb_trie){0};
}
