/* vocab.json and merges.txt: what GPT-2, OPT, Qwen and their kin had before tokenizer.json. The pattern is
   that of the model's tokenizer class, which tokenizer_config.json names. */
#include "tokenizer/parts.h"
#include "tokenizer/patterns.h"

#include <string.h>

#define END_OF_TEXT "<|endoftext|>"
/* The defaults of the classes' arguments. */
static const char *const gpt2_tokens[] = {"unk_token=" END_OF_TEXT, "bos_token=" END_OF_TEXT,
                                          "eos_token=" END_OF_TEXT, NULL},
                         *const neox_tokens[] = {"unk_token=" END_OF_TEXT, "bos_token=" END_OF_TEXT,
                                                 "eos_token=" END_OF_TEXT, "pad_token=<|padding|>", NULL},
                         *const qwen2_tokens[] = {"unk_token=" END_OF_TEXT, "eos_token=" END_OF_TEXT,
                                                  "pad_token=" END_OF_TEXT, NULL};

/* Classes of transformers, and the model_types that stand for them. */
static const struct {
    const char *names; /* '|' between */
    const char *pattern;
    bool nfc;
    const char *const *tokens; /* NULL: none are known here */
} classes[] = {
    {"GPT2Tokenizer|GPT2TokenizerFast|CodeGenTokenizer|CodeGenTokenizerFast|gpt2|opt|gptj|gpt_neo|codegen|"
     "phi",
     QB_GPT2_PATTERN, false, gpt2_tokens},
    {"RobertaTokenizer|BartTokenizer", QB_GPT2_PATTERN, false, NULL},
    {"GPTNeoXTokenizer|GPTNeoXTokenizerFast|gpt_neox", QB_GPT2_PATTERN, true, neox_tokens},
    {"Qwen2Tokenizer|Qwen2TokenizerFast|qwen2|qwen2_moe|qwen3|qwen3_moe", QB_QWEN2_PATTERN, true,
     qwen2_tokens},
};

static bool names_it(const char *names, const char *word) {
    size_t n = strlen(word);
    for (const char *p = names; *p;) {
        size_t length = strcspn(p, "|");
        if (length == n && !memcmp(p, word, n)) return true;
        p += length + (p[length] == '|');
    }
    return false;
}

static qb_status build_steps(qb_tokenizer *t, const char *kind, bool prefix, const char *name) {
    size_t i = 0, n = sizeof classes / sizeof classes[0];
    while (i < n && !names_it(classes[i].names, kind)) i++;
    if (i == n)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: the tokenizer class or model type \"%.60s\" has no pattern known here for vocab.json and "
            "merges.txt (GPT-2's, CodeGen's, Qwen2's have): save it with transformers as tokenizer.json",
            name, kind);
    qb_status st;
    t->class_tokens = classes[i].tokens;
    if (classes[i].nfc) {
        QB_TRY(st, qb_arena_alloc(&t->arena, 1, sizeof *t->normalizer, &t->normalizer));
        t->normalizer[0] = (qb_normalize_step){.kind = QB_NORMALIZE_UNICODE, .compose = true};
        t->n_normalizer = 1;
    }
    if (prefix) QB_TRY(st, qb_tokenizer_add_step(t, (qb_pre_step){.kind = QB_PRE_PREFIX}, name));
    QB_TRY(st, qb_tokenizer_add_split(t, classes[i].pattern, QB_SPLIT_ISOLATED, false, name));
    QB_TRY(st, qb_tokenizer_add_step(t, (qb_pre_step){.kind = QB_PRE_BYTES}, name));
    st = qb_tokenizer_decode_bytes(t);
out:
    return st;
}

/* "#version: 0.2", then "left right" a line. */
static qb_status read_merge_lines(qb_tokenizer *t, const char *text, size_t n, const char *name) {
    int64_t line = 1, rank = 0, lines = 1;
    qb_str joined = {0};
    qb_status st;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    if (lines > QB_RULES_MAX) return qb_fail(QB_ERR_FORMAT, "%s: too many lines", name);
    QB_TRY(st, qb_bpe_rules_reserve(&t->bpe, (size_t)lines));
    for (const char *p = text, *end = text + n; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p), whole = length;
        while (length && (p[length - 1] == '\r' || p[length - 1] == ' ')) length--;
        bool comment = line == 1 && length >= 8 && !memcmp(p, "#version", 8);
        const char *space = memchr(p, ' ', length);
        if (length && !comment) {
            if (!space) {
                st = qb_fail(QB_ERR_FORMAT, "%s, line %lld: expected two pieces with a space between", name,
                             (long long)line);
                goto out;
            }
            QB_TRY(st, qb_tokenizer_add_merge(t, p, (size_t)(space - p), space + 1,
                                              length - (size_t)(space + 1 - p), rank++, &joined, name));
        }
        p += whole + 1;
    }
out:
    qb_str_free(&joined);
    return st;
}

qb_status qb_tokenizer_read_vocab_merges(qb_tokenizer *t, const char *vocab, size_t n_vocab,
                                         const char *merges, size_t n_merges, const char *kind, bool prefix,
                                         const char *name) {
    qb_json *document = NULL;
    qb_status st;
    QB_TRY(st, qb_json_parse(vocab, n_vocab, name, &document));
    QB_TRY(st, build_steps(t, kind, prefix, name));
    QB_TRY(st, qb_tokenizer_read_bpe_vocab(t, document, 0, n_vocab, name));
    QB_TRY(st, read_merge_lines(t, merges, n_merges, name));
    QB_TRY(st, qb_bpe_finish(&t->bpe, true));
    st = qb_tokenizer_index_added(t);
out:
    qb_json_free(document);
    return st;
}
