/* bench tokenize: text -> ids, with the count and hash that other programs' ids can be checked against. */
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/session.h"
#include "datasets/datasets.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *file, *text, *dataset, *data, *split, *decode, *special_tokens;
    int64_t window;
    bool ids, special;
} tokenize_options;

static const qb_option rows[] = {
    {"file", 'f', QB_OPTION_TEXT, offsetof(tokenize_options, file), NULL, 0, 0, NULL, "FILE",
     "tokenize the bytes of this file (.gz, .zst, .xz, .bz2 and .zip are unpacked)"},
    {"text", 0, QB_OPTION_TEXT, offsetof(tokenize_options, text), NULL, 0, 0, NULL, "TEXT",
     "tokenize this text"},
    {"dataset", 0, QB_OPTION_TEXT, offsetof(tokenize_options, dataset), NULL, 0, 0, NULL, "NAME",
     "tokenize a dataset with its joins; `bench list datasets` names them"},
    {"data", 'd', QB_OPTION_TEXT, offsetof(tokenize_options, data), NULL, 0, 0, NULL, "DIR",
     "where dataset files are looked for first"},
    {"split", 0, QB_OPTION_CHOICE, offsetof(tokenize_options, split), "evaluation", 0, 0,
     "evaluation|calibration", "SPLIT", "which split of the dataset"},
    {"window", 0, QB_OPTION_INT, offsetof(tokenize_options, window), "2048", 1, 1e6, NULL, "TOKENS",
     "window that c4 and c4-new are drawn for"},
    {"decode", 0, QB_OPTION_TEXT, offsetof(tokenize_options, decode), NULL, 0, 0, NULL, "ID,ID",
     "turn ids into text instead"},
    {"special", 0, QB_OPTION_BOOL, offsetof(tokenize_options, special), "true", 0, 0, NULL, NULL,
     "add what the tokenizer's template adds, such as BOS, to --file and --text"},
    {"special-tokens", 0, QB_OPTION_CHOICE, offsetof(tokenize_options, special_tokens), "file", 0, 0,
     "file|text|legacy", "RULE",
     "how text that spells special tokens such as <unk> is read: as the tokenizer's file says, as plain "
     "text, "
     "or as the slow SentencePiece tokenizers did"},
    {"ids", 'i', QB_OPTION_BOOL, offsetof(tokenize_options, ids), NULL, 0, 0, NULL, NULL,
     "print the ids too"},
    {0},
};

static const qb_page page = {
    .name = "tokenize",
    .summary = "turn text into token ids, or ids into text",
    .synopsis = "tokenize MODEL --file FILE | --text TEXT | --dataset NAME [--data DIR] [--ids]\n"
                "tokenize MODEL --decode ID,ID",
    .description =
        "Prints the number of ids and the SHA-256 of the ids as little-endian 32-bit integers, which is how\n"
        "ids of different programs are compared. MODEL needs a tokenizer.json or tokenizer.model, or is a "
        "GGUF\n"
        "file, which holds its tokenizer; its weights are not looked at.",
    .examples = "bench tokenize ./Llama-2-7b-hf --dataset wikitext2 --data ./data --json\n"
                "bench tokenize demo --text 'one two' --ids\n"
                "bench tokenize demo --decode 1,42,7",
};

static qb_status parse_ids(const char *text, const qb_tokenizer *t, qb_ids *out) {
    for (const char *p = text; *p;) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v >= qb_tokenizer_vocab_size(t) || (*end && !strchr(", \n", *end)))
            return qb_fail(QB_ERR_USAGE,
                           "--decode takes ids between 0 and %d separated by commas or spaces, found '%.32s'",
                           (int)qb_tokenizer_vocab_size(t) - 1, p);
        qb_status st = qb_grow(&out->ids, &out->capacity, out->count + 1, sizeof *out->ids);
        if (st != QB_OK) return st;
        out->ids[out->count++] = (int32_t)v;
        p = end + strspn(end, ", \n");
    }
    return QB_OK;
}

static qb_status decode(const tokenize_options *o, const qb_tokenizer *t, bool json) {
    qb_ids ids = {0};
    qb_str text = {0};
    qb_status st;
    QB_TRY(st, parse_ids(o->decode, t, &ids));
    QB_TRY(st, qb_tokenizer_decode(t, ids.ids, ids.count, &text));
    QB_TRY(st, qb_str_status(&text));
    if (json) {
        qb_json *j = qb_json_object();
        qb_json_put_int(j, "count", (int64_t)ids.count);
        qb_json_put_text(j, "text", qb_str_get(&text));
        st = qb_output_json(j);
        qb_json_free(j);
    } else {
        qb_output_bytes(qb_str_get(&text), text.length);
        qb_output("\n");
    }
out:
    qb_str_free(&text);
    qb_ids_free(&ids);
    return st;
}

typedef struct {
    qb_ids ids;
    char hex[QB_SHA256_HEX];
    int64_t found; /* special tokens that the text spells */
    qb_data_files files;
} encoded;

static qb_status encode(const tokenize_options *o, const qb_tokenizer *t, encoded *out) {
    char *text = NULL;
    size_t n;
    qb_encoding e = {.ends = o->special ? QB_ENDS_TEMPLATE : QB_ENDS_NONE};
    qb_status st = qb_special_tokens_parse(o->special_tokens, &e.special);
    if (st != QB_OK) return st;
    if (o->dataset) {
        qb_source source = {o->dataset, o->data, t, e.special};
        return qb_dataset_ids(&source, !strcmp(o->split, "calibration"), o->window, &out->ids, &out->found,
                              &out->files);
    }
    if (o->text) {
        st = qb_tokenizer_encode_as(t, o->text, strlen(o->text), &e, &out->ids);
    } else {
        st = qb_text_read(o->file, &text, &n);
        if (st == QB_OK) st = qb_tokenizer_encode_as(t, text, n, &e, &out->ids);
        qb_free(text);
    }
    out->found = e.found;
    return st;
}

static void id_bytes(const qb_ids *ids, uint8_t *out) {
    for (size_t i = 0; i < ids->count; i++)
        for (int k = 0; k < 4; k++) out[4 * i + (size_t)k] = (uint8_t)((uint32_t)ids->ids[i] >> (8 * k));
}

static qb_status hash_ids(const qb_ids *ids, char hex[QB_SHA256_HEX]) {
    uint8_t *bytes;
    qb_status st = qb_alloc(ids->count, 4, &bytes);
    if (st != QB_OK) return st;
    id_bytes(ids, bytes);
    st = qb_hash_bytes(bytes, ids->count * 4, hex);
    qb_free(bytes);
    return st;
}

static qb_status print_json(const tokenize_options *o, const qb_tokenizer *t, const encoded *e) {
    qb_json *j = qb_json_object();
    const qb_ids *ids = &e->ids;
    qb_json_put_int(j, "count", (int64_t)ids->count);
    qb_json_put_text(j, "sha256", e->hex);
    qb_json_put_text(j, "dataset", o->dataset);
    qb_json_put_text(j, "file", e->files.n ? e->files.files[0].path : o->file);
    qb_json_put_text(j, "special_tokens", o->special_tokens);
    qb_json_put_int(j, "special_tokens_found", e->found);
    qb_json_put_bool(j, "bos", (o->dataset || o->special) && qb_tokenizer_adds_bos(t, QB_ENDS_TEMPLATE));
    if (o->ids) {
        qb_json *array = qb_json_array();
        for (size_t i = 0; i < ids->count; i++) qb_json_push_int(array, ids->ids[i]);
        qb_json_put(j, "ids", array);
    }
    qb_status st = qb_output_json(j);
    qb_json_free(j);
    return st;
}

static void print_text(const tokenize_options *o, const encoded *e) {
    const qb_ids *ids = &e->ids;
    qb_output("%zu ids, sha256 %s\n", ids->count, e->hex);
    if (e->found)
        qb_info("the text spells %" PRId64 " special tokens, read as %s; --special-tokens says otherwise",
                e->found, o->special_tokens);
    for (size_t i = 0; o->ids && i < ids->count; i++)
        qb_output("%s%d", i ? (i % 16 ? " " : "\n") : "", (int)ids->ids[i]);
    if (o->ids && ids->count) qb_output("\n");
}

static qb_status check_sources(const tokenize_options *o) {
    int n = !!o->file + !!o->text + !!o->dataset + !!o->decode;
    if (n == 1) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "give exactly one of --file, --text, --dataset and --decode, found %d of them", n);
}

static qb_status tokenize_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    tokenize_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *model = NULL;
    size_t n_words;
    bool done;
    qb_tokenizer *t = NULL;
    encoded e = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, &model, 1, &n_words, &done));
    if (done) goto out;
    if (!model) return qb_command_missing(&page, "MODEL");
    QB_TRY(st, check_sources(&options));
    QB_TRY(st, qb_session_tokenizer_of(model, &t));
    if (options.decode) {
        st = decode(&options, t, common.json);
        goto out;
    }
    QB_TRY(st, encode(&options, t, &e));
    QB_TRY(st, hash_ids(&e.ids, e.hex));
    if (common.json)
        st = print_json(&options, t, &e);
    else
        print_text(&options, &e);
out:
    qb_ids_free(&e.ids);
    qb_tokenizer_close(t);
    return st;
}

const qb_command qb_command_tokenize = {"tokenize", "turn text into token ids, or ids into text",
                                        tokenize_main};
