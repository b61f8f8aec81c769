/* What SentencePiece models and GGUF vocabularies share: pieces with scores and types. Private to tokenizer/.
 */
#pragma once

#include "tokenizer/parts.h"

typedef struct qb_pieces_options {
    bool byte_fallback, whitespace_as_suffix;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    bool unigram;            /* the likeliest cut, not merges by score */
    bool user_defined_free;  /* llama.cpp: user-defined pieces cost nothing */
    int32_t unk;             /* the one that counts where several pieces are of type UNKNOWN; -1: they fail */
    const qb_charsmap *map;  /* of the normalizer; NULL: the identity. Lives as long as the tokenizer */
    const char *unk_surface; /* what <unk> decodes to */
    size_t n_unk_surface;
} qb_pieces_options;

/* Defines piece `id` of a vocabulary that was created; `type` is a qb_piece_type up to QB_PIECE_BYTE. `name`
   heads errors. */
qb_status qb_pieces_add(qb_tokenizer *t, const char *name, int32_t id, const char *text, size_t n,
                        float score, uint64_t type) QB_NODISCARD;
/* A BPE of the pieces of the vocabulary, each of which two neighbours merge into wherever they spell it, the
   best score first. */
qb_status qb_pieces_rules(qb_tokenizer *t, const char *name) QB_NODISCARD;
/* Makes symbols, merge rules (or a Unigram) and the SentencePiece normalizer and decoder from the pieces,
   once all are there. Fails unless one is of type UNKNOWN and, with byte_fallback, 256 are of type BYTE. */
qb_status qb_pieces_finish(qb_tokenizer *t, const qb_pieces_options *options, const char *name) QB_NODISCARD;
