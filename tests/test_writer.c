/* The writer: what it writes is read back, and what is not complete never appears. */
#include "checkpoint/writer.h"
#include "tests/checkpoint_files.h"
#include "tests/support.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* DIR/NAME, kept until the test ends. */
static char *kept[64];
static int n_kept;
static char *below(const char *dir, const char *name) {
    if (n_kept == 64) fail_msg("too many paths");
    return kept[n_kept++] = qb_path_join(dir, name);
}
static int free_paths(void **state) {
    (void)state;
    while (n_kept > 0) qb_free(kept[--n_kept]);
    return 0;
}

static int entries(const char *dir) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d) closedir(d);
    return n;
}

static void put_config(qb_writer *w) {
    qb_json *config = qb_json_object();
    assert_ok(qb_writer_put_json(w, "config.json", config));
    qb_json_free(config);
}

/* Tensors of mixed widths: each must be aligned for its dtype, as PyTorch's reader needs it. */
static const struct {
    const char *name;
    qb_dtype dtype;
    int n_dims;
    int64_t shape[3];
} rows[] = {
    {"bytes", QB_DTYPE_U8, 1, {7}},         {"halves", QB_DTYPE_F16, 2, {3, 5}},
    {"scalar", QB_DTYPE_F32, 0, {0}},       {"longs", QB_DTYPE_I64, 1, {3}},
    {"none", QB_DTYPE_F32, 2, {0, 4}},      {"words", QB_DTYPE_I32, 3, {2, 1, 3}},
    {"more.bytes", QB_DTYPE_U8, 2, {5, 3}}, {"floats", QB_DTYPE_F32, 1, {9}},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static void fill(size_t row, unsigned char *data, int64_t n) {
    for (int64_t i = 0; i < n; i++) data[i] = (unsigned char)(31 * row + 7 * (size_t)i);
}

static void write_rows(const char *dir, bool replace, int64_t shard_bytes) {
    qb_writer *w;
    unsigned char data[256];
    int64_t total = 0;
    assert_ok(qb_writer_create(dir, replace, shard_bytes, &w));
    for (size_t i = 0; i < N_ROWS; i++)
        assert_ok(qb_writer_plan(w, rows[i].name, rows[i].dtype, rows[i].n_dims, rows[i].shape));
    assert_ok(qb_writer_begin(w));
    for (size_t i = N_ROWS; i-- > 0;) {
        int64_t n = qb_writer_planned_bytes(w, rows[i].name);
        fill(i, data, n);
        total += n;
        assert_ok(qb_writer_put(w, rows[i].name, data, n));
    }
    assert_int_equal(qb_writer_bytes(w), total);
    put_config(w);
    assert_ok(qb_writer_finish(w));
}

static void check_rows(const char *dir) {
    qb_checkpoint *ck;
    unsigned char data[256];
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_int_equal(qb_checkpoint_count(ck), N_ROWS);
    for (size_t i = 0; i < N_ROWS; i++) {
        const qb_tensor *t = qb_checkpoint_find(ck, rows[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, rows[i].dtype);
        assert_int_equal(t->n_dims, rows[i].n_dims);
        for (int d = 0; d < t->n_dims; d++) assert_int_equal(t->shape[d], rows[i].shape[d]);
        assert_non_null(t->data); /* aligned: no copy is needed */
        fill(i, data, t->bytes);
        if (t->bytes) assert_memory_equal(t->data, data, (size_t)t->bytes);
    }
    qb_checkpoint_close(ck);
}

static void test_writer__writes_what_is_read_back(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "deep/er/out");
    write_rows(out, false, 0);
    check_rows(out);
    assert_true(qb_path_exists(below(out, "model.safetensors")));
    assert_int_equal(entries(out), 2);
    assert_int_equal(entries(below(dir, "deep/er")), 1); /* no temporary directory stays */
    scratch_remove(dir);
}

static void test_writer__writes_shards_and_an_index(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "out");
    const char *index_path = below(out, "model.safetensors.index.json");
    for (int64_t limit = 1; limit < 150; limit += 6) {
        write_rows(out, true, limit);
        check_rows(out);
        assert_int_equal(qb_path_exists(index_path), limit < 140);
    }
    write_rows(out, true, 60);
    assert_true(qb_path_exists(below(dir, "out/model-00001-of-00003.safetensors")));
    qb_json *index;
    assert_ok(qb_json_read(index_path, 1 << 20, &index));
    int64_t total = 0;
    assert_ok(qb_json_int(qb_json_get(index, "metadata"), "total_size", "index", true, 0, 1000, &total));
    assert_int_equal(total, 7 + 30 + 4 + 24 + 0 + 24 + 15 + 36);
    assert_int_equal(qb_json_count(qb_json_get(index, "weight_map")), N_ROWS);
    qb_json_free(index);
    scratch_remove(dir);
}

/* The header of a one-tensor file, byte for byte. */
static void test_writer__header_is_aligned_json(void **state) {
    (void)state;
    char *dir = scratch_make(), *bytes;
    const char *out = below(dir, "out");
    qb_writer *w;
    size_t n;
    assert_ok(qb_writer_create(out, false, 0, &w));
    assert_ok(qb_writer_plan(w, "a", QB_DTYPE_F16, 2, (int64_t[]){1, 2}));
    assert_ok(qb_writer_begin(w));
    assert_ok(qb_writer_put(w, "a", "wxyz", 4));
    assert_ok(qb_writer_finish(w));
    assert_ok(qb_file_read(below(dir, "out/model.safetensors"), 1000, &bytes, &n));
    static const char expected[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F16\",\"shape\":"
                                   "[1,2],\"data_offsets\":[0,4]}} ";
    assert_int_equal((sizeof expected - 1) % 8, 0);
    assert_int_equal(n, 8 + sizeof expected - 1 + 4);
    assert_memory_equal(bytes + 8, expected, sizeof expected - 1);
    assert_memory_equal(bytes + n - 4, "wxyz", 4);
    qb_free(bytes);
    scratch_remove(dir);
}

static void test_writer__refuses_wrong_use(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "out");
    qb_writer *w;
    int64_t two[2] = {2, 2}, huge[2] = {1ll << 40, 1ll << 40};
    assert_ok(qb_writer_create(out, false, 0, &w));
    assert_ok(qb_writer_plan(w, "a", QB_DTYPE_F16, 2, two));
    assert_fails(qb_writer_plan(w, "a", QB_DTYPE_F16, 2, two), QB_ERR_FORMAT, "tensor a is planned twice");
    assert_fails(qb_writer_plan(w, "b\"", QB_DTYPE_F16, 2, two), QB_ERR_FORMAT, "quotes");
    assert_fails(qb_writer_plan(w, "", QB_DTYPE_F16, 2, two), QB_ERR_FORMAT, "empty");
    assert_fails(qb_writer_plan(w, "h", QB_DTYPE_F16, 2, huge), QB_ERR_FORMAT, "overflows");
    assert_fails(qb_writer_put(w, "a", "12345678", 8), QB_ERR_INTERNAL, "before writing began");
    assert_ok(qb_writer_begin(w));
    assert_fails(qb_writer_plan(w, "c", QB_DTYPE_F16, 2, two), QB_ERR_INTERNAL, "after writing began");
    assert_fails(qb_writer_put(w, "c", "12345678", 8), QB_ERR_INTERNAL, "tensor c was not planned");
    assert_fails(qb_writer_put(w, "a", "1234567", 7), QB_ERR_INTERNAL, "8 bytes were planned, 7 are put");
    assert_fails(qb_writer_put_json(w, "../x.json", NULL), QB_ERR_INTERNAL, "not a plain file name");
    qb_writer *second; /* has a directory of its own, which goes with it */
    assert_ok(qb_writer_create(out, false, 0, &second));
    assert_int_equal(entries(dir), 2);
    qb_writer_abort(second);
    assert_fails(qb_writer_finish(w), QB_ERR_INTERNAL, "1 planned tensors were not put, first a");
    assert_int_equal(entries(dir), 0); /* neither the target nor a temporary directory */
    scratch_remove(dir);
}

static void test_writer__guards_what_is_there(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "out");
    qb_writer *w;
    assert_ok(qb_make_dirs(out));
    write_rows(out, false, 0); /* an empty directory may be filled */
    assert_fails(qb_writer_create(out, false, 0, &w), QB_ERR_IO, "exists and is not empty");
    write_text(out, "note.txt", "of the older checkpoint");
    write_rows(below(dir, "out//"), true, 0);
    assert_false(qb_path_exists(below(out, "note.txt")));
    check_rows(out);
    write_text(dir, "file", "x");
    assert_fails(qb_writer_create(below(dir, "file"), true, 0, &w), QB_ERR_IO,
                 "exists and is not a directory");
    assert_fails(qb_writer_create(below(dir, "file/out"), true, 0, &w), QB_ERR_IO, "file");
    assert_fails(qb_writer_create(dir, true, 0, &w), QB_ERR_IO,
                 "holds neither config.json nor a safetensors file");
    assert_fails(qb_writer_create("/", true, 0, &w), QB_ERR_USAGE, "no name for an output directory");
    /* A link to a checkpoint stays a link, and what it points to is replaced. */
    assert_int_equal(symlink("out", below(dir, "link")), 0);
    write_rows(below(dir, "link"), true, 60);
    struct stat info;
    assert_int_equal(lstat(below(dir, "link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_true(qb_path_exists(below(out, "model-00001-of-00003.safetensors")));
    scratch_remove(dir);
}

static void test_writer__abort_leaves_the_older_checkpoint(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "out");
    qb_writer *w;
    write_rows(out, false, 0);
    assert_ok(qb_writer_create(out, true, 0, &w));
    assert_ok(qb_writer_plan(w, "a", QB_DTYPE_F16, 1, (int64_t[]){4}));
    assert_ok(qb_writer_begin(w));
    assert_int_equal(entries(dir), 2);
    qb_writer_abort(w);
    assert_int_equal(entries(dir), 1);
    check_rows(out);
    qb_writer_abort(NULL);
    scratch_remove(dir);
}

/* A killed process leaves its temporary directory; the next run removes it, but not that of a living process.
 */
static void test_writer__removes_what_dead_processes_left(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "out");
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        qb_writer *w;
        int64_t four = 4;
        char ok = qb_writer_create(out, false, 0, &w) == QB_OK &&
                  qb_writer_plan(w, "a", QB_DTYPE_F16, 1, &four) == QB_OK && qb_writer_begin(w) == QB_OK;
        (void)!write(ready[1], &ok, 1);
        for (;;) pause();
    }
    char ok = 0;
    assert_int_equal(read(ready[0], &ok, 1), 1);
    assert_true(ok);
    write_rows(out, false, 0); /* the child lives: its directory stays */
    assert_int_equal(entries(dir), 2);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_ok(qb_make_dirs(below(dir, "out.tmp.x"))); /* not of this pattern */
    assert_ok(qb_make_dirs(below(dir, "other.tmp.1")));
    write_rows(out, true, 0);
    assert_int_equal(entries(dir), 3);
    check_rows(out);
    close(ready[0]);
    close(ready[1]);
    scratch_remove(dir);
}

/* A limit on the file size stands for a full disk: it shows when the space is reserved. */
static void test_writer__tells_that_space_is_short(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *out = below(dir, "out");
    qb_writer *w;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_ok(qb_writer_create(out, false, 0, &w));
    assert_ok(qb_writer_plan(w, "a", QB_DTYPE_F16, 1, (int64_t[]){1000000}));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    qb_status st = qb_writer_begin(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(st, QB_ERR_IO);
    assert_non_null(strstr(qb_error_text(), "cannot reserve 2.00 MB for"));
    qb_writer_abort(w);
    assert_int_equal(entries(dir), 0);
    scratch_remove(dir);
}

static void test_writer__copies_files_beside(void **state) {
    (void)state;
    char *dir = scratch_make(), *text;
    const char *from = below(dir, "from");
    qb_writer *w;
    size_t n;
    assert_ok(qb_make_dirs(from));
    write_text(from, "tokenizer.json", "{\"a\":1}");
    assert_ok(qb_writer_create(below(dir, "out"), false, 0, &w));
    assert_ok(qb_writer_copy_file(w, from, "tokenizer.json"));
    assert_ok(qb_writer_copy_file(w, from, "tokenizer.model")); /* absent: fine */
    /* Links: to JSON, to a file of the same name, to something else of the user's under either kind of name.
     */
    const char *elsewhere = below(dir, "elsewhere");
    assert_ok(qb_make_dirs(elsewhere));
    write_text(elsewhere, "notes.json", "{\"b\":2}");
    write_text(elsewhere, "merges.txt", "a b");
    write_text(elsewhere, "secret", "mine");
    static const char *const links[][2] = {{"../elsewhere/notes.json", "vocab.json"},
                                           {"../elsewhere/merges.txt", "merges.txt"},
                                           {"../elsewhere/secret", "LICENSE"},
                                           {"../elsewhere/secret", "added_tokens.json"}};
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        assert_int_equal(symlink(links[i][0], below(from, links[i][1])), 0);
        assert_ok(qb_writer_copy_file(w, from, links[i][1]));
    }
    assert_ok(qb_writer_begin(w));
    assert_ok(qb_writer_finish(w));
    assert_ok(qb_file_read(below(dir, "out/tokenizer.json"), 100, &text, &n));
    assert_string_equal(text, "{\"a\":1}");
    qb_free(text);
    assert_int_equal(entries(below(dir, "out")), 4);
    assert_true(qb_path_exists(below(dir, "out/vocab.json")));
    assert_true(qb_path_exists(below(dir, "out/merges.txt")));
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_writer__writes_what_is_read_back, free_paths),
        cmocka_unit_test_teardown(test_writer__writes_shards_and_an_index, free_paths),
        cmocka_unit_test_teardown(test_writer__header_is_aligned_json, free_paths),
        cmocka_unit_test_teardown(test_writer__refuses_wrong_use, free_paths),
        cmocka_unit_test_teardown(test_writer__guards_what_is_there, free_paths),
        cmocka_unit_test_teardown(test_writer__abort_leaves_the_older_checkpoint, free_paths),
        cmocka_unit_test_teardown(test_writer__removes_what_dead_processes_left, free_paths),
        cmocka_unit_test_teardown(test_writer__tells_that_space_is_short, free_paths),
        cmocka_unit_test_teardown(test_writer__copies_files_beside, free_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
