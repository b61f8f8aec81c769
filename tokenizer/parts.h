/* A tokenizer's parts. The readers (tokenizer_json.c, sentencepiece.c) fill them; encode.c and decode.c only
 * follow them. */
#pragma once

#include "base/json.h"
#include "base/memory.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unigram.h"
#include "tokenizer/vocab.h"

/* An added token: found in the text before anything is merged. */
typedef struct qb_added_token {
    int32_t id;
    bool lstrip, rstrip; /* takes white space on that side with it */
    bool special;        /* plain text under QB_SPECIAL_TEXT */
    bool normalized;     /* searched, itself normalized, in normalized text */
    bool single_word;    /* no word character may touch it */
} qb_added_token;

/* A template that the ids of a text are put into. */
typedef struct qb_template {
    int32_t *before, *after; /* in the tokenizer's arena */
    size_t n_before, n_after;
} qb_template;

/* What turns pieces into ids: one of the models' files, behind one face. `begin` makes a run that appends to
   out and ends when out holds `limit` ids (0: never); `feed` encodes one piece as a unit of its own, *read <
   n when the limit ended it there. */
typedef struct qb_token_model {
    const char *name;
    qb_status (*begin)(const qb_tokenizer *t, qb_ids *out, size_t limit, void **run);
    qb_status (*feed)(void *run, const char *text, size_t n, size_t *read);
    void (*end)(void *run); /* takes NULL */
} qb_token_model;
extern const qb_token_model qb_token_model_bpe, qb_token_model_unigram;

typedef enum {
    QB_DECODE_REPLACE,       /* every `from` by `to` */
    QB_DECODE_BYTE_FALLBACK, /* "<0x0A>" -> its byte */
    QB_DECODE_FUSE,          /* later steps see one text */
    QB_DECODE_STRIP,         /* at most start and stop times the byte string `from` off the ends */
    QB_DECODE_METASPACE,     /* `from` -> space; none at all in the first piece when `drop_first` */
    QB_DECODE_SENTENCEPIECE, /* spaces as SentencePiece's Decode */
    QB_DECODE_BYTE_LEVEL,    /* GPT-2's alphabet back to bytes */
    QB_DECODE_SUFFIX,        /* `from` -> space, -> nothing in the last piece */
} qb_decode_kind;

typedef struct qb_decode_step {
    qb_decode_kind kind;
    const char *from, *to;
    size_t n_from, n_to;
    int64_t start, stop;
    bool drop_first;
} qb_decode_step;

struct qb_tokenizer {
    qb_arena arena;
    qb_vocab vocab;
    const qb_token_model *model;
    qb_bpe bpe; /* of which the model uses one */
    qb_unigram unigram;

    qb_normalize_step *normalizer;
    size_t n_normalizer;
    qb_pre_step pre[QB_PRE_STEPS_MAX];
    size_t n_pre;
    qb_pattern **patterns; /* owned; the steps point to them */
    size_t n_patterns, patterns_capacity;
    qb_charsmap charsmap;
    qb_added_token *added; /* owned */
    size_t n_added, added_capacity;
    /* Values index `added`: matched before and after normalizing, and all of them by their raw text. */
    qb_trie added_raw, added_normalized, added_any;
    bool split_special; /* split_special_tokens: what the file's library reads as text */
    bool prefix_parts;  /* SentencePiece files: the dummy prefix goes before each part between added tokens */

    qb_template file, keys; /* around the text: of the file alone, and with add_bos_token and add_eos_token */
    const char *conflict;   /* how the two differ, or NULL */

    bool has_decoder; /* without one the reference joins pieces by spaces */
    qb_decode_step *decoder;
    size_t n_decoder;
    const char *unk_surface; /* SentencePiece: what <unk> decodes to */

    int32_t bos, eos;
    /* Of vocab.json and merges.txt: "key=content" each, NULL behind the last: the special tokens that the
       class has unless a file beside says otherwise. */
    const char *const *class_tokens;
    bool bos_by_default; /* of files without a template: BOS is put before unless a key says otherwise */
};

/* Fill an empty tokenizer; the caller closes it on failure. */
qb_status qb_tokenizer_read_json(qb_tokenizer *t, const char *text, size_t n, const char *name) QB_NODISCARD;
qb_status qb_tokenizer_read_model(qb_tokenizer *t, const uint8_t *bytes, size_t n,
                                  const char *name) QB_NODISCARD;
/* Settles what v leaves open (add_bos, add_eos). */
qb_status qb_tokenizer_read_vocabulary(qb_tokenizer *t, qb_vocabulary *v, const char *name) QB_NODISCARD;
/* A section of tokenizer.json being read. */
typedef struct qb_reader {
    qb_tokenizer *t;
    const char *name; /* of the file */
} qb_reader;
/* tokenizer.json's sections, each NULL or null where there is none (json_normalizer.c, json_pretokenizer.c,
   json_output.c). What would change ids and is not known is refused by name. The post-processor and the
   decoder need the vocabulary and the added tokens. */
qb_status qb_reader_normalizer(const qb_reader *r, const qb_json *section) QB_NODISCARD;
qb_status qb_reader_pretokenizer(const qb_reader *r, const qb_json *section) QB_NODISCARD;
qb_status qb_reader_post_processor(const qb_reader *r, const qb_json *section) QB_NODISCARD;
qb_status qb_reader_decoder(const qb_reader *r, const qb_json *section) QB_NODISCARD;
/* What they share (json_reader.c). Refuses members that are not among `known`, '|' between, and not null;
   `of` says whose they are. */
qb_status qb_reader_members(const qb_reader *r, const qb_json *object, const char *known,
                            const char *of) QB_NODISCARD;
/* "type" of an object, whose other members are those of this type (steps.def). */
qb_status qb_reader_type(const qb_reader *r, const qb_json *object, const char *what,
                         const char **type) QB_NODISCARD;
/* Member `key`, copied into the tokenizer. */
qb_status qb_reader_text(const qb_reader *r, const qb_json *object, const char *key, bool may_be_empty,
                         const char **text, size_t *n) QB_NODISCARD;
qb_status qb_reader_flag(const qb_reader *r, const qb_json *object, const char *key, bool *out) QB_NODISCARD;
/* {"String": text} or {"Regex": text}; *text is also set for a String. The pattern is the tokenizer's. */
qb_status qb_reader_pattern(const qb_reader *r, const qb_json *pattern, qb_pattern **out, const char **text,
                            size_t *n) QB_NODISCARD;
/* Metaspace's members, which a pre-tokenizer and a decoder share. */
qb_status qb_reader_metaspace(const qb_reader *r, const qb_json *object, const char **replacement, size_t *n,
                              qb_prepend_scheme *prepend, bool *split) QB_NODISCARD;

/* Bytes of base64 text; out has room for n. */
qb_status qb_base64_decode(const char *text, size_t n, uint8_t *out, size_t *n_out) QB_NODISCARD;
/* Whether the pre-tokenizer cuts texts into words, so that the model sees short pieces. */
bool qb_tokenizer_cuts_words(const qb_tokenizer *t);
/* Steps that other sources than tokenizer.json need too: appended to the pre-tokenizer. */
qb_status qb_tokenizer_add_split(qb_tokenizer *t, const char *pattern, qb_split_behavior behavior,
                                 bool invert, const char *name) QB_NODISCARD;
qb_status qb_tokenizer_add_step(qb_tokenizer *t, qb_pre_step step, const char *name) QB_NODISCARD;
/* The pattern is the tokenizer's from now on, even on failure. */
qb_status qb_tokenizer_own(qb_tokenizer *t, qb_pattern *pattern) QB_NODISCARD;
/* Sources without JSON's sections. tiktoken: lines of base64 and rank; tekken.json; vocab.json with
   merges.txt, of the tokenizer class or model type `kind`, with a space before texts if `prefix`. */
bool qb_is_tiktoken(const char *text, size_t n);
qb_status qb_tokenizer_read_tiktoken(qb_tokenizer *t, const char *text, size_t n,
                                     const char *name) QB_NODISCARD;
qb_status qb_tokenizer_read_tekken(qb_tokenizer *t, const char *text, size_t n,
                                   const char *name) QB_NODISCARD;
qb_status qb_tokenizer_read_vocab_merges(qb_tokenizer *t, const char *vocab, size_t n_vocab,
                                         const char *merges, size_t n_merges, const char *kind, bool prefix,
                                         const char *name) QB_NODISCARD;
/* Their parts. {"piece": id, ...} as a BPE vocabulary with its characters (tokenizer_json.c); one merge of
   two pieces, `joined` is scratch; GPT-2's alphabet undone as the only decoder step. */
qb_status qb_tokenizer_read_bpe_vocab(qb_tokenizer *t, const qb_json *vocab, size_t n_added,
                                      size_t text_bytes, const char *name) QB_NODISCARD;
qb_status qb_tokenizer_add_merge(qb_tokenizer *t, const char *left, size_t n_left, const char *right,
                                 size_t n_right, int64_t rank, qb_str *joined, const char *name) QB_NODISCARD;
qb_status qb_tokenizer_decode_bytes(qb_tokenizer *t) QB_NODISCARD;

/* Added tokens (added.c). A token whose content is there already takes the new flags. `id` < 0: that of the
   vocabulary, else the next free one; an id that contradicts the vocabulary, or leaves a gap where
   `may_gap` is false, fails. */
qb_status qb_tokenizer_add_token(qb_tokenizer *t, const char *content, size_t n, int64_t id, bool may_gap,
                                 qb_added_token flags, const char *name) QB_NODISCARD;
/* special, normalized, single_word, lstrip and rstrip of a token's JSON object. */
qb_status qb_added_token_flags(const qb_json *j, const char *name, qb_added_token *out) QB_NODISCARD;
/* Makes the tries anew, once tokens were added. */
qb_status qb_tokenizer_index_added(qb_tokenizer *t) QB_NODISCARD;
/* What lies beside the tokenizer's file in `dir` (beside.c): tokenizer_config.json, special_tokens_map.json,
   added_tokens.json. `model`: the file is a tokenizer.model, which has no template and no added tokens. */
qb_status qb_tokenizer_read_beside(qb_tokenizer *t, const char *dir, bool model) QB_NODISCARD;
/* keys = file with BOS and EOS put on or taken off: -1 as the file has it, 0 without, 1 with. */
qb_status qb_tokenizer_set_keys(qb_tokenizer *t, int add_bos, int add_eos) QB_NODISCARD;
/* Copies n bytes into the tokenizer's arena. */
qb_status qb_tokenizer_keep(qb_tokenizer *t, const char *text, size_t n, const char **out) QB_NODISCARD;
