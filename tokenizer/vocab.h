/* The vocabulary: pieces by id, and ids by text. */
#pragma once

#include "base/memory.h"
#include "base/status.h"

#include <stdint.h>

typedef enum { /* SentencePiece's numbers (sentencepiece_model.proto, SentencePiece.Type), and one of our own
                */
               QB_PIECE_NONE = 0, /* no piece has this id */
               QB_PIECE_NORMAL = 1,
               QB_PIECE_UNKNOWN = 2,
               QB_PIECE_CONTROL = 3,
               QB_PIECE_USER_DEFINED = 4,
               QB_PIECE_UNUSED = 5,
               QB_PIECE_BYTE = 6,
               QB_PIECE_ADDED =
                   7, /* an added token of tokenizer.json that the model's own vocabulary lacks */
} qb_piece_type;

typedef struct qb_piece {
    const char *text; /* length bytes and a NUL; NUL bytes inside are allowed */
    uint32_t length;
    float score; /* SentencePiece only */
    uint8_t type;
    bool special; /* left out when decoding */
} qb_piece;

/* Zero-initialise; free with qb_vocab_free. */
typedef struct qb_vocab {
    qb_piece *pieces; /* [count] */
    int32_t count;    /* highest id + 1 */
    size_t capacity;
    int32_t *slots; /* open addressing: id, or -1 */
    uint32_t *tags; /* [mask + 1] upper hash bits of the slot's piece */
    uint32_t mask;
    size_t room; /* pieces that may still be added before the slots grow */
    char *texts; /* the texts that were foreseen, each with its NUL */
    size_t texts_used, texts_size;
    qb_arena late; /* and those that were not */
} qb_vocab;

enum { QB_VOCAB_IDS_MAX = 1 << 24 };

/* Ids [0, count); room for `pieces` pieces and text_bytes of texts with their NULs; more may follow. */
qb_status qb_vocab_create(qb_vocab *v, int32_t count, size_t pieces, size_t text_bytes) QB_NODISCARD;
void qb_vocab_free(qb_vocab *v);
/* Defines id < count. An id or text that is defined already fails; `name` heads errors. */
qb_status qb_vocab_add(qb_vocab *v, const char *name, int32_t id, const char *text, size_t n,
                       qb_piece_type type) QB_NODISCARD;
/* Lengthens the id range to `count`; lookups keep working. */
qb_status qb_vocab_extend(qb_vocab *v, int32_t count) QB_NODISCARD;
int32_t qb_vocab_find(const qb_vocab *v, const char *text, size_t n); /* -1 when absent */

/* The hash is a polynomial, so that the hash of every suffix follows from those of the prefixes (see merge
   rules of SentencePiece): hash(ab) = hash(a) * B^|b| + hash(b), modulo 2^64. */
#define QB_VOCAB_HASH_BASE 0x9E3779B97F4A7C55u
static inline uint64_t qb_vocab_hash_add(uint64_t hash, uint8_t byte) {
    return hash * QB_VOCAB_HASH_BASE + byte + 1;
}
int32_t qb_vocab_find_hashed(const qb_vocab *v, uint64_t hash, const char *text, size_t n);

/* "<0x0A>" -> 10; -1 for other texts. */
int qb_piece_byte(const char *text, size_t n);
