/* What the tokenizers promise beyond the recorded goldens: hand-checked ids, whole datasets, published
   vectors, the way back, bounded work, and one clear sentence for every file that is not understood. */
#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "tests/support.h"
#include "tokenizer/parts.h"

#define LLAMA2_JSON  "tokenizers/llama2/tokenizer.json"
#define LLAMA2_MODEL "tokenizers/llama2/tokenizer.model"

/* The case "tiny" of the golden file: the Llama-2 form; pieces 3..258 are bytes, 259 is the space symbol,
   then a b c d e f g h i l m n o r s t u . e-acute, and 279 onward merged pieces. */
static char *tiny_text(void) {
    qb_json *golden;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/tokenizer_hostile.json", 16 << 20, &golden));
    char *text = NULL;
    for (const qb_json *c = qb_json_first(qb_json_get(golden, "cases")); c; c = qb_json_next(c))
        if (!strcmp(qb_json_string(qb_json_get(c, "tokenizer")), "tiny"))
            text = qb_strdup(qb_json_string(qb_json_get(c, "json")));
    qb_json_free(golden);
    assert_non_null(text);
    return text;
}

static qb_tokenizer *open_tiny(void) {
    char *text = tiny_text();
    qb_tokenizer *t;
    assert_ok(qb_tokenizer_parse_json(text, strlen(text), "tiny", &t));
    qb_free(text);
    return t;
}

static void assert_encodes(const qb_tokenizer *t, const char *text, size_t n, const int32_t *expected,
                           size_t n_expected) {
    qb_ids ids = {0};
    assert_ok(qb_tokenizer_encode(t, text, n, true, &ids));
    bool same = ids.count == n_expected;
    for (size_t i = 0; same && i < n_expected; i++) same = ids.ids[i] == expected[i];
    if (!same) {
        print_error("\"%s\" gives", text);
        for (size_t i = 0; i < ids.count; i++) print_error(" %d", ids.ids[i]);
        fail_msg("; expected %zu other ids", n_expected);
    }
    qb_ids_free(&ids);
}
#define ENCODES(t, text, ...)                                                                                \
    assert_encodes(t, text, sizeof(text) - 1, (const int32_t[]){__VA_ARGS__},                                \
                   sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void test_tokenizer__tiny_equals_hand_checked_ids(void **state) {
    (void)state;
    qb_tokenizer *t = open_tiny();
    ENCODES(t, "", 1);
    ENCODES(t, "the an", 1, 281, 287);
    ENCODES(t, " the", 1, 259, 281);
    ENCODES(t, "aaa", 1, 283, 292);      /* "_ a" is rank 4, "a a" the last */
    ENCODES(t, "   ", 1, 285);           /* prepended space makes four */
    ENCODES(t, "a\nb", 1, 283, 13, 261); /* byte 0x0A is 3 + 10 */
    ENCODES(t, "\xF0\x9F\x9A\x80", 1, 259, 243, 162, 157, 131);
    ENCODES(t, "a\0b", 1, 283, 3, 261);
    ENCODES(t, "<s>he</s>", 1, 1, 259, 280, 2); /* each part between special tokens gets its own prefix */
    /* Bytes that form no character fall back one by one: a lone one, a surrogate, an overlong slash. */
    ENCODES(t, "a\xFF", 1, 283, 258);
    ENCODES(t, "\xED\xA0\x80", 1, 259, 240, 163, 131);
    ENCODES(t, "\xC0\xAF", 1, 259, 195, 178);
    ENCODES(t, "e\xCC", 1, 259, 264, 207);
    assert_int_equal(qb_tokenizer_vocab_size(t), 293);
    assert_int_equal(qb_tokenizer_bos(t), 1);
    assert_int_equal(qb_tokenizer_eos(t), 2);
    assert_true(qb_tokenizer_adds_bos(t, QB_ENDS_TEMPLATE));
    qb_ids ids = {0};
    assert_ok(qb_tokenizer_encode(t, "an", 2, false, &ids));
    assert_ok(qb_tokenizer_encode(t, "an", 2, false, &ids)); /* appends */
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.ids[1], 287);
    qb_ids_free(&ids);
    qb_tokenizer_close(t);
}

static void assert_text(qb_str *found, const char *expected, size_t n) {
    assert_int_equal(found->length, n);
    assert_memory_equal(qb_str_get(found), expected, n);
    found->length = 0;
}

static void test_tokenizer__decodes_bytes_pieces_and_refuses_unknown_ids(void **state) {
    (void)state;
    qb_tokenizer *t = open_tiny();
    qb_str s = {0};
    assert_ok(qb_tokenizer_decode(t, (const int32_t[]){1, 281, 287, 2}, 4, &s));
    assert_text(&s, "the an", 6);
    assert_ok(qb_tokenizer_decode(t, (const int32_t[]){258, 3, 243}, 3, &s)); /* no UTF-8: kept */
    assert_text(&s, "\xFF\0\xF0", 3);
    assert_ok(qb_tokenizer_decode(t, (const int32_t[]){259, 259, 280}, 3, &s)); /* one space is stripped */
    assert_text(&s, " he", 3);
    assert_ok(qb_tokenizer_piece(t, 281, &s)); /* none in the middle of a text */
    assert_text(&s, " the", 4);
    assert_ok(qb_tokenizer_piece(t, 13, &s));
    assert_text(&s, "\n", 1);
    assert_ok(qb_tokenizer_piece(t, 1, &s));
    assert_text(&s, "", 0);
    assert_fails(qb_tokenizer_decode(t, (const int32_t[]){281, 293}, 2, &s), QB_ERR_FORMAT, "token id 293");
    assert_fails(qb_tokenizer_decode(t, (const int32_t[]){-1}, 1, &s), QB_ERR_FORMAT, "token id -1");
    assert_fails(qb_tokenizer_piece(t, 1 << 30, &s), QB_ERR_FORMAT, "vocabulary of 293");
    qb_str_free(&s);
    qb_tokenizer_close(t);
}

/* --- whole datasets
 * --------------------------------------------------------------------------------------------------- */

/* wikitext2 as the datasets library gives it: rows are lines with their newline, blank ones empty, joined by
 * "\n\n". */
static void join_wikitext(const char *raw, size_t n, qb_str *out) {
    const char *end = raw + n;
    for (const char *p = raw; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *next = newline ? newline + 1 : end;
        if (p > raw) qb_str_text(out, "\n\n");
        bool blank = strspn(p, " ") == (size_t)(next - p - (newline != NULL));
        if (!blank) qb_str_append(out, p, (size_t)(next - p));
        p = next;
    }
}

static void assert_dataset(const qb_tokenizer *t, const char *text, size_t n, const qb_json *expected,
                           const char *what) {
    qb_ids ids = {0};
    char hex[QB_SHA256_HEX];
    assert_ok(qb_tokenizer_encode(t, text, n, true, &ids));
    assert_ok(qb_hash_bytes(ids.ids, ids.count * sizeof *ids.ids, hex));
    if ((double)ids.count != qb_json_number(qb_json_get(expected, "tokens")))
        fail_msg("%s: %zu ids, expected %g", what, ids.count,
                 qb_json_number(qb_json_get(expected, "tokens")));
    assert_string_equal(hex, qb_json_string(qb_json_get(expected, "sha256_int32le")));
    qb_str back = {0};
    assert_ok(qb_tokenizer_decode(t, ids.ids, ids.count, &back));
    if (!strstr(text, "<unk>")) { /* which the .json forms find in the text, and leave out when decoding */
        assert_int_equal(back.length, n);
        assert_memory_equal(back.text, text, n);
    }
    qb_str_free(&back);
    qb_ids_free(&ids);
}

static void test_tokenizer__wikitext2_equals_recorded_hashes(void **state) {
    (void)state;
    static const char *const rows[][2] = {{LLAMA2_JSON, "llama2"},
                                          {LLAMA2_MODEL, "llama2"},
                                          {"models/wikimini-hf/tokenizer.json", "wikimini"},
                                          {"models/wikimini-hf/tokenizer.model", "wikimini"}};
    qb_json *golden;
    char *raw;
    size_t n;
    qb_str joined = {0};
    assert_ok(qb_json_read(shared_path("golden/text.json"), 1 << 20, &golden));
    assert_ok(qb_file_read(shared_path("data/wikitext2/wiki.test.raw"), 1 << 24, &raw, &n));
    join_wikitext(raw, n, &joined);
    for (size_t i = 0; i < 4; i++) {
        qb_tokenizer *t;
        assert_ok(qb_tokenizer_open_file(shared_path(rows[i][0]), &t));
        const qb_json *sets = qb_json_get(qb_json_get(golden, rows[i][1]), "datasets");
        assert_dataset(t, joined.text, joined.length, qb_json_get(sets, "wikitext2"), rows[i][0]);
        assert_dataset(t, raw, n, qb_json_get(sets, "raw bytes of wiki.test.raw"), rows[i][0]);
        qb_tokenizer_close(t);
    }
    qb_str_free(&joined);
    qb_free(raw);
    qb_json_free(golden);
}

/* llama.cpp's vectors for its SentencePiece vocabulary: texts between marker lines, a line of ids each, no
 * BOS. */
static void test_tokenizer__equals_published_vectors(void **state) {
    (void)state;
    static const char marker[] = "\n__ggml_vocab_test__\n";
    char *texts, *lines;
    assert_ok(qb_file_read(shared_path("tokenizers/vectors/llama-spm.inp"), 1 << 20, &texts, NULL));
    assert_ok(qb_file_read(shared_path("tokenizers/vectors/llama-spm.out"), 1 << 20, &lines, NULL));
    for (int form = 0; form < 2; form++) {
        qb_tokenizer *t;
        assert_ok(qb_tokenizer_open_file(shared_path(form ? LLAMA2_MODEL : LLAMA2_JSON), &t));
        int checked = 0;
        char *line = lines;
        for (char *text = texts, *end; (end = strstr(text, marker));
             text = end + sizeof marker - 1, checked++) {
            qb_ids ids = {0};
            assert_ok(qb_tokenizer_encode(t, text, (size_t)(end - text), false, &ids));
            for (size_t i = 0; i < ids.count; i++) assert_int_equal(ids.ids[i], strtol(line, &line, 10));
            while (*line == ' ') line++;
            assert_int_equal(*line++, '\n');
            qb_ids_free(&ids);
        }
        assert_true(checked >= 40);
        qb_tokenizer_close(t);
    }
    qb_free(texts);
    qb_free(lines);
}

/* --- properties
 * ---------------------------------------------------------------------------------------------------------
 */

static size_t random_character(qb_pyrandom *r, char out[4]) {
    static const int64_t top[] = {0x7F, 0x7F, 0x7F, 0x24F, 0x9FFF, 0x1FAFF};
    uint32_t c = (uint32_t)qb_pyrandom_randint(r, 0, top[qb_pyrandom_randint(r, 0, 5)]);
    if (qb_pyrandom_randint(r, 0, 3) == 0) c = ' ';
    if (c == '<' || c == 0x2581 || (c >= 0xD800 && c < 0xE000))
        c = 'x'; /* special tokens and the space symbol */
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xC0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    size_t n = c < 0x10000 ? 3 : 4;
    out[0] = (char)(n == 3 ? 0xE0 | c >> 12 : 0xF0 | c >> 18);
    for (size_t i = 1; i < n; i++) out[i] = (char)(0x80 | (c >> (6 * (n - 1 - i)) & 63));
    return n;
}

static void check_round_trips(const qb_tokenizer *t) {
    qb_pyrandom r;
    qb_pyrandom_seed(&r, 7);
    for (int trial = 0; trial < 300; trial++) {
        qb_str text = {0}, back = {0};
        qb_ids ids = {0};
        for (int64_t n = qb_pyrandom_randint(&r, 0, 80); n > 0; n--) {
            char c[4];
            size_t length = random_character(&r, c);
            qb_str_append(&text, c, length);
        }
        assert_ok(qb_tokenizer_encode(t, qb_str_get(&text), text.length, trial % 2, &ids));
        assert_ok(qb_tokenizer_decode(t, ids.ids, ids.count, &back));
        assert_int_equal(back.length, text.length);
        assert_memory_equal(qb_str_get(&back), qb_str_get(&text), text.length);
        /* Streaming gives the same text but for the space before. */
        qb_str pieces = {0};
        for (size_t i = 0; i < ids.count; i++) assert_ok(qb_tokenizer_piece(t, ids.ids[i], &pieces));
        if (text.length) {
            assert_int_equal(pieces.length, text.length + 1);
            assert_memory_equal(pieces.text + 1, text.text, text.length);
        }
        qb_str_free(&pieces);
        qb_str_free(&text);
        qb_str_free(&back);
        qb_ids_free(&ids);
    }
}

static void test_tokenizer__decode_undoes_encode(void **state) {
    (void)state;
    qb_tokenizer *t = open_tiny();
    check_round_trips(t);
    qb_tokenizer_close(t);
}

static void test_tokenizer__decode_undoes_encode_llama2(void **state) {
    (void)state;
    for (int form = 0; form < 2; form++) {
        qb_tokenizer *t;
        assert_ok(qb_tokenizer_open_file(shared_path(form ? LLAMA2_MODEL : LLAMA2_JSON), &t));
        check_round_trips(t);
        qb_tokenizer_close(t);
    }
}

/* Heap insertions for a text without any cut or cached word, per byte. */
static double pushes_per_byte(const qb_tokenizer *t, const char *text, size_t n) {
    qb_ids ids = {0};
    qb_bpe_run *run;
    size_t read;
    assert_ok(qb_bpe_begin(&t->bpe, &ids, 0, &run));
    assert_ok(qb_bpe_feed(run, text, n, &read));
    double pushes = (double)qb_bpe_pushes(run) / (double)n;
    qb_bpe_end(run);
    qb_ids_free(&ids);
    return pushes;
}

static void check_work(qb_tokenizer *t) {
    enum { N = 1 << 20 };
    char *text;
    assert_ok(qb_alloc(N, 1, &text));
    memset(text, 'a', N);
    assert_true(pushes_per_byte(t, text, N) <= 3);
    memset(text, ' ', N);
    assert_true(pushes_per_byte(t, text, N) <= 3);
    for (size_t i = 0; i < N; i++) text[i] = (char)qb_noise_u64(1, i);
    assert_true(pushes_per_byte(t, text, N) <= 3);
    qb_free(text);
}

static void test_tokenizer__work_is_bounded_by_the_text(void **state) {
    (void)state;
    qb_tokenizer *t = open_tiny();
    check_work(t);
    qb_tokenizer_close(t);
}

/* Cutting and caching must not change ids: the same text again as one word. */
static void check_cuts(qb_tokenizer *t, const char *text, size_t n) {
    qb_ids cut = {0}, whole = {0};
    assert_non_null(t->bpe.joins);
    assert_ok(qb_tokenizer_encode(t, text, n, true, &cut));
    uint8_t *joins = t->bpe.joins;
    t->bpe.joins = NULL;
    assert_ok(qb_tokenizer_encode(t, text, n, true, &whole));
    t->bpe.joins = joins;
    assert_int_equal(cut.count, whole.count);
    assert_memory_equal(cut.ids, whole.ids, cut.count * sizeof *cut.ids);
    qb_ids_free(&cut);
    qb_ids_free(&whole);
}

static void test_tokenizer__cuts_change_nothing(void **state) {
    (void)state;
    static const char *const files[] = {LLAMA2_JSON, LLAMA2_MODEL, "models/wikimini-hf/tokenizer.json"};
    char *text;
    size_t n;
    assert_ok(qb_file_read(shared_path("data/wikitext2/wiki.test.raw"), 1 << 24, &text, &n));
    for (size_t i = 0; i < 3; i++) {
        qb_tokenizer *t;
        assert_ok(qb_tokenizer_open_file(shared_path(files[i]), &t));
        check_cuts(t, text, n < 300000 ? n : 300000);
        /* Llama's rules never join a word's end to the next word's space: else this would be one long word.
         */
        assert_true(pushes_per_byte(t, text, 300000) < 0.5);
        qb_tokenizer_close(t);
    }
    qb_free(text);
}

/* --- files beside, and refusals
 * ------------------------------------------------------------------------------------------ */

static void write_text(const char *dir, const char *name, const char *text, size_t n) {
    char *path = qb_path_join(dir, name);
    assert_ok(qb_file_write_atomic(path, text, n));
    qb_free(path);
}

static void test_tokenizer__opens_directories_and_follows_their_config(void **state) {
    (void)state;
    char *dir = scratch_make(), *tiny = tiny_text();
    qb_tokenizer *t;
    assert_fails(qb_tokenizer_open(dir, &t), QB_ERR_NOT_FOUND,
                 "found none of tokenizer.json, tokenizer.model");
    write_text(dir, "vocab.json", "{}", 2);
    assert_fails(qb_tokenizer_open(dir, &t), QB_ERR_NOT_FOUND, "vocab.json is there, merges.txt is not");
    write_text(dir, "tokenizer.json", tiny, strlen(tiny));
    static const char config[] =
        "{\"bos_token\": {\"content\": \"</s>\"}, \"eos_token\": \"<unk>\", \"add_bos_token\": true}";
    write_text(dir, "tokenizer_config.json", config, sizeof config - 1);
    assert_ok(qb_tokenizer_open(dir, &t));
    assert_int_equal(qb_tokenizer_bos(t), 2);
    assert_int_equal(qb_tokenizer_eos(t), 0);
    ENCODES(t, "an", 1, 287); /* the template of tokenizer.json decides what is added */
    qb_tokenizer_close(t);
    write_text(dir, "tokenizer_config.json", "{", 1);
    assert_fails(qb_tokenizer_open(dir, &t), QB_ERR_FORMAT, "tokenizer_config.json");
    assert_null(t);
    assert_fails(qb_tokenizer_open_file("tokenizer.txt", &t), QB_ERR_UNSUPPORTED, ".json, .model or");
    qb_free(tiny);
    scratch_remove(dir);
}

static void test_tokenizer__model_follows_config(void **state) {
    (void)state;
    const char *model = shared_path(LLAMA2_MODEL); /* first: nothing is held where it is absent */
    char *dir = scratch_make(), *to = qb_path_join(dir, "tokenizer.model");
    qb_tokenizer *t;
    assert_ok(qb_copy_file(model, to));
    assert_ok(qb_tokenizer_open(dir, &t));
    ENCODES(t, "Hello world", 1, 15043, 3186); /* without a config: as transformers' Llama class */
    ENCODES(t, "<s>", 1, 1);                   /* as transformers, not as SentencePiece alone */
    ENCODES(t, "a\xFF", 1, 263, 30140);        /* and reads U+FFFD for bytes that form no character */
    qb_tokenizer_close(t);
    static const char config[] = "{\"add_bos_token\": false, \"add_eos_token\": true}";
    write_text(dir, "tokenizer_config.json", config, sizeof config - 1);
    assert_ok(qb_tokenizer_open(dir, &t));
    ENCODES(t, "Hello world", 15043, 3186, 2);
    assert_false(qb_tokenizer_adds_bos(t, QB_ENDS_TEMPLATE));
    assert_int_equal(qb_tokenizer_bos(t), 1);
    qb_tokenizer_close(t);
    qb_free(to);
    scratch_remove(dir);
}

/* Ids of a text under a rule, with the ends of the file. */
#define ENCODES_AS(t, rule, around, text, ...)                                                               \
    do {                                                                                                     \
        static const int32_t expected_ids[] = {__VA_ARGS__};                                                 \
        qb_ids found_ids = {0};                                                                              \
        qb_encoding encoding = {.special = (rule), .ends = (around)};                                        \
        assert_ok(qb_tokenizer_encode_as(t, text, strlen(text), &encoding, &found_ids));                     \
        assert_int_equal(found_ids.count, sizeof expected_ids / sizeof expected_ids[0]);                     \
        assert_memory_equal(found_ids.ids, expected_ids, sizeof expected_ids);                               \
        qb_ids_free(&found_ids);                                                                             \
    } while (0)

/* All files that can carry added tokens of a directory with tokenizer.model alone. Ids: transformers 4.46's
   LlamaTokenizer. */
static void test_tokenizer__model_takes_tokens_from_every_file(void **state) {
    (void)state;
    const char *model =
        shared_path("models/wikimini-hf/tokenizer.model"); /* first: nothing is held where it is absent */
    char *dir = scratch_make(), *to = qb_path_join(dir, "tokenizer.model");
    qb_tokenizer *t;
    assert_ok(qb_copy_file(model, to));
    assert_ok(qb_tokenizer_open(dir, &t));
    int32_t n = qb_tokenizer_vocab_size(t);
    ENCODES_AS(t, QB_SPECIAL_LEGACY, QB_ENDS_NONE, "the <unk> of", 264, 3966, 0, 3966, 287);
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_NONE, "the <unk> of", 264, 3966, 0, 3966, 287);
    qb_tokenizer_close(t);
    static const char listed[] = "{\"<x>\": 4096, \"<far>\": 4100}", map[] = "{\"pad_token\": \"<pad>\"}";
    assert_int_equal(n, 4096);
    write_text(dir, "added_tokens.json", listed, sizeof listed - 1);
    write_text(dir, "special_tokens_map.json", map, sizeof map - 1);
    static const char config[] = "{\"legacy\": false, \"unk_token\": \"\", \"additional_special_tokens\": "
                                 "[\"<a>\", {\"content\": \"<b>\", \"rstrip\": true}]}";
    write_text(dir, "tokenizer_config.json", config, sizeof config - 1);
    assert_ok(qb_tokenizer_open(dir, &t));
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_TEMPLATE, "<x><far><pad><a>", 1, 4096, 4100, 4101, 4102);
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_NONE, "the<b>  of", 264, 4103, 1988); /* rstrip; no prefix */
    qb_ids ids = {0};
    qb_encoding e = {.special = QB_SPECIAL_FILE};
    assert_ok(qb_tokenizer_encode_as(t, "the <unk> of", 12, &e, &ids));
    assert_int_equal(e.found, 0); /* unk_token "": text, as in the first conversions of Llama-1 */
    for (size_t i = 0; i < ids.count; i++) assert_int_not_equal(ids.ids[i], 0);
    qb_ids_free(&ids);
    qb_tokenizer_close(t);
    static const char decoder[] = "{\"added_tokens_decoder\": {\"4096\": {\"content\": \"<x>\", \"lstrip\": "
                                  "true, \"special\": false}}}";
    write_text(dir, "tokenizer_config.json", decoder, sizeof decoder - 1);
    assert_ok(qb_tokenizer_open(dir, &t));
    ENCODES_AS(t, QB_SPECIAL_TEXT, QB_ENDS_NONE, "the <x>", 264, 4096); /* not special: never text */
    qb_tokenizer_close(t);
    static const char wrong[] = "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<x>\"}}}";
    write_text(dir, "tokenizer_config.json", wrong, sizeof wrong - 1);
    assert_fails(qb_tokenizer_open(dir, &t), QB_ERR_FORMAT, "added_tokens_decoder");
    qb_free(to);
    scratch_remove(dir);
}

/* add_bos_token and add_eos_token beside a tokenizer.json, and flags that tokenizer_config.json overrides. */
static void test_tokenizer__keys_beside_a_template(void **state) {
    (void)state;
    char *dir = scratch_make(), *tiny = tiny_text();
    qb_tokenizer *t;
    write_text(dir, "tokenizer.json", tiny, strlen(tiny));
    assert_ok(qb_tokenizer_open(dir, &t));
    assert_null(qb_tokenizer_conflict(t));
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_KEYS, "an", 1, 287);
    qb_tokenizer_close(t);
    static const char config[] =
        "{\"add_bos_token\": false, \"add_eos_token\": true, \"eos_token\": \"</s>\"}";
    write_text(dir, "tokenizer_config.json", config, sizeof config - 1);
    assert_ok(qb_tokenizer_open(dir, &t));
    assert_non_null(strstr(qb_tokenizer_conflict(t), "add_bos_token is false"));
    assert_non_null(strstr(qb_tokenizer_conflict(t), "add_eos_token is true"));
    assert_true(qb_tokenizer_adds_bos(t, QB_ENDS_TEMPLATE));
    assert_false(qb_tokenizer_adds_bos(t, QB_ENDS_KEYS));
    assert_false(qb_tokenizer_adds_bos(t, QB_ENDS_NONE));
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_TEMPLATE, "an", 1, 287);
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_KEYS, "an", 287, 2);
    qb_tokenizer_close(t);
    static const char flags[] =
        "{\"added_tokens_decoder\": {\"2\": {\"content\": \"</s>\", \"rstrip\": true, "
        "\"normalized\": false, \"special\": true}}}";
    write_text(dir, "tokenizer_config.json", flags, sizeof flags - 1);
    assert_ok(qb_tokenizer_open(dir, &t));
    ENCODES_AS(t, QB_SPECIAL_FILE, QB_ENDS_NONE, "</s>  an", 2, 287);
    qb_tokenizer_close(t);
    qb_free(tiny);
    scratch_remove(dir);
}

/* The tiny tokenizer with its first `from` replaced by `to`. */
static void assert_refused(const char *from, const char *to, qb_status status, const char *needle) {
    char *tiny = tiny_text(), *at = strstr(tiny, from);
    assert_non_null(at);
    qb_str s = {0};
    qb_str_append(&s, tiny, (size_t)(at - tiny));
    qb_str_text(&s, to);
    qb_str_text(&s, at + strlen(from));
    qb_tokenizer *t;
    assert_fails(qb_tokenizer_parse_json(s.text, s.length, "x.json", &t), status, needle);
    assert_non_null(strstr(qb_error_text(), "x.json"));
    assert_null(t);
    qb_str_free(&s);
    qb_free(tiny);
}

static void test_tokenizer__refuses_what_would_change_ids(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        qb_status status;
        const char *needle;
    } rows[] = {
        {"\"Prepend\"", "\"NFX\"", QB_ERR_UNSUPPORTED, "normalizer \"NFX\""},
        {"{\"String\":\" \"}", "{\"Regex\":\"(\"}", QB_ERR_UNSUPPORTED, "regular expression \"(\""},
        {"{\"String\":\" \"}", "{\"Regex\":\"[a&&b]\"}", QB_ERR_UNSUPPORTED, "an intersection of sets"},
        {"{\"String\":\" \"}", "{\"Regex\":\"\\\\h\"}", QB_ERR_UNSUPPORTED, "has \\h"},
        {"{\"String\":\" \"}", "{\"String\":\"\"}", QB_ERR_FORMAT, "\"String\" is empty"},
        {"\"pre_tokenizer\":null", "\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}", QB_ERR_UNSUPPORTED,
         "\"UnicodeScripts\""},
        {"\"pre_tokenizer\":null",
         "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Both\"}",
         QB_ERR_UNSUPPORTED, "split behavior \"Both\""},
        {"\"pre_tokenizer\":null", "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}",
         QB_ERR_FORMAT, "one character"},
        {"\"post_processor\":{", "\"post_processor\":{\"type\":\"BertProcessing\"},\"padding\":{",
         QB_ERR_FORMAT, "\"cls\" must be a token"},
        /* members that nobody reads */
        {"\"type\":\"Prepend\"", "\"type\":\"Prepend\",\"novelty\":true", QB_ERR_UNSUPPORTED,
         "Prepend with \"novelty\" is not supported"},
        {"\"pre_tokenizer\":null", "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"novelty\":1}",
         QB_ERR_UNSUPPORTED, "ByteLevel with \"novelty\""},
        {"\"TemplateProcessing\"", "\"TemplateProcessing\",\"novelty\":[]", QB_ERR_UNSUPPORTED,
         "TemplateProcessing with \"novelty\""},
        {"\"ByteFallback\"", "\"ByteFallback\",\"novelty\":0", QB_ERR_UNSUPPORTED,
         "ByteFallback with \"novelty\""},
        {"\"content\":\"</s>\"", "\"content\":\"</s>\",\"novelty\":true", QB_ERR_UNSUPPORTED,
         "an added token with \"novelty\""},
        {"\"pre_tokenizer\":null", "\"pre_tokenizer\":null,\"novelty\":{}", QB_ERR_UNSUPPORTED,
         "the file with \"novelty\""},
        {"\"TemplateProcessing\"", "\"Wrap\"", QB_ERR_UNSUPPORTED, "post_processor \"Wrap\""},
        {"\"ids\":[1]", "\"ids\":[293]", QB_ERR_FORMAT, "which no piece of the 293 has"},
        {"\"id\":\"A\"", "\"id\":\"B\"", QB_ERR_UNSUPPORTED, "sequence A once"},
        {"\"ByteFallback\"", "\"WordPiece\"", QB_ERR_UNSUPPORTED, "decoder \"WordPiece\""},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", QB_ERR_FORMAT, "[piece, score]"},
        {"\"type\":\"BPE\"", "\"type\":\"WordPiece\"", QB_ERR_UNSUPPORTED, "model \"WordPiece\""},
        {"\"dropout\":null", "\"dropout\":0.1", QB_ERR_UNSUPPORTED, "dropout"},
        {"\"dropout\":null", "\"novelty\":null", QB_ERR_UNSUPPORTED, "novelty"},
        {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", QB_ERR_UNSUPPORTED,
         "end_of_word_suffix"},
        {"\"unk_token\":\"<unk>\"", "\"unk_token\":\"<none>\"", QB_ERR_FORMAT, "unk_token \"<none>\""},
        {"\"id\":2,\"content\":\"</s>\"", "\"id\":7,\"content\":\"</s>\"", QB_ERR_FORMAT,
         "the vocabulary gives it 2"},
        {"\"content\":\"</s>\"", "\"content\":\"</z>\"", QB_ERR_FORMAT, "the next free id is 293"},
        {"\"aa\":292", "\"aa\":291", QB_ERR_FORMAT, "id 291 is given to two pieces"},
        {"\"aa\":292", "\"re\":292", QB_ERR_FORMAT, "appears twice"},
        {"\"aa\":292", "\"\":292", QB_ERR_FORMAT, "is empty"},
        {"\"aa\":292", "\"aa\":2.5", QB_ERR_FORMAT, "must be an integer"},
        {"\"aa\":292", "\"aa\":16000000", QB_ERR_FORMAT, "only 293 pieces"},
        {"\"aa\":292", "\"a\\u0000a\":292", QB_ERR_UNSUPPORTED, "\\u0000"},
        {"\"a a\"", "\"a q\"", QB_ERR_FORMAT, "right piece is not in the vocabulary"},
        {"\"a a\"", "\"a u\"", QB_ERR_FORMAT, "result is not in the vocabulary"},
        {"\"a a\"", "\"a a a\"", QB_ERR_FORMAT, "merge 14 must be two pieces"},
        {"\"a a\"", "[\"a\"]", QB_ERR_FORMAT, "merge 14 must be two pieces"},
        {"\"vocab\"", "\"unk_token\"", QB_ERR_FORMAT, "\"vocab\" must be an object"},
        {"\"model\":{", "\"model\":{]", QB_ERR_FORMAT, "not valid JSON"},
        {"\"model\"", "\"remodel\"", QB_ERR_FORMAT, "\"model\" is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_refused(rows[i].from, rows[i].to, rows[i].status, rows[i].needle);
}

/* A model of the pieces <unk>, a, b, ab: by hand, so that single bytes can be spoilt. */
static const uint8_t small_model[] = {
    0x0A, 0x09, 0x0A, 5, '<',  'u',  'n',  'k', '>', 0x18, 2,    /* type UNKNOWN */
    0x0A, 0x08, 0x0A, 1, 'a',  0x15, 0,    0,   0,   0,          /* score 0 */
    0x0A, 0x08, 0x0A, 1, 'b',  0x15, 0,    0,   0,   0,          /* score 0 */
    0x0A, 0x09, 0x0A, 2, 'a',  'b',  0x15, 0,   0,   0xC0, 0xBF, /* score -1.5 */
    0x12, 0x02, 0x18, 2,                                         /* trainer_spec: BPE */
    0x1A, 0x04, 0x18, 0, 0x20, 0,                                /* no prefix, keep white space */
};

static void assert_model_refused(size_t at, uint8_t byte, size_t n, qb_status status, const char *needle) {
    uint8_t spoilt[sizeof small_model];
    memcpy(spoilt, small_model, sizeof small_model);
    spoilt[at] = byte;
    qb_tokenizer *t;
    assert_fails(qb_tokenizer_parse_model(spoilt, n, "x.model", &t), status, needle);
    assert_null(t);
}

static void test_tokenizer__refuses_spoilt_models(void **state) {
    (void)state;
    const size_t n = sizeof small_model;
    qb_tokenizer *t;
    assert_ok(qb_tokenizer_parse_model(small_model, n, "x.model", &t));
    ENCODES(t, "abba", 3, 2, 1);
    ENCODES(t, "xya", 0, 1);
    assert_int_equal(qb_tokenizer_bos(t), -1);
    qb_tokenizer_close(t);
    assert_model_refused(n - 7, 3, n, QB_ERR_UNSUPPORTED, "WORD");
    assert_model_refused(n - 7, 9, n, QB_ERR_UNSUPPORTED, "not supported");
    assert_model_refused(10, 1, n, QB_ERR_FORMAT, "no piece is of type UNKNOWN");
    assert_model_refused(10, 9, n, QB_ERR_FORMAT, "unknown type 9");
    assert_model_refused(10, 6, n, QB_ERR_FORMAT, "byte_fallback is off");
    assert_model_refused(3, 100, n, QB_ERR_FORMAT, "claims 100 bytes, 7 are left");
    assert_model_refused(25, 'a', n, QB_ERR_FORMAT, "appears twice");
    assert_model_refused(41, 0xFF, n, QB_ERR_FORMAT, "not a number");
    assert_model_refused(0, 0x0B, n, QB_ERR_FORMAT, "wire type 3");
    assert_model_refused(n - 6, 0x1A, n - 1, QB_ERR_FORMAT, "claims 4 bytes");
    assert_model_refused(n - 4, 0x10, n, QB_ERR_FORMAT, "precompiled_charsmap must have wire type 2");
    uint8_t mapped[sizeof small_model + 6];
    memcpy(mapped, small_model, n);
    memcpy(mapped + n, (const uint8_t[]){0x1A, 4, 0x12, 2, 'x', 'y'}, 6);
    assert_fails(qb_tokenizer_parse_model(mapped, n + 6, "x.model", &t), QB_ERR_FORMAT,
                 "character map of 2 bytes is damaged");
    assert_fails(qb_tokenizer_parse_model(NULL, 0, "x.model", &t), QB_ERR_FORMAT, "no pieces");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer__tiny_equals_hand_checked_ids),
        cmocka_unit_test(test_tokenizer__decodes_bytes_pieces_and_refuses_unknown_ids),
        cmocka_unit_test(test_tokenizer__wikitext2_equals_recorded_hashes),
        cmocka_unit_test(test_tokenizer__equals_published_vectors),
        cmocka_unit_test(test_tokenizer__decode_undoes_encode),
        cmocka_unit_test(test_tokenizer__decode_undoes_encode_llama2),
        cmocka_unit_test(test_tokenizer__work_is_bounded_by_the_text),
        cmocka_unit_test(test_tokenizer__cuts_change_nothing),
        cmocka_unit_test(test_tokenizer__opens_directories_and_follows_their_config),
        cmocka_unit_test(test_tokenizer__model_follows_config),
        cmocka_unit_test(test_tokenizer__model_takes_tokens_from_every_file),
        cmocka_unit_test(test_tokenizer__keys_beside_a_template),
        cmocka_unit_test(test_tokenizer__refuses_what_would_change_ids),
        cmocka_unit_test(test_tokenizer__refuses_spoilt_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
