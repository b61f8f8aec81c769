/* Text <-> token ids: Hugging Face tokenizer.json, vocab.json with merges.txt, SentencePiece models, tiktoken
   files, tekken.json and GGUF's vocabularies. Ids equal those of the reference libraries.
 */
#pragma once

#include "base/status.h"
#include "base/str.h"

#include <stdint.h>

typedef struct qb_tokenizer qb_tokenizer;

/* DIR/tokenizer.json if present, else tokenizer.model (SentencePiece or tiktoken), tekken.json, vocab.json
   with merges.txt, or the only *.tiktoken file. */
qb_status qb_tokenizer_open(const char *dir, qb_tokenizer **out) QB_NODISCARD;
/* *.json (tekken by its name), *.tiktoken, or a *.model of any version. */
qb_status qb_tokenizer_open_file(const char *path, qb_tokenizer **out) QB_NODISCARD;
/* The same from memory (fuzzing); `name` heads errors. */
qb_status qb_tokenizer_parse_json(const char *text, size_t n, const char *name,
                                  qb_tokenizer **out) QB_NODISCARD;
qb_status qb_tokenizer_parse_model(const uint8_t *bytes, size_t n, const char *name,
                                   qb_tokenizer **out) QB_NODISCARD;
/* A tiktoken file, or tekken.json. */
qb_status qb_tokenizer_parse_ranks(const char *text, size_t n, const char *name,
                                   qb_tokenizer **out) QB_NODISCARD;
/* vocab.json and merges.txt of a tokenizer class or model type ("Qwen2Tokenizer", "gpt2"). */
qb_status qb_tokenizer_parse_merges(const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                    const char *kind, bool prefix, const char *name,
                                    qb_tokenizer **out) QB_NODISCARD;
/* A vocabulary that came inside a model file, as GGUF's tokenizer.ggml.* metadata have it. Only looked at
   during the call. */
typedef struct qb_vocabulary {
    const char *model, *pre; /* "llama", "gpt2", "t5", "gemma4"; pre-tokenizer or NULL */
    size_t n;                /* pieces, by id */
    const struct qb_vocabulary_text {
        const char *bytes;
        size_t n;
    } * texts;           /* [n] */
    const float *scores; /* [n], or NULL */
    const int32_t
        *types; /* [n], SentencePiece's numbers: 1 normal, 2 unknown, 3 control, .. 6 byte; or NULL */
    const struct qb_vocabulary_text *merges; /* [n_merges] "left right" */
    size_t n_merges;
    const uint8_t *charsmap; /* [n_charsmap] precompiled_charsmap */
    size_t n_charsmap;
    int64_t bos, eos, unk; /* -1: none */
    int add_bos, add_eos;  /* 0, 1; -1: as the model has it */
    bool add_space_prefix, remove_extra_whitespaces;
} qb_vocabulary;
/* `name` heads errors. */
qb_status qb_tokenizer_of_vocabulary(const qb_vocabulary *v, const char *name,
                                     qb_tokenizer **out) QB_NODISCARD;
/* The same tokenizer as the two files of a Hugging Face directory: appends tokenizer.json and
   tokenizer_config.json; chat_template may be NULL. QB_ERR_UNSUPPORTED for vocabularies that are no
   byte-level merges. */
qb_status qb_vocabulary_write_json(const qb_vocabulary *v, const char *chat_template, const char *name,
                                   qb_str *json, qb_str *config) QB_NODISCARD;
void qb_tokenizer_close(qb_tokenizer *t);

typedef struct qb_ids {
    int32_t *ids; /* owned; zero-initialise, free with qb_ids_free */
    size_t count, capacity;
} qb_ids;
void qb_ids_free(qb_ids *ids);
qb_status qb_ids_append(qb_ids *out, int32_t id) QB_NODISCARD;

/* What becomes of a text that spells a special token ("<unk>", of which PTB is full). Perplexities under
   different rules are different measurements (docs/protocols.md).
   - FILE: as the library of the tokenizer's file reads it. tokenizer.json: the tokenizers library, each added
     token by its flags (a token that is "normalized" is searched in normalized text, so that Llama-2's file
     misses a "<unk>" with no space before it). tokenizer.model: transformers, special tokens are cut out
     of the raw text. GGUF: llama.cpp with parse_special.
   - TEXT: plain text. SentencePiece alone, llama.cpp's perplexity, tokenizers with encode_special_tokens.
   - LEGACY: transformers' slow SentencePiece tokenizers (use_fast=False, legacy=True): special tokens are cut
     out of the raw text, and every part between them begins with a prefix of its own. */
typedef enum { QB_SPECIAL_FILE, QB_SPECIAL_TEXT, QB_SPECIAL_LEGACY } qb_special_tokens;
const char *qb_special_tokens_name(qb_special_tokens rule); /* "file", "text", "legacy" */
/* An unknown name fails. */
qb_status qb_special_tokens_parse(const char *name, qb_special_tokens *out) QB_NODISCARD;

/* What is put around a text. */
typedef enum {
    QB_ENDS_NONE,
    QB_ENDS_TEMPLATE, /* what the tokenizer's file says: BOS first for Llama */
    QB_ENDS_KEYS, /* the same, but add_bos_token and add_eos_token of tokenizer_config.json win, where they
                     are said: what llama.cpp's converter writes into GGUF */
} qb_ends;

typedef struct qb_encoding {
    qb_special_tokens special;
    qb_ends ends;
    size_t limit; /* 0: the whole text; else no more ids than this are appended, the same as without */
    /* Set by qb_tokenizer_encode_as. */
    int64_t
        found;   /* special tokens that the text spells: ids under FILE and LEGACY, left as text under TEXT */
    double part; /* of the text that was read: 1, or about how much of it the limit took */
} qb_encoding;

/* Appends the ids of n bytes of text (any bytes: NUL and invalid UTF-8 included) to out. Time is linear in n,
   up to the length of one word's logarithm; with a limit, merging ends there. A byte that begins no UTF-8
   character becomes its byte token with tokenizer.json, whose library takes valid text only, and U+FFFD with
   tokenizer.model, as SentencePiece defines it. */
qb_status qb_tokenizer_encode_as(const qb_tokenizer *t, const char *text, size_t n, qb_encoding *e,
                                 qb_ids *out) QB_NODISCARD;
/* The same under FILE, with the template or nothing around. */
qb_status qb_tokenizer_encode(const qb_tokenizer *t, const char *text, size_t n, bool add_special,
                              qb_ids *out) QB_NODISCARD;
/* Appends the text of the ids; special tokens are left out. Byte tokens become their bytes. As the reference
   libraries do, the one space that encoding prepended is stripped at the start. Ids out of range fail. */
qb_status qb_tokenizer_decode(const qb_tokenizer *t, const int32_t *ids, size_t n, qb_str *out) QB_NODISCARD;
/* The text that id adds when it follows other tokens (no stripping): for streaming generation. */
qb_status qb_tokenizer_piece(const qb_tokenizer *t, int32_t id, qb_str *out) QB_NODISCARD;

int32_t qb_tokenizer_vocab_size(const qb_tokenizer *t);
int32_t qb_tokenizer_bos(const qb_tokenizer *t); /* -1 when there is none */
int32_t qb_tokenizer_eos(const qb_tokenizer *t);
bool qb_tokenizer_adds_bos(const qb_tokenizer *t, qb_ends ends);
/* Where add_bos_token or add_eos_token beside a tokenizer.json say something else than its template: a
   sentence about it, else NULL. Lives as long as the tokenizer. */
const char *qb_tokenizer_conflict(const qb_tokenizer *t);
