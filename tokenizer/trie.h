/* A set of byte strings for longest-match search at a position (added tokens, user-defined pieces). */
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct qb_trie_node {
    uint32_t child, sibling; /* index + 1; 0 ends */
    int32_t value;           /* -1: no string ends here */
    uint8_t byte;
} qb_trie_node;

/* Zero-initialise. */
typedef struct qb_trie {
    qb_trie_node *nodes;
    size_t count, capacity;
    uint32_t roots[256]; /* index + 1 of the node of a first byte */
} qb_trie;

/* Adds n > 0 bytes; a string that is there already keeps its value. */
qb_status qb_trie_add(qb_trie *t, const char *text, size_t n, int32_t value) QB_NODISCARD;
/* The node (index + 1) behind `node` by one byte, 0: none; node 0 is the root. */
uint32_t qb_trie_step(const qb_trie *t, uint32_t node, uint8_t byte);
/* Length and value of the longest string of the set that starts at p; 0 when none does. */
size_t qb_trie_longest(const qb_trie *t, const char *p, size_t n, int32_t *value);
void qb_trie_free(qb_trie *t);
