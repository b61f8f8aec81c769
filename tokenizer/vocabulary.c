/* Vocabularies that come inside a model file (GGUF's tokenizer.ggml.* metadata). "llama": scored pieces, cut
   as SentencePiece cuts them; "t5": a Unigram; "gpt2": merges, after the pre-tokenizer that
   tokenizer.ggml.pre names. Rules that differ from the models' own files, from llama.cpp's llama-vocab.cpp:
   nothing is normalized (no NFC), scored pieces never squeeze spaces, and control, unknown and user-defined
   pieces are found in the text first. */
#include "base/log.h"
#include "tokenizer/patterns.h"
#include "tokenizer/pieces.h"

#include <string.h>

static qb_status create_vocab(qb_tokenizer *t, const qb_vocabulary *v, const char *name) {
    if (v->n == 0 || v->n > QB_VOCAB_IDS_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: a vocabulary of %zu pieces, expected 1 .. %d", name, v->n,
                       QB_VOCAB_IDS_MAX);
    size_t text_bytes = 0;
    for (size_t i = 0; i < v->n; i++) text_bytes += v->texts[i].n + 1;
    return qb_vocab_create(&t->vocab, (int32_t)v->n, v->n, text_bytes + 1);
}

static qb_status add_pieces(qb_tokenizer *t, const qb_vocabulary *v, const char *name, bool *bytes) {
    if (!v->scores || !v->types)
        return qb_fail(QB_ERR_FORMAT, "%s: tokenizer.ggml.%s is missing", name,
                       v->scores ? "token_type" : "scores");
    qb_status st = create_vocab(t, v, name);
    *bytes = false;
    for (size_t i = 0; st == QB_OK && i < v->n; i++) {
        uint64_t type = v->types[i] > 0 ? (uint64_t)v->types[i] : 0;
        *bytes = *bytes || type == QB_PIECE_BYTE;
        st = qb_pieces_add(t, name, (int32_t)i, v->texts[i].bytes, v->texts[i].n, v->scores[i], type);
    }
    return st;
}

static bool is_found_first(const qb_piece *p) {
    return p->type == QB_PIECE_CONTROL || p->type == QB_PIECE_UNKNOWN || p->type == QB_PIECE_USER_DEFINED;
}

static qb_status find_added(qb_tokenizer *t, const char *name) {
    qb_status st = QB_OK;
    for (int32_t id = 0; st == QB_OK && id < t->vocab.count; id++) {
        qb_piece p = t->vocab.pieces[id];
        if (!is_found_first(&p)) continue;
        qb_added_token flags = {.special = p.type != QB_PIECE_USER_DEFINED};
        st = qb_tokenizer_add_token(t, p.text, p.length, id, false, flags, name);
        t->vocab.pieces[id].special = p.special; /* what decoding leaves out is another question */
    }
    return st == QB_OK ? qb_tokenizer_index_added(t) : st;
}

static qb_status special_id(const qb_tokenizer *t, int64_t id, const char *what, const char *name,
                            int32_t *out) {
    if (id >= t->vocab.count)
        return qb_fail(QB_ERR_FORMAT, "%s: the %s token is %lld, though the vocabulary has %d pieces", name,
                       what, (long long)id, t->vocab.count);
    *out = id < 0 ? -1 : (int32_t)id;
    return QB_OK;
}

/* ---- llama and t5: scored pieces ---- */

static qb_status read_scored(qb_tokenizer *t, const qb_vocabulary *v, bool unigram, const char *name) {
    qb_pieces_options options = {.add_dummy_prefix = v->add_space_prefix,
                                 .remove_extra_whitespaces = unigram && v->remove_extra_whitespaces,
                                 .escape_whitespaces = true,
                                 .unigram = unigram,
                                 .user_defined_free = true,
                                 .unk = -1,
                                 .unk_surface = " \xE2\x81\x87 ",
                                 .n_unk_surface = 5};
    qb_status st;
    QB_TRY(st, add_pieces(t, v, name, &options.byte_fallback));
    if (unigram && v->n_charsmap) {
        QB_TRY(st, qb_charsmap_parse(v->charsmap, v->n_charsmap, name, &t->charsmap));
        options.map = &t->charsmap;
    }
    if (v->unk >= 0 && (size_t)v->unk < v->n) {
        options.unk = (int32_t)v->unk;
        t->vocab.pieces[v->unk].type = QB_PIECE_UNKNOWN;
    }
    QB_TRY(st, qb_pieces_finish(t, &options, name));
    t->prefix_parts = true; /* llama.cpp: behind every token that was found first */
    st = find_added(t, name);
out:
    return st;
}

/* ---- gpt2: merges ---- */

static qb_status add_texts(qb_tokenizer *t, const qb_vocabulary *v, const char *name) {
    qb_status st = create_vocab(t, v, name);
    for (size_t i = 0; st == QB_OK && i < v->n; i++) {
        const struct qb_vocabulary_text *x = &v->texts[i];
        int32_t type = v->types ? v->types[i] : QB_PIECE_NORMAL;
        if (type < QB_PIECE_NORMAL || type > QB_PIECE_BYTE)
            return qb_fail(QB_ERR_FORMAT, "%s: piece %zu has the unknown type %d", name, i, type);
        /* Converters fill up with pieces that nobody can spell, sometimes the same one. */
        if (!x->n || qb_vocab_find(&t->vocab, x->bytes, x->n) >= 0) continue;
        st = qb_vocab_add(&t->vocab, name, (int32_t)i, x->bytes, x->n, (qb_piece_type)type);
        if (st == QB_OK) t->vocab.pieces[i].special = type == QB_PIECE_CONTROL;
    }
    return st;
}

/* "left right", cut at the first space behind the first byte. */
static qb_status add_merges(qb_tokenizer *t, const qb_vocabulary *v, const char *name) {
    qb_str joined = {0};
    qb_status st;
    if (v->n_merges > QB_RULES_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: %zu merges are more than the %d allowed", name, v->n_merges,
                       QB_RULES_MAX);
    QB_TRY(st, qb_bpe_rules_reserve(&t->bpe, v->n_merges));
    for (size_t i = 0; i < v->n_merges; i++) {
        const struct qb_vocabulary_text *m = &v->merges[i];
        const char *space = m->n > 2 ? memchr(m->bytes + 1, ' ', m->n - 1) : NULL;
        if (!space) {
            st = qb_fail(QB_ERR_FORMAT, "%s: merge %zu must be two pieces with a space between", name, i);
            goto out;
        }
        size_t n_left = (size_t)(space - m->bytes);
        QB_TRY(st, qb_tokenizer_add_merge(t, m->bytes, n_left, space + 1, m->n - n_left - 1, (int64_t)i,
                                          &joined, name));
    }
out:
    qb_str_free(&joined);
    return st;
}

static qb_status read_merged(qb_tokenizer *t, const qb_vocabulary *v, const char *name) {
    const char *pre_name = v->pre ? v->pre : "default";
    const qb_pre_name *pre = qb_pre_name_find(pre_name);
    qb_status st;
    if (!pre)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: the pre-tokenizer \"%.60s\" (tokenizer.ggml.pre) is not known here: give the original "
            "model's tokenizer.json beside other weights",
            name, pre_name);
    if (!v->pre)
        qb_warn("%s names no pre-tokenizer (tokenizer.ggml.pre): llama.cpp's default is used, which is wrong "
                "for most "
                "models",
                name);
    for (size_t i = 0; i < sizeof pre->patterns / sizeof pre->patterns[0] && pre->patterns[i]; i++)
        QB_TRY(st, qb_tokenizer_add_split(t, pre->patterns[i], QB_SPLIT_ISOLATED, false, name));
    if (pre->raw) {
        QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->normalizer, &t->normalizer));
        t->normalizer[0] = (qb_normalize_step){.kind = QB_NORMALIZE_REPLACE,
                                               .from = " ",
                                               .n_from = 1,
                                               .to = QB_SPACE_SYMBOL,
                                               .n_to = QB_SPACE_SYMBOL_LENGTH};
        t->n_normalizer = 1;
        QB_TRY(st, qb_arena_alloc(&t->arena, 2, sizeof *t->decoder, &t->decoder));
        t->decoder[0] = (qb_decode_step){.kind = QB_DECODE_REPLACE,
                                         .from = QB_SPACE_SYMBOL,
                                         .n_from = QB_SPACE_SYMBOL_LENGTH,
                                         .to = " ",
                                         .n_to = 1};
        t->decoder[1].kind = QB_DECODE_BYTE_FALLBACK;
        t->n_decoder = 2;
        t->has_decoder = true;
    } else {
        QB_TRY(st, qb_tokenizer_add_step(t, (qb_pre_step){.kind = QB_PRE_BYTES}, name));
        for (size_t i = 0; i < sizeof pre->mapped / sizeof pre->mapped[0] && pre->mapped[i]; i++)
            QB_TRY(st, qb_tokenizer_add_split(t, pre->mapped[i], QB_SPLIT_ISOLATED, false, name));
        QB_TRY(st, qb_tokenizer_decode_bytes(t));
    }
    QB_TRY(st, add_texts(t, v, name));
    QB_TRY(st, qb_bpe_characters(&t->bpe, &t->vocab, pre->raw));
    QB_TRY(st, add_merges(t, v, name));
    t->bpe.ignore_merges = pre->ignore_merges;
    QB_TRY(st, qb_bpe_finish(&t->bpe, true));
    st = find_added(t, name);
out:
    return st;
}

/* What is put around where the file does not say. */
static void default_ends(qb_vocabulary *v) {
    bool scored = !strcmp(v->model, "llama");
    const qb_pre_name *pre = scored || !v->pre ? NULL : qb_pre_name_find(v->pre);
    if (v->add_bos < 0) v->add_bos = scored || (pre && pre->add_bos);
    if (v->add_eos < 0) v->add_eos = !strcmp(v->model, "t5");
}

qb_status qb_tokenizer_read_vocabulary(qb_tokenizer *t, qb_vocabulary *v, const char *name) {
    qb_status st;
    if (!strcmp(v->model, "none") || !strcmp(v->model, "no_vocab"))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: has no tokenizer (tokenizer.ggml.model is \"%s\")", name,
                       v->model);
    bool scored = !strcmp(v->model, "llama"), unigram = !strcmp(v->model, "t5");
    if (!scored && !unigram && strcmp(v->model, "gpt2") != 0 && strcmp(v->model, "gemma4") != 0)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: tokenizer.ggml.model \"%.40s\" is not supported (supported: llama, gpt2, gemma4, t5)", name,
            v->model);
    if (!strcmp(v->model, "gemma4")) v->pre = "gemma4";
    default_ends(v);
    QB_TRY(st, scored || unigram ? read_scored(t, v, unigram, name) : read_merged(t, v, name));
    QB_TRY(st, special_id(t, v->bos, "bos", name, &t->bos));
    QB_TRY(st, special_id(t, v->eos, "eos", name, &t->eos));
out:
    return st;
}
