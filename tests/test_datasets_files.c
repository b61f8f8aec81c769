/* Files: compressed ones, damaged ones, wrong ones, and where they are looked for. */
#include "base/hash.h"
#include "base/memory.h"
#include "base/str.h"
#include "datasets/archive.h"
#include "datasets/datasets.h"
#include "datasets/documents.h"
#include "datasets/text.h"
#include "tests/support.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define GOLDEN QB_SOURCE_DIR "/tests/golden/datasets"

static qb_tokenizer *tokenizer;
static char *scratch;

static int set_up(void **state) {
    (void)state;
    scratch = scratch_make();
    assert_ok(qb_tokenizer_open_file(GOLDEN "/tokenizer.json", &tokenizer));
    setenv("BENCH_CACHE", scratch, 1);
    unsetenv("BENCH_DATA");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    qb_tokenizer_close(tokenizer);
    scratch_remove(scratch);
    return 0;
}

/* Path below the scratch folder; one of four rotating buffers. */
static const char *at(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static const char *put_bytes(const char *name, const void *bytes, size_t n) {
    const char *path = at(name);
    char *dir = qb_path_dir(path);
    assert_ok(qb_make_dirs(dir));
    assert_ok(qb_file_write_atomic(path, bytes, n));
    qb_free(dir);
    return path;
}

static const char *put(const char *name, const char *text) {
    return put_bytes(name, text, strlen(text));
}

/* Packs texts with libarchive; format 0: one raw stream through `filter`. */
static size_t pack(int filter, int format, const char *const *names, const char *const *texts, size_t n_texts,
                   char *out, size_t capacity) {
    struct archive *a = archive_write_new();
    size_t used = 0;
    assert_int_equal(archive_write_add_filter(a, filter), ARCHIVE_OK);
    assert_int_equal(format ? archive_write_set_format(a, format) : archive_write_set_format_raw(a),
                     ARCHIVE_OK);
    assert_int_equal(archive_write_set_bytes_in_last_block(a, 1), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(a, out, capacity, &used), ARCHIVE_OK);
    for (size_t i = 0; i < n_texts; i++) {
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, names[i]);
        archive_entry_set_filetype(e, AE_IFREG);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, (la_int64_t)strlen(texts[i]));
        assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
        assert_int_equal(archive_write_data(a, texts[i], strlen(texts[i])), strlen(texts[i]));
        archive_entry_free(e);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    return used;
}

/* About 4 KB that do not compress to nothing. */
static const char *sample_text(void) {
    static char text[4096];
    uint32_t x = 1;
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        x = x * 1664525 + 1013904223;
        text[i] = x >> 28 == 0 ? '\n' : (char)('a' + (x >> 24) % 26);
    }
    return text;
}

static const struct {
    const char *suffix;
    int filter, format;
} forms[] = {
    {".gz", ARCHIVE_FILTER_GZIP, 0},
    {".zst", ARCHIVE_FILTER_ZSTD, 0},
    {".xz", ARCHIVE_FILTER_XZ, 0},
    {".bz2", ARCHIVE_FILTER_BZIP2, 0},
    {".zip", ARCHIVE_FILTER_NONE, ARCHIVE_FORMAT_ZIP},
    {".tar.gz", ARCHIVE_FILTER_GZIP, ARCHIVE_FORMAT_TAR_USTAR},
};
enum { N_FORMS = sizeof forms / sizeof forms[0] };

static void test_datasets_files__every_compression_reads_back(void **state) {
    (void)state;
    const char *names[] = {"data/sample.txt"}, *texts[] = {sample_text()};
    for (size_t i = 0; i < N_FORMS; i++) {
        char packed[16384], name[64], *text;
        size_t n;
        size_t size = pack(forms[i].filter, forms[i].format, names, texts, 1, packed, sizeof packed);
        snprintf(name, sizeof name, "c/sample.txt%s", forms[i].suffix);
        assert_ok(qb_text_read(put_bytes(name, packed, size), &text, &n));
        assert_int_equal(n, strlen(texts[0]));
        assert_string_equal(text, texts[0]);
        qb_free(text);
    }
}

static void test_datasets_files__damage_is_never_read_as_text(void **state) {
    (void)state;
    const char *names[] = {"sample.txt"}, *texts[] = {sample_text()};
    for (size_t i = 0; i < N_FORMS; i++) {
        if (forms[i].format == ARCHIVE_FORMAT_TAR_USTAR) continue; /* no check sum of the contents */
        char packed[16384], name[64];
        size_t size = pack(forms[i].filter, forms[i].format, names, texts, 1, packed, sizeof packed),
               silent = 0;
        snprintf(name, sizeof name, "sample.txt%s", forms[i].suffix);
        qb_text text;
        for (size_t cut = 0; cut < size; cut += 97) {
            qb_status st = qb_text_open_memory(packed, cut, name, NULL, 1 << 20, &text);
            if (st != QB_OK) assert_non_null(strstr(qb_error_text(), name));
            /* A zip's directory stands behind its data, which may be whole. */
            if (st == QB_OK)
                assert_true(text.n == strlen(texts[0]) && memcmp(text.bytes, texts[0], text.n) == 0);
            if (st == QB_OK && forms[i].format == 0) silent++;
            qb_text_close(&text);
        }
        /* libarchive writes zstd frames without the check sum that the zstd program adds. */
        bool summed = forms[i].filter != ARCHIVE_FILTER_ZSTD;
        for (size_t flip = size / 4; summed && flip < size * 3 / 4; flip += 7) {
            packed[flip] ^= 4;
            qb_status st = qb_text_open_memory(packed, size, name, NULL, 1 << 20, &text);
            packed[flip] ^= 4;
            if (st != QB_OK) assert_non_null(strstr(qb_error_text(), name));
            if (st == QB_OK && (text.n != strlen(texts[0]) || memcmp(text.bytes, texts[0], text.n) != 0))
                silent++;
            qb_text_close(&text);
        }
        if (silent) fail_msg("%s: %zu damaged files read without an error", name, silent);
    }
}

static void test_datasets_files__gzip_of_several_members_is_checked(void **state) {
    (void)state;
    const char *names[] = {"x"}, *texts[] = {"first half, "}, *more[] = {"second half"};
    char packed[4096];
    size_t size = pack(ARCHIVE_FILTER_GZIP, 0, names, texts, 1, packed, sizeof packed);
    size += pack(ARCHIVE_FILTER_GZIP, 0, names, more, 1, packed + size, sizeof packed - size);
    qb_text text;
    assert_ok(qb_text_open_memory(packed, size, "x.gz", NULL, 100, &text));
    assert_int_equal(text.n, 23);
    assert_memory_equal(text.bytes, "first half, second half", 23);
    qb_text_close(&text);
    packed[size - 8] ^= 1;
    assert_fails(qb_text_open_memory(packed, size, "x.gz", NULL, 100, &text), QB_ERR_FORMAT, "check sum");
}

static void test_datasets_files__archives_say_what_they_hold(void **state) {
    (void)state;
    const char *names[] = {"d/a.txt", "__MACOSX/d/._a.txt", "d/b.jsonl"};
    const char *texts[] = {"AAA", "resource", "{\"text\":\"B\"}"};
    char packed[8192];
    qb_text text;
    size_t size = pack(ARCHIVE_FILTER_NONE, ARCHIVE_FORMAT_ZIP, names, texts, 3, packed, sizeof packed);
    assert_fails(qb_text_open_memory(packed, size, "x.zip", NULL, 100, &text), QB_ERR_UNSUPPORTED,
                 "d/a.txt, d/b.jsonl");
    assert_fails(qb_text_open_memory(packed, size, "x.zip", "c.txt", 100, &text), QB_ERR_NOT_FOUND,
                 "no entry named c.txt");
    assert_ok(qb_text_open_memory(packed, size, "x.zip", "b.jsonl", 100, &text));
    assert_int_equal(text.n, strlen(texts[2]));
    assert_true(text.documents);
    assert_string_equal(text.name, "x.zip (d/b.jsonl)");
    qb_text_close(&text);
    size = pack(ARCHIVE_FILTER_NONE, ARCHIVE_FORMAT_ZIP, names, texts, 2, packed, sizeof packed);
    assert_ok(qb_text_open_memory(packed, size, "x.zip", NULL, 100, &text));
    assert_false(text.documents);
    qb_text_close(&text);
    size = pack(ARCHIVE_FILTER_NONE, ARCHIVE_FORMAT_ZIP, names, texts, 0, packed, sizeof packed);
    assert_fails(qb_text_open_memory(packed, size, "x.zip", NULL, 100, &text), QB_ERR_FORMAT,
                 "holds no file");
    size = pack(ARCHIVE_FILTER_GZIP, 0, names, texts, 1, packed, sizeof packed);
    assert_ok(qb_text_open_memory(packed, size, "x.gz", NULL, 3, &text));
    qb_text_close(&text);
    assert_fails(qb_text_open_memory(packed, size, "x.gz", NULL, 2, &text), QB_ERR_FORMAT,
                 "more than 2 bytes");
    assert_fails(qb_text_open_memory("plain", 5, "x.txt", NULL, 4, &text), QB_ERR_FORMAT,
                 "5 bytes are more than");
    assert_fails(qb_text_open_memory("plain", 5, "x.gz", NULL, 100, &text), QB_ERR_FORMAT,
                 "its contents are not gzip");
    assert_fails(qb_text_open_memory("", 0, "x.xz", NULL, 100, &text), QB_ERR_FORMAT, "x.xz is empty");
}

/* 16 MiB of one letter in some KB: refused at 1 MiB, before it is made where the file states its length and
   while it is made where not, and never held. */
static void test_datasets_files__a_bomb_meets_the_bound(void **state) {
    (void)state;
    enum { BOMB = 16 << 20, PACKED = 1 << 20, BOUND = 1 << 20 };
    char *bomb = malloc(BOMB + 1), *packed = malloc(PACKED);
    assert_true(bomb && packed);
    memset(bomb, 'x', BOMB);
    bomb[BOMB] = 0;
    const char *names[] = {"bomb.txt"}, *texts[] = {bomb};
    for (size_t i = 0; i < N_FORMS; i++) {
        if (forms[i].format == ARCHIVE_FORMAT_ZIP) continue; /* libarchive's writer gives it no length */
        char name[64];
        size_t size = pack(forms[i].filter, forms[i].format, names, texts, 1, packed, PACKED);
        snprintf(name, sizeof name, "bomb%s", forms[i].suffix);
        bool states = !strcmp(forms[i].suffix, ".gz") || !strcmp(forms[i].suffix, ".tar.gz");
        qb_text text;
        int64_t before = qb_resident_bytes();
        assert_fails(qb_text_open_memory(packed, size, name, NULL, BOUND, &text), QB_ERR_FORMAT,
                     states ? "says that it decompresses to more than 1048576 bytes"
                            : "decompresses to more than 1048576 bytes");
        assert_non_null(strstr(qb_error_text(), "BENCH_MAX_TEXT_GB=N"));
        assert_true(qb_resident_bytes() - before < BOMB / 2);
        if (strcmp(forms[i].suffix, ".gz") != 0) continue;
        memset(packed + size - 4, 0, 4); /* one that lies about its length */
        assert_fails(qb_text_open_memory(packed, size, name, NULL, BOUND, &text), QB_ERR_FORMAT,
                     "bomb.gz: decompresses to more than");
    }
    /* RFC 8878: a single segment whose header states 2^32 bytes, as the zstd program writes it. */
    static const unsigned char stated[] = {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0};
    qb_text text;
    assert_fails(qb_text_open_memory(stated, sizeof stated, "x.zst", NULL, BOUND, &text), QB_ERR_FORMAT,
                 "says that it decompresses to more than");
    free(bomb);
    free(packed);
}

static void test_datasets_files__the_bound_is_an_option(void **state) {
    (void)state;
    qb_text text;
    const char *path = put("bound.txt", "text");
    setenv("BENCH_MAX_TEXT_GB", "many", 1);
    assert_fails(qb_text_open(path, NULL, NULL, &text), QB_ERR_USAGE, "expected a number from 1 to 100");
    setenv("BENCH_MAX_TEXT_GB", "9", 1);
    assert_ok(qb_text_open(path, NULL, NULL, &text));
    qb_text_close(&text);
    /* A plain file without blocks, one byte above 1 GB. */
    char *big = strdup(at("big.txt"));
    int fd = open(big, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, 1000000001) == 0 && close(fd) == 0);
    setenv("BENCH_MAX_TEXT_GB", "1", 1);
    assert_fails(qb_text_open(big, NULL, NULL, &text), QB_ERR_FORMAT, "1000000001 bytes are more than");
    unsetenv("BENCH_MAX_TEXT_GB");
    assert_ok(qb_text_open(big, NULL, NULL, &text));
    qb_text_close(&text);
    unlink(big);
    free(big);
}

/* Python's zipfile with one entry whose name is not ASCII and marked as UTF-8; this program runs in the C
 * locale. */
static void test_datasets_files__entry_names_need_no_locale(void **state) {
    (void)state;
    static const unsigned char packed[] = {
        0x50, 0x4b, 0x03, 0x04, 0x14, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x21, 0x00, 0x2c, 0x49,
        0x84, 0x22, 0x06, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0xc3, 0xa9,
        0x74, 0xc3, 0xa9, 0x2e, 0x74, 0x78, 0x74, 0x73, 0x75, 0x6d, 0x6d, 0x65, 0x72, 0x50, 0x4b, 0x01,
        0x02, 0x14, 0x03, 0x14, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x21, 0x00, 0x2c, 0x49, 0x84,
        0x22, 0x06, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0x00, 0x00, 0x00, 0xc3, 0xa9, 0x74, 0xc3, 0xa9,
        0x2e, 0x74, 0x78, 0x74, 0x50, 0x4b, 0x05, 0x06, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00,
        0x37, 0x00, 0x00, 0x00, 0x2d, 0x00, 0x00, 0x00, 0x00, 0x00};
    qb_text text;
    assert_ok(qb_text_open_memory(packed, sizeof packed, "x.zip", NULL, 100, &text));
    assert_int_equal(text.n, 6);
    assert_memory_equal(text.bytes, "summer", 6);
    assert_string_equal(text.name, "x.zip (unnamed entry)");
    qb_text_close(&text);
}

/* ---- Datasets from files ---- */

static qb_status eval_gptq(const char *dataset, const char *dir, qb_windows *w, qb_data_files *files) {
    qb_protocol p;
    assert_ok(qb_protocol_parse("gptq-8", &p));
    return qb_dataset_windows(&(qb_source){dataset, dir, tokenizer, QB_SPECIAL_TEXT}, &p, 0, w, files);
}

static void test_datasets_files__bad_input_is_named(void **state) {
    (void)state;
    qb_windows w;
    assert_fails(eval_gptq(at("none.txt"), NULL, &w, NULL), QB_ERR_NOT_FOUND, "none.txt: no such file");
    assert_fails(eval_gptq("wikitxt2", NULL, &w, NULL), QB_ERR_USAGE, "did you mean wikitext2?");
    assert_fails(eval_gptq(put("b/empty.txt", ""), NULL, &w, NULL), QB_ERR_FORMAT, "the text is empty");
    assert_fails(eval_gptq(put("b/short.txt", "abc"), NULL, &w, NULL), QB_ERR_FORMAT, "--protocol gptq-5");
    assert_fails(eval_gptq(at("b"), NULL, &w, NULL), QB_ERR_USAGE, "is a folder");
    assert_fails(eval_gptq(put("b/x.parquet", "PAR1"), NULL, &w, NULL), QB_ERR_FORMAT,
                 "expected PAR1 at both ends");
    assert_fails(eval_gptq(put("b/latin1.txt", "line one\nna\xefve text"), NULL, &w, NULL), QB_ERR_FORMAT,
                 "byte 0xef at offset 11 (line 2)");
    assert_fails(eval_gptq(put("b/utf16.txt", "\xff\xfe"
                                              "a"),
                           NULL, &w, NULL),
                 QB_ERR_FORMAT, "iconv -f UTF-16");
    assert_fails(eval_gptq(put("b/cut.txt", "text cut in a character \xe6\xbc"), NULL, &w, NULL),
                 QB_ERR_FORMAT, "not UTF-8");
    assert_fails(eval_gptq(put("b/surrogate.txt", "lone surrogate \xed\xa0\x80"), NULL, &w, NULL),
                 QB_ERR_FORMAT, "not UTF-8");
    assert_fails(eval_gptq(put("b/overlong.txt", "overlong \xc0\xaf"), NULL, &w, NULL), QB_ERR_FORMAT,
                 "not UTF-8");
    assert_fails(eval_gptq("wikitext2", at("no-such"), &w, NULL), QB_ERR_NOT_FOUND, "no such data folder");
}

static void test_datasets_files__bad_json_lines_are_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *needle;
    } rows[] = {
        {"{\"text\":\"good\"}\n\n{\"txt\":\"x\"}\n", "j.jsonl, line 3: \"text\" is missing"},
        {"{\"text\":\"good\"}\n{\"text\":5}\n", "line 2: \"text\" must be a string, found a number"},
        {"{\"text\":\"good\"}\n{\"text\":null}\n", "line 2: \"text\" is missing"},
        {"[1,2]\n", "line 1: expected one JSON object"},
        {"{\"text\":\"cut", "line 1: not valid JSON"},
        {"{\"text\":\"a\"} {\"text\":\"b\"}\n", "line 1: text after the end"},
        {"{\"text\":\"bad \xff byte\"}\n", "line 1: not UTF-8"},
        {"{\"text\":\"a\\u0000b\"}\n", "line 1: the line holds the character NUL"},
        {" \n\t\n", "no documents"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_windows w;
        assert_fails(eval_gptq(put("j.jsonl", rows[i].text), NULL, &w, NULL),
                     strstr(rows[i].needle, "NUL") ? QB_ERR_UNSUPPORTED : QB_ERR_FORMAT, rows[i].needle);
    }
}

static void test_datasets_files__too_short_documents_are_counted(void **state) {
    (void)state;
    qb_windows w;
    const char *path = put("s.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"abcdef\"}\n{\"text\":\"\"}\n");
    assert_fails(qb_dataset_calibration(&(qb_source){path, NULL, tokenizer, QB_SPECIAL_TEXT}, 4, 9, 0, &w,
                                        NULL, NULL, NULL),
                 QB_ERR_FORMAT, "0 of 3 documents have the 9 tokens of one window, the longest has 8");
    /* Exactly as long as the window: taken whole. */
    int64_t *starts, *documents;
    assert_ok(qb_dataset_calibration(&(qb_source){path, NULL, tokenizer, QB_SPECIAL_TEXT}, 4, 8, 0, &w, NULL,
                                     &starts, &documents));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(starts[i], 0);
        assert_int_equal(documents[i], 1);
    }
    assert_int_equal(w.ids[2], 3 + 'a');
    qb_free(starts);
    qb_free(documents);
    qb_windows_free(&w);
    path = put("s.txt", "abcdef");
    assert_fails(qb_dataset_calibration(&(qb_source){path, NULL, tokenizer, QB_SPECIAL_TEXT}, 4, 9, 0, &w,
                                        NULL, NULL, NULL),
                 QB_ERR_FORMAT, "8 tokens");
    assert_ok(qb_dataset_calibration(&(qb_source){path, NULL, tokenizer, QB_SPECIAL_TEXT}, 4, 8, 0, &w, NULL,
                                     &starts, NULL));
    assert_int_equal(starts[3], 0);
    qb_free(starts);
    qb_windows_free(&w);
    assert_fails(qb_dataset_calibration(&(qb_source){path, NULL, tokenizer, QB_SPECIAL_TEXT}, 0, 8, 0, &w,
                                        NULL, NULL, NULL),
                 QB_ERR_USAGE, "at least 1");
}

static void test_datasets_files__own_files_need_no_registry(void **state) {
    (void)state;
    qb_windows w;
    qb_data_files files;
    /* Plain text is one document: no joins, line ends kept. */
    assert_ok(eval_gptq(put("own.txt", "one\r\ntwo three\n"), NULL, &w, &files));
    assert_int_equal(w.total_tokens, 2 + 15);
    assert_string_equal(w.dataset, "own.txt");
    assert_string_equal(files.files[0].role, "file");
    assert_string_equal(files.files[0].note, "");
    assert_int_equal(files.files[0].bytes, 15);
    char hex[QB_SHA256_HEX];
    assert_ok(qb_hash_bytes("one\r\ntwo three\n", 15, hex));
    assert_string_equal(files.files[0].sha256, hex);
    qb_windows_free(&w);
    /* JSON lines: joined by two newlines to evaluate. */
    assert_ok(eval_gptq(put("own.ndjson", "{\"text\":\"one\"}\n{\"id\":1,\"text\":\"\\ud83d\\ude00\"}\r\n"),
                        NULL, &w, &files));
    assert_int_equal(w.total_tokens, 2 + 3 + 2 + 4);
    assert_int_equal(w.ids[5], 3 + '\n');
    assert_int_equal(w.ids[7], 3 + 0xf0);
    qb_windows_free(&w);
    /* What spells a special token is what the rule makes of it. */
    qb_ids ids = {0};
    assert_ok(qb_tokenizer_encode(tokenizer, "a<unk></s>", 10, true, &ids));
    assert_int_equal(ids.count, 2 + 1 + 2 + 0);
    ids.count = 0;
    int64_t found;
    qb_source source = {put("special.txt", "a<unk></s>"), NULL, tokenizer, QB_SPECIAL_TEXT};
    assert_ok(qb_dataset_ids(&source, false, 0, &ids, &found, &files));
    assert_int_equal(ids.count, 2 + 10);
    assert_int_equal(ids.ids[3], 3 + '<');
    assert_int_equal(found, 2); /* left as text */
    ids.count = 0;
    source.special = QB_SPECIAL_FILE;
    assert_ok(qb_dataset_ids(&source, false, 0, &ids, &found, &files));
    assert_int_equal(ids.count, 2 + 1 + 2);
    assert_int_equal(found, 2);
    ids.count = 0;
    assert_ok(qb_dataset_ids(&(qb_source){at("own.ndjson"), NULL, tokenizer, QB_SPECIAL_TEXT}, false, 0, &ids,
                             NULL, &files));
    assert_int_equal(ids.count, 11);
    qb_ids_free(&ids);
}

static void test_datasets_files__says_what_is_no_text(void **state) {
    (void)state;
    static const struct {
        const char *name, *bytes, *needle;
    } rows[] = {
        {"x.arrow", "ARROW1 and more", "is an Arrow file"},
        {"stream.txt", "\xff\xff\xff\xff\x10", "an Arrow stream"},
        {"zipped.txt", "\x1f\x8b\x08", "is gzip, not text: give it a name that ends in .gz"},
        {"table.dat", "PAR1....", "is a Parquet file"},
        {"s.jsonl", "{\"text\": \"aa\"}\n{\"text\": \"lone \\ud83d end\"}\n",
         "s.jsonl, line 2: byte 15: \\ud83d is half of a surrogate pair"},
        {"t.jsonl", "{\"text\": \"\\udc00\"}\n", "line 1: byte 10: \\udc00 is half"},
    };
    qb_windows w;
    qb_data_files files;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *path = put(rows[i].name, rows[i].bytes);
        qb_status st = eval_gptq(path, NULL, &w, &files);
        if (st == QB_OK || !strstr(qb_error_text(), rows[i].needle))
            fail_msg("%s: %s", rows[i].name, st == QB_OK ? "was read" : qb_error_text());
    }
    /* A whole pair is one character. */
    assert_ok(eval_gptq(put("pair.jsonl", "{\"text\": \"abcdefgh\\ud83d\\ude00\"}\n"), NULL, &w, &files));
    qb_windows_free(&w);
}

static void test_datasets_files__folders_are_searched_in_order(void **state) {
    (void)state;
    qb_windows w;
    qb_data_files files;
    char *dir = qb_strdup(at("data1"));
    assert_ok(qb_make_dirs(dir));
    assert_fails(eval_gptq("wikitext2", dir, &w, &files), QB_ERR_NOT_FOUND, "wikitext2: no test file in ");
    assert_non_null(strstr(qb_error_text(), "data1"));
    assert_non_null(strstr(qb_error_text(), "wiki.test.raw"));
    assert_non_null(strstr(qb_error_text(), "wikitext-2-raw-v1.zip"));
    assert_null(strchr(qb_error_text(), '\n'));
    /* The cache, then $BENCH_DATA before it, then --data before both; the family's folder serves like the
     * folder. */
    put("data/wikitext2/wiki.test.raw", "from the cache");
    assert_ok(eval_gptq("wikitext2", dir, &w, &files));
    assert_non_null(strstr(files.files[0].path, "/data/wikitext2/wiki.test.raw"));
    qb_windows_free(&w);
    put("env/wiki.test.raw", "from the environment");
    setenv("BENCH_DATA", at("env"), 1);
    assert_ok(eval_gptq("wikitext2", dir, &w, &files));
    assert_non_null(strstr(files.files[0].path, "/env/wiki.test.raw"));
    qb_windows_free(&w);
    const char *names[] = {"wikitext-2-raw/wiki.test.raw", "wikitext-2-raw/wiki.train.raw"};
    const char *texts[] = {"from a zip entry", "training text"};
    char packed[4096];
    size_t size = pack(ARCHIVE_FILTER_NONE, ARCHIVE_FORMAT_ZIP, names, texts, 2, packed, sizeof packed);
    put_bytes("data1/wikitext-2-raw-v1.zip", packed, size);
    assert_ok(eval_gptq("wikitext2", dir, &w, &files));
    assert_non_null(strstr(files.files[0].path, "/data1/wikitext-2-raw-v1.zip"));
    assert_int_equal(w.total_tokens, 2 + 16);
    qb_windows_free(&w);
    unsetenv("BENCH_DATA");
    /* A canonical name before a substitute, compressed or not. */
    put("data1/c4-validation.sample.jsonl", "{\"text\":\"sample\"}");
    qb_ids ids = {0};
    assert_ok(qb_dataset_ids(&(qb_source){"c4-new", dir, tokenizer, QB_SPECIAL_TEXT}, false, 8, &ids, NULL,
                             &files));
    assert_non_null(strstr(files.files[0].note, "substitute"));
    size = pack(ARCHIVE_FILTER_GZIP, 0, names, (const char *[]){"{\"text\":\"real\"}"}, 1, packed,
                sizeof packed);
    put_bytes("data1/c4/en/c4-validation.00000-of-00008.json.gz", packed, size);
    assert_ok(qb_dataset_ids(&(qb_source){"c4-new", dir, tokenizer, QB_SPECIAL_TEXT}, false, 8, &ids, NULL,
                             &files));
    assert_non_null(strstr(files.files[0].path, "of-00008.json.gz"));
    assert_non_null(strstr(files.files[0].note, "1 documents, the canonical file has 45576"));
    qb_ids_free(&ids);
    qb_free(dir);
}

static void test_datasets_files__demo_comes_with_the_program(void **state) {
    (void)state;
    qb_windows w;
    qb_data_files files;
    const char *share = getenv("BENCH_SHARE");
    char *before = qb_strdup(share);
    setenv("BENCH_SHARE", at("share"), 1);
    assert_fails(eval_gptq("demo", NULL, &w, &files), QB_ERR_NOT_FOUND, "demo: no test file in ");
    put("share/demo/test.txt", "the test\n\ntext");
    put("share/demo/train.txt", "the training text");
    assert_ok(eval_gptq("demo", NULL, &w, &files));
    assert_int_equal(w.total_tokens, 2 + 14);
    assert_string_equal(files.files[0].note, "");
    qb_windows_free(&w);
    assert_ok(qb_dataset_calibration(&(qb_source){"demo", NULL, tokenizer, QB_SPECIAL_TEXT}, 2, 8, 0, &w,
                                     &files, NULL, NULL));
    assert_int_equal(w.total_tokens, 2 + 17);
    assert_string_equal(files.files[0].role, "train");
    qb_windows_free(&w);
    if (before)
        setenv("BENCH_SHARE", before, 1);
    else
        unsetenv("BENCH_SHARE");
    qb_free(before);
}

/* In a process of its own, whose peak begins with what it holds; the exit status is what is wrong. */
static int peak_of_reading(const char *path, bool hash) {
    enum { KEPT_MAX_KB = 16 << 10 };
    struct rusage before, after;
    char hex[QB_SHA256_HEX];
    qb_text text;
    qb_documents documents;
    qb_str document = {0};
    getrusage(RUSAGE_SELF, &before);
    if (hash) {
        if (qb_hash_file(path, hex) != QB_OK) return 2;
    } else {
        if (qb_text_open(path, NULL, NULL, &text) != QB_OK) return 3;
        if (qb_documents_index(&text, &documents) != QB_OK || documents.count != 768) return 4;
        for (int64_t i = 0; i < documents.count; i += 96) { /* few: sanitizers keep what was freed */
            document.length = 0;
            if (qb_documents_get(&documents, i, &document) != QB_OK || document.length != 65536) return 5;
        }
        qb_str_free(&document);
        qb_documents_free(&documents);
        qb_text_close(&text);
    }
    getrusage(RUSAGE_SELF, &after);
    return after.ru_maxrss - before.ru_maxrss > KEPT_MAX_KB;
}

/* The peak memory of a measuring or quantizing process is a result: 48 MB of a text that it walked over are
 * no part of it. */
static void test_datasets_files__what_was_read_is_not_kept(void **state) {
    (void)state;
    char line[65536 + 16];
    const char *path = at("large.jsonl");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    int n = snprintf(line, sizeof line, "{\"text\":\"%065536d\"}\n", 7);
    for (int i = 0; i < 768; i++) assert_int_equal(fwrite(line, 1, (size_t)n, f), n);
    assert_int_equal(fclose(f), 0);
    for (int hash = 0; hash < 2; hash++) {
        int status = 0;
        pid_t pid = fork();
        if (pid == 0) _exit(peak_of_reading(path, hash));
        assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
        assert_int_equal(status, 0);
    }
    assert_int_equal(unlink(path), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datasets_files__what_was_read_is_not_kept),
        cmocka_unit_test(test_datasets_files__every_compression_reads_back),
        cmocka_unit_test(test_datasets_files__damage_is_never_read_as_text),
        cmocka_unit_test(test_datasets_files__gzip_of_several_members_is_checked),
        cmocka_unit_test(test_datasets_files__archives_say_what_they_hold),
        cmocka_unit_test(test_datasets_files__a_bomb_meets_the_bound),
        cmocka_unit_test(test_datasets_files__the_bound_is_an_option),
        cmocka_unit_test(test_datasets_files__entry_names_need_no_locale),
        cmocka_unit_test(test_datasets_files__bad_input_is_named),
        cmocka_unit_test(test_datasets_files__bad_json_lines_are_named),
        cmocka_unit_test(test_datasets_files__too_short_documents_are_counted),
        cmocka_unit_test(test_datasets_files__own_files_need_no_registry),
        cmocka_unit_test(test_datasets_files__says_what_is_no_text),
        cmocka_unit_test(test_datasets_files__folders_are_searched_in_order),
        cmocka_unit_test(test_datasets_files__demo_comes_with_the_program),
    };
    return cmocka_run_group_tests_name("datasets_files", tests, set_up, tear_down);
}
