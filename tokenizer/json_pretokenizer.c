/* tokenizer.json: how a text is cut into pieces. */
#include "tokenizer/parts.h"
#include "tokenizer/unicode.h"

#include <string.h>

static qb_status read_behavior(const qb_reader *r, const qb_json *j, qb_split_behavior *out) {
    static const char *const names[] = {[QB_SPLIT_REMOVED] = "Removed",
                                        [QB_SPLIT_ISOLATED] = "Isolated",
                                        [QB_SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
                                        [QB_SPLIT_MERGED_NEXT] = "MergedWithNext",
                                        [QB_SPLIT_CONTIGUOUS] = "Contiguous"};
    const char *name = NULL;
    qb_status st = qb_json_text(j, "behavior", r->name, false, &name);
    if (st != QB_OK || !name) return st; /* keeps the default */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i])) {
            *out = (qb_split_behavior)i;
            return QB_OK;
        }
    return qb_fail(QB_ERR_UNSUPPORTED, "%s: the split behavior \"%s\" is not supported", r->name, name);
}

static qb_status read_split(const qb_reader *r, const qb_json *j) {
    qb_pre_step step = {.kind = QB_PRE_SPLIT, .behavior = QB_SPLIT_ISOLATED};
    const char *text;
    size_t n;
    qb_status st;
    QB_TRY(st, qb_reader_pattern(r, qb_json_get(j, "pattern"), &step.pattern, &text, &n));
    QB_TRY(st, read_behavior(r, j, &step.behavior));
    QB_TRY(st, qb_reader_flag(r, j, "invert", &step.invert));
    st = qb_tokenizer_add_step(r->t, step, r->name);
out:
    return st;
}

/* Its parts: a space before, GPT-2's pattern, the alphabet. */
static qb_status read_byte_level(const qb_reader *r, const qb_json *j) {
    bool prefix = true, pattern = true;
    qb_status st;
    QB_TRY(st, qb_reader_flag(r, j, "add_prefix_space", &prefix));
    QB_TRY(st, qb_reader_flag(r, j, "use_regex", &pattern));
    if (prefix) QB_TRY(st, qb_tokenizer_add_step(r->t, (qb_pre_step){.kind = QB_PRE_PREFIX}, r->name));
    if (pattern) QB_TRY(st, qb_tokenizer_add_split(r->t, QB_GPT2_PATTERN, QB_SPLIT_ISOLATED, false, r->name));
    st = qb_tokenizer_add_step(r->t, (qb_pre_step){.kind = QB_PRE_BYTES}, r->name);
out:
    return st;
}

static qb_status read_metaspace(const qb_reader *r, const qb_json *j) {
    qb_pre_step step = {.kind = QB_PRE_METASPACE},
                cut = {.kind = QB_PRE_SPLIT, .behavior = QB_SPLIT_MERGED_NEXT};
    bool split = true;
    qb_status st;
    QB_TRY(st, qb_reader_metaspace(r, j, &step.text, &step.n_text, &step.prepend, &split));
    QB_TRY(st, qb_tokenizer_add_step(r->t, step, r->name));
    if (!split) return QB_OK;
    QB_TRY(st, qb_pattern_literal(step.text, step.n_text, &cut.pattern));
    QB_TRY(st, qb_tokenizer_own(r->t, cut.pattern));
    st = qb_tokenizer_add_step(r->t, cut, r->name);
out:
    return st;
}

static qb_status read_class(const qb_reader *r, const qb_json *j, const char *type) {
    qb_pre_step step = {.kind = QB_PRE_CLASS, .behavior = QB_SPLIT_ISOLATED};
    bool individual = false;
    qb_status st = QB_OK;
    if (!strcmp(type, "Digits")) {
        step.is_match = qb_unicode_is_numeric;
        st = qb_reader_flag(r, j, "individual_digits", &individual);
        if (!individual) step.behavior = QB_SPLIT_CONTIGUOUS;
    } else if (!strcmp(type, "Punctuation")) {
        step.is_match = qb_unicode_is_punctuation;
        st = read_behavior(r, j, &step.behavior);
    } else { /* WhitespaceSplit, and the first half of BertPreTokenizer */
        step.is_match = qb_unicode_is_space;
        step.behavior = QB_SPLIT_REMOVED;
    }
    return st == QB_OK ? qb_tokenizer_add_step(r->t, step, r->name) : st;
}

static qb_status read_one(const qb_reader *r, const qb_json *j) {
    const char *type = "";
    qb_status st = qb_reader_type(r, j, "\"pre_tokenizer\"", &type);
    if (st != QB_OK) return st;
    if (!strcmp(type, "Sequence")) {
        const qb_json *children = qb_json_get(j, "pretokenizers");
        if (!qb_json_is_array(children))
            return qb_fail(QB_ERR_FORMAT, "%s: \"pretokenizers\" must be an array", r->name);
        for (const qb_json *c = qb_json_first(children); c && st == QB_OK; c = qb_json_next(c))
            st = read_one(r, c);
        return st;
    }
    if (!strcmp(type, "Split")) return read_split(r, j);
    if (!strcmp(type, "ByteLevel")) return read_byte_level(r, j);
    if (!strcmp(type, "Metaspace")) return read_metaspace(r, j);
    if (!strcmp(type, "Digits") || !strcmp(type, "Punctuation") || !strcmp(type, "WhitespaceSplit"))
        return read_class(r, j, type);
    if (!strcmp(type, "BertPreTokenizer")) {
        st = read_class(r, j, "WhitespaceSplit");
        return st == QB_OK ? read_class(r, j, "Punctuation") : st;
    }
    if (!strcmp(type, "Whitespace"))
        return qb_tokenizer_add_split(r->t, "\\w+|[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\s]+",
                                      QB_SPLIT_REMOVED, true, r->name);
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%s: pre_tokenizer \"%s\" is not supported (supported: null, Sequence, Split, ByteLevel, "
                   "Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, BertPreTokenizer)",
                   r->name, type);
}

qb_status qb_reader_pretokenizer(const qb_reader *r, const qb_json *section) {
    return qb_json_is_null(section) ? QB_OK : read_one(r, section);
}
