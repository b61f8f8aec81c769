/* A GGUF vocabulary of merges as tokenizer.json, the form of the tokenizers library (its serialized
   Tokenizer), and the small tokenizer_config.json beside it. What is not known of the original (its
   normalizer, flags of added tokens) is as llama.cpp has it. */
#include "tokenizer/parts.h"
#include "tokenizer/patterns.h"
#include "tokenizer/utf8.h"

#include <string.h>

static qb_status put_string(qb_str *s, const char *text, size_t n, const char *name) {
    qb_str_text(s, "\"");
    for (size_t i = 0, length; i < n; i += length) {
        length = qb_utf8_length((const uint8_t *)text + i, n - i);
        if (!length)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: the piece \"%.40s\" is no UTF-8, which JSON cannot hold",
                           name, text);
        uint8_t c = (uint8_t)text[i];
        if (c < 0x20)
            qb_str_printf(s, "\\u%04x", c);
        else {
            if (c == '"' || c == '\\') qb_str_text(s, "\\");
            qb_str_append(s, text + i, length);
        }
    }
    qb_str_text(s, "\"");
    return QB_OK;
}

static qb_status put_piece(qb_str *s, const qb_tokenizer *t, int32_t id, const char *name) {
    return put_string(s, t->vocab.pieces[id].text, t->vocab.pieces[id].length, name);
}

static const char *comma(bool *first) {
    const char *text = *first ? "" : ",";
    *first = false;
    return text;
}

static qb_status put_added(qb_str *s, const qb_tokenizer *t, const char *name) {
    bool first = true;
    qb_str_text(s, "\"added_tokens\":[");
    for (int32_t id = 0; id < t->vocab.count; id++)
        for (size_t i = 0; i < t->n_added; i++) {
            if (t->added[i].id != id) continue; /* the library wants them by id */
            qb_str_printf(s, "%s\n{\"id\":%d,\"content\":", comma(&first), (int)id);
            qb_status st = put_piece(s, t, id, name);
            if (st != QB_OK) return st;
            qb_str_printf(s,
                          ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                          "\"special\":%s}",
                          t->added[i].special ? "true" : "false");
        }
    qb_str_text(s, "],\n");
    return QB_OK;
}

static qb_status put_splits(qb_str *s, const char *const *patterns, size_t n, bool *first, const char *name) {
    for (size_t i = 0; i < n && patterns[i]; i++) {
        qb_str_text(s, comma(first));
        qb_str_text(s, "\n{\"type\":\"Split\",\"pattern\":{\"Regex\":");
        qb_status st = put_string(s, patterns[i], strlen(patterns[i]), name);
        if (st != QB_OK) return st;
        qb_str_text(s, "},\"behavior\":\"Isolated\",\"invert\":false}");
    }
    return QB_OK;
}

static qb_status put_cutting(qb_str *s, const qb_pre_name *pre, const char *name) {
    static const char bytes[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                                "\"use_regex\":false}";
    bool first = true;
    qb_status st;
    qb_str_text(s, "\"normalizer\":null,\n\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    QB_TRY(st, put_splits(s, pre->patterns, sizeof pre->patterns / sizeof *pre->patterns, &first, name));
    qb_str_printf(s, "%s\n%s", comma(&first), bytes);
    QB_TRY(st, put_splits(s, pre->mapped, sizeof pre->mapped / sizeof *pre->mapped, &first, name));
    qb_str_text(s, "]},\n");
out:
    return st;
}

static qb_status put_ends(qb_str *s, const qb_tokenizer *t, const char *name) {
    const qb_template *f = &t->file;
    const struct {
        const int32_t *ids;
        size_t n;
    } sides[] = {{f->before, f->n_before}, {f->after, f->n_after}};
    qb_status st = QB_OK;
    bool first = true;
    if (!f->n_before && !f->n_after) {
        qb_str_text(s, "\"post_processor\":null,\n");
        return QB_OK;
    }
    qb_str_text(s, "\"post_processor\":{\"type\":\"TemplateProcessing\"");
    for (int pair = 0; pair < 2; pair++) {
        qb_str_printf(s, ",\"%s\":[", pair ? "pair" : "single");
        first = true;
        for (int text = 0; text <= pair; text++)
            for (int side = 0; side < 2; side++) {
                for (size_t i = 0; i < sides[side].n; i++) {
                    qb_str_printf(s, "%s{\"SpecialToken\":{\"id\":", comma(&first));
                    QB_TRY(st, put_piece(s, t, sides[side].ids[i], name));
                    qb_str_printf(s, ",\"type_id\":%d}}", text);
                }
                if (side == 0)
                    qb_str_printf(s, "%s{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}", comma(&first),
                                  "AB"[text], text);
            }
        qb_str_text(s, "]");
    }
    qb_str_text(s, ",\"special_tokens\":{");
    first = true;
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < sides[side].n; i++) {
            int32_t id = sides[side].ids[i];
            if (side == 1 && f->n_before && f->before[0] == id) continue; /* one token at both ends */
            qb_str_text(s, comma(&first));
            QB_TRY(st, put_piece(s, t, id, name));
            qb_str_text(s, ":{\"id\":");
            QB_TRY(st, put_piece(s, t, id, name));
            qb_str_printf(s, ",\"ids\":[%d],\"tokens\":[", (int)id);
            QB_TRY(st, put_piece(s, t, id, name));
            qb_str_text(s, "]}");
        }
    qb_str_text(s, "}},\n");
out:
    return st;
}

static qb_status put_model(qb_str *s, const qb_tokenizer *t, const qb_vocabulary *v, const char *name) {
    bool first = true;
    qb_status st = QB_OK;
    qb_str_printf(s,
                  "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                  "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
                  "\"byte_fallback\":false,\"ignore_merges\":%s,\n\"vocab\":{",
                  t->bpe.ignore_merges ? "true" : "false");
    for (int32_t id = 0; id < t->vocab.count; id++) {
        if (t->vocab.pieces[id].type == QB_PIECE_NONE) continue;
        qb_str_printf(s, "%s\n", comma(&first));
        QB_TRY(st, put_piece(s, t, id, name));
        qb_str_printf(s, ":%d", (int)id);
    }
    qb_str_text(s, "},\n\"merges\":[");
    first = true;
    for (size_t i = 0; i < v->n_merges; i++) {
        const struct qb_vocabulary_text *m = &v->merges[i];
        size_t left = (size_t)((const char *)memchr(m->bytes + 1, ' ', m->n - 1) - m->bytes);
        qb_str_printf(s, "%s\n[", comma(&first));
        QB_TRY(st, put_string(s, m->bytes, left, name));
        qb_str_text(s, ",");
        QB_TRY(st, put_string(s, m->bytes + left + 1, m->n - left - 1, name));
        qb_str_text(s, "]");
    }
    qb_str_text(s, "]}\n");
out:
    return st;
}

static qb_status put_config(qb_str *s, const qb_tokenizer *t, const qb_vocabulary *v,
                            const char *chat_template, const char *name) {
    const struct {
        const char *key;
        int64_t id;
    } named[] = {{"bos_token", v->bos}, {"eos_token", v->eos}, {"unk_token", v->unk}};
    qb_status st = QB_OK;
    qb_str_text(s, "{\n\"tokenizer_class\":\"PreTrainedTokenizerFast\",\n"
                   "\"clean_up_tokenization_spaces\":false");
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        if (named[i].id < 0 || named[i].id >= t->vocab.count) continue;
        int32_t id = (int32_t)named[i].id;
        if (t->vocab.pieces[id].type == QB_PIECE_NONE) continue;
        qb_str_printf(s, ",\n\"%s\":", named[i].key);
        QB_TRY(st, put_piece(s, t, id, name));
    }
    if (chat_template) {
        qb_str_text(s, ",\n\"chat_template\":");
        QB_TRY(st, put_string(s, chat_template, strlen(chat_template), name));
    }
    qb_str_text(s, "\n}\n");
out:
    return st;
}

qb_status qb_vocabulary_write_json(const qb_vocabulary *v, const char *chat_template, const char *name,
                                   qb_str *json, qb_str *config) {
    qb_tokenizer *t;
    qb_status st = qb_tokenizer_of_vocabulary(v, name, &t); /* judges all that is read below */
    if (st != QB_OK) return st;
    const qb_pre_name *pre = !strcmp(v->model, "gpt2") ? qb_pre_name_find(v->pre ? v->pre : "default") : NULL;
    if (!pre || pre->raw) {
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s: a vocabulary of the kind \"%s\" is not written as tokenizer.json (only byte-level "
                     "merges are)",
                     name, v->model);
        goto out;
    }
    qb_str_text(json, "{\n\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n");
    QB_TRY(st, put_added(json, t, name));
    QB_TRY(st, put_cutting(json, pre, name));
    QB_TRY(st, put_ends(json, t, name));
    qb_str_text(json, "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
                      "\"use_regex\":true},\n");
    QB_TRY(st, put_model(json, t, v, name));
    qb_str_text(json, "}\n");
    QB_TRY(st, put_config(config, t, v, chat_template, name));
    QB_TRY(st, qb_str_status(json));
    st = qb_str_status(config);
out:
    qb_tokenizer_close(t);
    return st;
}
