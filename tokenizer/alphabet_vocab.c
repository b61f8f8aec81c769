/* Vocabularies of byte strings: tiktoken's files and Mistral's tekken.json. Their pieces are kept in GPT-2's
   alphabet, one character a byte, and two neighbours merge where what they make is a piece, the lowest rank
   first: tiktoken's own rule, with every split of every piece as a merge. A word that is a piece is that
   piece. */
#include "tokenizer/parts.h"
#include "tokenizer/patterns.h"
#include "tokenizer/pieces.h"

#include <stdio.h>
#include <string.h>

enum { PIECE_BYTES_MAX = 1 << 12 };

typedef struct ranks {
    uint8_t *bytes; /* scratch */
    size_t capacity;
    qb_str text;
} ranks;

static void ranks_free(ranks *r) {
    qb_free(r->bytes);
    qb_str_free(&r->text);
}

/* Piece `id`, whose bytes stand in base64. */
static qb_status add_piece(qb_tokenizer *t, ranks *r, const char *base64, size_t n, int32_t id, int64_t rank,
                           const char *name) {
    size_t n_bytes;
    qb_status st;
    if (n > PIECE_BYTES_MAX || id >= t->vocab.count)
        return qb_fail(QB_ERR_FORMAT, "%s: piece %d is too long, or beyond the %d that are announced", name,
                       id, t->vocab.count);
    QB_TRY(st, qb_grow(&r->bytes, &r->capacity, n + 1, 1));
    QB_TRY(st, qb_base64_decode(base64, n, r->bytes, &n_bytes));
    r->text.length = 0;
    qb_bytes_to_alphabet((const char *)r->bytes, n_bytes, &r->text);
    QB_TRY(st, qb_str_status(&r->text));
    QB_TRY(st, qb_vocab_add(&t->vocab, name, id, qb_str_get(&r->text), r->text.length, QB_PIECE_NORMAL));
    t->vocab.pieces[id].score = -(float)rank;
out:
    return st == QB_ERR_FORMAT ? qb_fail_prefix(st, "%s: piece %d", name, id) : st;
}

/* Any text must be spelt, so every byte is a piece. */
static qb_status check_bytes(const qb_tokenizer *t, const char *name) {
    qb_str text = {0};
    qb_status st = QB_OK;
    for (int byte = 0; st == QB_OK && byte < 256; byte++) {
        char c = (char)(uint8_t)byte;
        text.length = 0;
        qb_bytes_to_alphabet(&c, 1, &text);
        st = qb_str_status(&text);
        if (st == QB_OK && qb_vocab_find(&t->vocab, text.text, text.length) < 0)
            st = qb_fail(QB_ERR_FORMAT, "%s: the byte 0x%02x is no piece: the vocabulary is not whole", name,
                         byte);
    }
    qb_str_free(&text);
    return st;
}

static qb_status finish(qb_tokenizer *t, const char *pattern, const char *name) {
    qb_status st;
    QB_TRY(st, qb_tokenizer_add_split(t, pattern, QB_SPLIT_REMOVED, true, name)); /* matches alone count */
    QB_TRY(st, qb_tokenizer_add_step(t, (qb_pre_step){.kind = QB_PRE_BYTES}, name));
    QB_TRY(st, check_bytes(t, name));
    QB_TRY(st, qb_pieces_rules(t, name));
    t->bpe.ignore_merges = true;
    QB_TRY(st, qb_bpe_finish(&t->bpe, true));
    st = qb_tokenizer_decode_bytes(t);
out:
    return st;
}

static qb_status add_special(qb_tokenizer *t, const char *content, int64_t id, const char *name) {
    return qb_tokenizer_add_token(t, content, strlen(content), id, true, (qb_added_token){.special = true},
                                  name);
}

/* ---- tiktoken ---- */

/* The file holds pieces alone; whose they are, and so the pattern and the special tokens, is known by their
   number. Sources: openai/tiktoken's openai_public.py, llama-models' tokenizer.py, Qwen's
   tokenization_qwen.py. */
typedef struct tiktoken {
    int32_t n;
    const char *what, *pattern;
    bool nfc;
    const char *bos, *eos; /* NULL: none */
    qb_status (*special)(qb_tokenizer *t, int32_t n, const char *name);
} tiktoken;

static qb_status special_numbered(qb_tokenizer *t, const char *format, int from, int to, int32_t *id,
                                  const char *name) {
    qb_status st = QB_OK;
    for (int i = from; st == QB_OK && i <= to; i++) {
        char text[64];
        snprintf(text, sizeof text, "<|%s%d|>", format, i);
        st = add_special(t, text, (*id)++, name);
    }
    return st;
}

static qb_status special_listed(qb_tokenizer *t, const char *const *list, int32_t *id, const char *name) {
    qb_status st = QB_OK;
    for (; st == QB_OK && *list; list++) st = add_special(t, *list, (*id)++, name);
    return st;
}

static qb_status special_llama3(qb_tokenizer *t, int32_t id, const char *name) {
    static const char *const first[] = {"<|begin_of_text|>",
                                        "<|end_of_text|>",
                                        "<|reserved_special_token_0|>",
                                        "<|reserved_special_token_1|>",
                                        "<|finetune_right_pad_id|>",
                                        "<|step_id|>",
                                        "<|start_header_id|>",
                                        "<|end_header_id|>",
                                        "<|eom_id|>",
                                        "<|eot_id|>",
                                        "<|python_tag|>",
                                        NULL};
    qb_status st = special_listed(t, first, &id, name);
    return st == QB_OK ? special_numbered(t, "reserved_special_token_", 2, 246, &id, name) : st;
}

static qb_status special_qwen(qb_tokenizer *t, int32_t id, const char *name) {
    static const char *const first[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
    qb_status st = special_listed(t, first, &id, name);
    return st == QB_OK ? special_numbered(t, "extra_", 0, 204, &id, name) : st;
}

static qb_status special_gpt2(qb_tokenizer *t, int32_t id, const char *name) {
    static const char *const first[] = {"<|endoftext|>", NULL};
    return special_listed(t, first, &id, name);
}

static qb_status special_cl100k(qb_tokenizer *t, int32_t id, const char *name) {
    static const char *const first[] = {"<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
                                        NULL};
    id++; /* 100256 is nobody's */
    qb_status st = special_listed(t, first, &id, name);
    return st == QB_OK ? add_special(t, "<|endofprompt|>", 100276, name) : st;
}

static qb_status special_o200k(qb_tokenizer *t, int32_t id, const char *name) {
    (void)id;
    qb_status st = add_special(t, "<|endoftext|>", 199999, name);
    return st == QB_OK ? add_special(t, "<|endofprompt|>", 200018, name) : st;
}

static qb_status special_llama4(qb_tokenizer *t, int32_t id, const char *name) {
    static const char *const first[] = {"<|begin_of_text|>", "<|end_of_text|>", NULL};
    return special_listed(t, first, &id, name);
}

static const tiktoken known[] = {
    {50256, "GPT-2 (r50k)", QB_GPT2_PATTERN, false, NULL, "<|endoftext|>", special_gpt2},
    {100256, "cl100k", QB_LLAMA3_PATTERN, false, NULL, "<|endoftext|>", special_cl100k},
    {128000, "Llama 3", QB_LLAMA3_PATTERN, false, "<|begin_of_text|>", "<|end_of_text|>", special_llama3},
    {151643, "Qwen", QB_QWEN2_PATTERN, true, NULL, "<|endoftext|>", special_qwen},
    {199998, "o200k", QB_GPT4O_PATTERN, false, NULL, "<|endoftext|>", special_o200k},
    {200000, "Llama 4", QB_GPT4O_PATTERN, false, "<|begin_of_text|>", "<|end_of_text|>", special_llama4},
};

static const tiktoken *find_known(int32_t n) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].n == n) return &known[i];
    return NULL;
}

bool qb_is_tiktoken(const char *text, size_t n) {
    size_t i = 0;
    while (i < n && i < 64 &&
           ((text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= 'a' && text[i] <= 'z') ||
            (text[i] >= '0' && text[i] <= '9') || strchr("+/=", text[i])))
        i++;
    return i > 0 && i + 1 < n && text[i] == ' ' && text[i + 1] >= '0' && text[i + 1] <= '9';
}

/* "base64 rank" at p; *n_word bytes of base64. */
static qb_status read_line(const char *p, size_t n, int64_t line, const char *name, size_t *n_word,
                           int64_t *rank) {
    const char *space = memchr(p, ' ', n);
    int64_t value = 0;
    *n_word = space ? (size_t)(space - p) : 0;
    size_t i = *n_word + 1;
    for (; space && i < n && p[i] >= '0' && p[i] <= '9' && value < QB_VOCAB_IDS_MAX; i++)
        value = value * 10 + (p[i] - '0');
    while (i < n && p[i] == '\r') i++;
    if (!space || !*n_word || i < n || i == *n_word + 1 || value >= QB_VOCAB_IDS_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s, line %lld: expected a piece in base64, a space and its rank", name,
                       (long long)line);
    *rank = value;
    return QB_OK;
}

qb_status qb_tokenizer_read_tiktoken(qb_tokenizer *t, const char *text, size_t n, const char *name) {
    ranks r = {0};
    int64_t count = 0, line = 0, rank = 0;
    size_t n_word = 0;
    qb_status st;
    for (const char *p = text, *end = text + n; p < end; p++) count += *p == '\n' || p + 1 == end;
    if (count > QB_VOCAB_IDS_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: %lld lines are too many", name, (long long)count);
    QB_TRY(st, qb_vocab_create(&t->vocab, (int32_t)count, (size_t)count, 2 * n));
    int32_t pieces = 0;
    for (const char *p = text, *end = text + n; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p);
        if (length) {
            QB_TRY(st, read_line(p, length, line + 1, name, &n_word, &rank));
            QB_TRY(st, add_piece(t, &r, p, n_word, (int32_t)rank, rank, name));
            pieces++;
        }
        p += length + 1;
    }
    const tiktoken *k = find_known(pieces);
    if (!k) {
        st = qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: a tiktoken file of %d pieces is nobody's that is known here (GPT-2, cl100k, Llama 3 and "
            "4, Qwen, o200k), so its pattern and special tokens are not either: use its tokenizer.json",
            name, pieces);
        goto out;
    }
    t->vocab.count = pieces; /* an empty last line was counted too */
    if (k->nfc) {
        QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->normalizer, &t->normalizer));
        t->normalizer[0] = (qb_normalize_step){.kind = QB_NORMALIZE_UNICODE, .compose = true};
        t->n_normalizer = 1;
    }
    QB_TRY(st, finish(t, k->pattern, name));
    QB_TRY(st, k->special(t, pieces, name));
    t->bos = k->bos ? qb_vocab_find(&t->vocab, k->bos, strlen(k->bos)) : -1;
    t->eos = k->eos ? qb_vocab_find(&t->vocab, k->eos, strlen(k->eos)) : -1;
    t->bos_by_default = k->bos != NULL;
    st = qb_tokenizer_index_added(t);
out:
    ranks_free(&r);
    return st;
}

/* ---- tekken.json ---- */

/* Of files that list none themselves (mistral-common's tekken.py, before version v7). */
static const char *const tekken_special[] = {"<unk>",
                                             "<s>",
                                             "</s>",
                                             "[INST]",
                                             "[/INST]",
                                             "[AVAILABLE_TOOLS]",
                                             "[/AVAILABLE_TOOLS]",
                                             "[TOOL_RESULTS]",
                                             "[/TOOL_RESULTS]",
                                             "[TOOL_CALLS]",
                                             "[IMG]",
                                             "<pad>",
                                             "[IMG_BREAK]",
                                             "[IMG_END]",
                                             "[PREFIX]",
                                             "[MIDDLE]",
                                             "[SUFFIX]",
                                             "[SYSTEM_PROMPT]",
                                             "[/SYSTEM_PROMPT]",
                                             "[TOOL_CONTENT]",
                                             NULL};

static qb_status tekken_specials(qb_tokenizer *t, const qb_json *list, int64_t n, const char *name) {
    qb_status st = QB_OK;
    int32_t id = 0;
    if (qb_json_is_array(list)) {
        for (const qb_json *c = qb_json_first(list); st == QB_OK && c; c = qb_json_next(c)) {
            const char *text = NULL;
            int64_t rank = 0;
            QB_TRY(st, qb_json_text(c, "token_str", name, true, &text));
            QB_TRY(st, qb_json_int(c, "rank", name, true, 0, n - 1, &rank));
            QB_TRY(st, qb_vocab_add(&t->vocab, name, (int32_t)rank, text, strlen(text), QB_PIECE_ADDED));
            QB_TRY(st, add_special(t, text, rank, name));
        }
    } else {
        for (; id < n && tekken_special[id]; id++) {
            const char *text = tekken_special[id];
            QB_TRY(st, qb_vocab_add(&t->vocab, name, id, text, strlen(text), QB_PIECE_ADDED));
            QB_TRY(st, add_special(t, text, id, name));
        }
    }
    for (id = 0; id < n; id++) { /* the rest are named by their numbers */
        char text[32];
        if (t->vocab.pieces[id].type != QB_PIECE_NONE) continue;
        snprintf(text, sizeof text, "<SPECIAL_%d>", id);
        QB_TRY(st, qb_vocab_add(&t->vocab, name, id, text, strlen(text), QB_PIECE_ADDED));
        QB_TRY(st, add_special(t, text, id, name));
    }
out:
    return st;
}

/* ids: special tokens first, then the pieces by rank, as many as default_vocab_size leaves. */
qb_status qb_tokenizer_read_tekken(qb_tokenizer *t, const char *text, size_t n, const char *name) {
    qb_json *document = NULL;
    ranks r = {0};
    int64_t size = 0, n_special = 0, rank = 0, left;
    const char *pattern = NULL, *bytes = NULL;
    qb_status st;
    QB_TRY(st, qb_json_parse(text, n, name, &document));
    const qb_json *config = qb_json_get(document, "config");
    QB_TRY(st, qb_json_text(config, "pattern", name, true, &pattern));
    QB_TRY(st, qb_json_int(config, "default_vocab_size", name, true, 1, QB_VOCAB_IDS_MAX, &size));
    QB_TRY(st, qb_json_int(config, "default_num_special_tokens", name, true, 0, size - 1, &n_special));
    const qb_json *vocab = qb_json_get(document, "vocab");
    if (qb_json_count(vocab) < size - n_special) {
        st = qb_fail(QB_ERR_FORMAT, "%s: \"vocab\" holds %lld pieces, default_vocab_size needs %lld", name,
                     (long long)qb_json_count(vocab), (long long)(size - n_special));
        goto out;
    }
    QB_TRY(st, qb_vocab_create(&t->vocab, (int32_t)size, (size_t)size, 2 * n));
    left = size - n_special;
    for (const qb_json *c = qb_json_first(vocab); left > 0 && c; c = qb_json_next(c), left--) {
        QB_TRY(st, qb_json_text(c, "token_bytes", name, true, &bytes));
        QB_TRY(st, qb_json_int(c, "rank", name, true, 0, size - n_special - 1, &rank));
        QB_TRY(st, add_piece(t, &r, bytes, strlen(bytes), (int32_t)(n_special + rank), rank, name));
    }
    QB_TRY(st, finish(t, pattern, name));
    QB_TRY(st, tekken_specials(t, qb_json_get(document, "special_tokens"), n_special, name));
    t->bos = qb_vocab_find(&t->vocab, "<s>", 3);
    t->eos = qb_vocab_find(&t->vocab, "</s>", 4);
    t->bos_by_default = true;
    st = qb_tokenizer_index_added(t);
out:
    ranks_free(&r);
    qb_json_free(document);
    return st;
}
