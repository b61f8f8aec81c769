/* Parquet against what pyarrow wrote (tools/make_parquet_golden.py), and damaged in every byte. */
#include "base/json.h"
#include "base/str.h"
#include "datasets/parquet/parquet.h"
#include "datasets/text.h"
#include "tests/program.h"

static const char *golden(const char *name) {
    static char paths[4][1024];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/tests/golden/parquet/%s", QB_SOURCE_DIR, name);
    return path;
}

typedef struct {
    const qb_json *next;
    int64_t n, wrong;
} comparison;

static qb_status compare(void *user, const char *text, size_t n) {
    comparison *c = user;
    const char *expected = c->next ? qb_json_string(c->next) : NULL;
    c->wrong += !expected || strlen(expected) != n || memcmp(expected, text, n) != 0;
    c->n++;
    c->next = c->next ? qb_json_next(c->next) : NULL;
    return QB_OK;
}

static void test_parquet__what_pyarrow_wrote(void **state) {
    (void)state;
    qb_json *rows;
    int files = 0;
    qb_status st = QB_OK;
    char *folder = qb_strdup(golden(""));
    assert_ok(qb_json_read(golden("rows.json"), 1 << 20, &rows));
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = qb_dir_next(dir, folder, &st));) {
        if (strncmp(e->d_name, "ok-", 3) != 0) continue;
        qb_map map;
        qb_parquet *p;
        comparison c = {.next = qb_json_first(rows)};
        assert_ok(qb_map_open(golden(e->d_name), &map));
        assert_ok(qb_parquet_open(map.bytes, map.size, e->d_name, NULL, &p));
        assert_string_equal(qb_parquet_column(p), strstr(e->d_name, "sentence") ? "sentence" : "text");
        assert_int_equal(qb_parquet_rows(p), qb_json_count(rows));
        assert_ok(qb_parquet_read(p, compare, &c));
        if (c.wrong || c.n != qb_json_count(rows))
            fail_msg("%s: %d rows, %d of them wrong", e->d_name, (int)c.n, (int)c.wrong);
        qb_parquet_close(p);
        qb_map_close(&map);
        files++;
    }
    closedir(dir);
    assert_ok(st);
    assert_int_equal(files, 23);
    qb_json_free(rows);
    qb_free(folder);
}

static void test_parquet__what_is_not_read_is_named(void **state) {
    (void)state;
    static const struct {
        const char *file, *needle;
        qb_status status;
    } rows[] = {
        {"bad-null.parquet", "column \"text\" has a row without a value (the 5. of", QB_ERR_UNSUPPORTED},
        {"bad-no-column.parquet", "no column \"text\" or \"sentence\" (there are a, b)", QB_ERR_FORMAT},
        {"bad-number.parquet", "column \"text\" holds no strings", QB_ERR_UNSUPPORTED},
        {"bad-nested.parquet", "column \"text\" is nested", QB_ERR_UNSUPPORTED},
        {"bad-list.parquet", "column \"text\" is nested", QB_ERR_UNSUPPORTED},
        {"bad-brotli.parquet", "compressed with BROTLI; snappy, gzip and zstd are read", QB_ERR_UNSUPPORTED},
        {"bad-lz4.parquet", "compressed with LZ4", QB_ERR_UNSUPPORTED},
        {"bad-delta.parquet", "the encoding DELTA_BYTE_ARRAY is not read", QB_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_text text;
        assert_fails(qb_text_open(golden(rows[i].file), NULL, NULL, &text), rows[i].status, rows[i].needle);
    }
    qb_map map;
    qb_parquet *p;
    assert_ok(qb_map_open(golden("ok-none-plain-v1.parquet"), &map));
    assert_fails(qb_parquet_open(map.bytes, map.size, "x", "nothing", &p), QB_ERR_FORMAT,
                 "no column \"nothing\"; there are id, text, other");
    assert_fails(qb_parquet_open(map.bytes, map.size, "x", "id", &p), QB_ERR_UNSUPPORTED, "holds no strings");
    assert_fails(qb_parquet_open(map.bytes, map.size - 1, "x", NULL, &p), QB_ERR_FORMAT, "is cut off");
    assert_fails(qb_parquet_open(map.bytes, 0, "x", NULL, &p), QB_ERR_FORMAT, "is cut off");
    qb_map_close(&map);
}

static qb_status count(void *user, const char *text, size_t n) {
    int64_t *bytes = user;
    for (size_t i = 0; i < n; i++) *bytes += (unsigned char)text[i]; /* reads it, for the sanitizer */
    return QB_OK;
}

/* Every byte of the footer and some of the pages changed: no crash, no read outside, an end. */
static void test_parquet__damage(void **state) {
    (void)state;
    static const char *const files[] = {"ok-snappy-dictionary-v1.parquet", "ok-none-plain-v2.parquet"};
    int refused = 0;
    for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
        char *bytes;
        size_t n;
        assert_ok(qb_file_read(golden(files[f]), 1 << 20, &bytes, &n));
        for (size_t i = 0; i < n; i += i + 1200 < n ? 7 : 1) {
            char before = bytes[i];
            qb_parquet *p;
            int64_t sum = 0;
            bytes[i] = (char)(before ^ (i % 3 ? 0x81 : 0xff));
            qb_status st = qb_parquet_open(bytes, n, "x", NULL, &p);
            if (st == QB_OK) st = qb_parquet_read(p, count, &sum);
            if (st != QB_OK) refused++;
            qb_parquet_close(p);
            bytes[i] = before;
        }
        qb_free(bytes);
    }
    assert_true(refused > 500);
}

/* A dataset in the hub's Parquet gives the ids of the text file that it was made from; a file of the user's
   gives a document a row. */
static void assert_same_ids(const char *dataset) {
    char hash[2][80], *data[2] = {qb_strdup(golden("../datasets")), qb_strdup(golden("datasets"))};
    for (int i = 0; i < 2; i++) {
        outcome o = BENCH("tokenize", "demo", "--dataset", dataset, "--data", data[i], "--json");
        assert_worked(&o);
        qb_json *j = json_of(&o);
        snprintf(hash[i], sizeof hash[i], "%s", qb_json_string(qb_json_get(j, "sha256")));
        qb_json_free(j);
        outcome_free(&o);
        qb_free(data[i]);
    }
    assert_string_equal(hash[0], hash[1]);
}

static void test_parquet__datasets_of_the_hub(void **state) {
    (void)state;
    assert_same_ids("wikitext2");
    assert_same_ids("ptb");
    assert_same_ids("ptb-new");
}

static void test_parquet__rows_as_text_and_as_documents(void **state) {
    (void)state;
    static const qb_row_form form = {"<", ">", "-"};
    qb_text text;
    assert_ok(qb_text_open(golden("ok-required.parquet"), NULL, &form, &text));
    assert_false(text.documents);
    assert_non_null(strstr(text.bytes, "<two words>"));
    assert_true(text.bytes[0] == '<' && text.bytes[1] == '0'); /* the first row is "0" */
    qb_text_close(&text);
    assert_ok(qb_text_open(golden("ok-required.parquet"), NULL, NULL, &text));
    assert_true(text.documents);
    assert_int_equal(strncmp(text.bytes, "{\"text\":\"0\"}\n", 13), 0);
    assert_non_null(strstr(text.bytes, "a \\\"quote\\\" \\\\ and a\\u0009tab"));
    qb_text_close(&text);
    outcome o = BENCH("tokenize", "demo", "--dataset", golden("ok-groups.parquet"));
    assert_worked(&o);
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parquet__what_pyarrow_wrote),
        cmocka_unit_test(test_parquet__what_is_not_read_is_named),
        cmocka_unit_test(test_parquet__damage),
        cmocka_unit_test(test_parquet__datasets_of_the_hub),
        cmocka_unit_test(test_parquet__rows_as_text_and_as_documents),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
