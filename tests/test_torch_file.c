/* Files of torch.save against files written by PyTorch 1.13 and 2.15 (tools/record_torch_golden.py), and
   hostile ones. */
#include "checkpoint/torch/torch_file.h"
#include "tests/checkpoint_files.h"
#include "tests/support.h"

/* ---- helpers ---- */

static const char *golden_path(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/torch/%s", QB_SOURCE_DIR, name);
    return path;
}

static void assert_same_tensor(qb_checkpoint *a, const qb_tensor *t, qb_checkpoint *b) {
    const qb_tensor *other;
    const void *x, *y;
    assert_ok(qb_checkpoint_need(b, t->name, &other));
    assert_int_equal(other->dtype, t->dtype);
    assert_int_equal(other->n_dims, t->n_dims);
    assert_int_equal(other->bytes, t->bytes);
    for (int d = 0; d < t->n_dims; d++) assert_int_equal(other->shape[d], t->shape[d]);
    assert_ok(qb_checkpoint_acquire(a, t, &x));
    assert_ok(qb_checkpoint_acquire(b, other, &y));
    if (t->bytes) assert_memory_equal(x, y, (size_t)t->bytes);
    qb_checkpoint_release(a, t);
    qb_checkpoint_release(b, other);
}

static void check_golden(const char *name) {
    qb_checkpoint *expected, *ck;
    assert_ok(qb_checkpoint_open(golden_path("expected"), &expected));
    assert_ok(qb_checkpoint_open(golden_path(name), &ck));
    assert_int_equal(qb_checkpoint_count(ck), qb_checkpoint_count(expected));
    for (size_t i = 0; i < qb_checkpoint_count(expected); i++)
        assert_same_tensor(expected, qb_checkpoint_at(expected, i), ck);
    char hex[QB_SHA256_HEX];
    assert_ok(qb_checkpoint_sha256(ck, hex));
    for (size_t i = 0; i < qb_checkpoint_count(expected); i++) /* again, after what was read was let go */
        assert_same_tensor(expected, qb_checkpoint_at(expected, i), ck);
    qb_checkpoint_close(ck);
    qb_checkpoint_close(expected);
}

/* The status of opening bytes in memory; nothing may be left over. */
static qb_status open_bytes(const void *bytes, size_t n) {
    qb_torch_file *f;
    qb_status st = qb_torch_file_open(bytes, n, "test.pt", &f);
    qb_torch_file_close(f);
    return st;
}

static char *read_golden(const char *name, size_t *n) {
    char *bytes, *path = qb_path_join(golden_path(name), "pytorch_model.bin");
    assert_ok(qb_file_read(path, 1 << 20, &bytes, n));
    qb_free(path);
    return bytes;
}

static void replace_once(char *bytes, size_t n, const char *from, const char *to) {
    size_t length = strlen(from), found = 0;
    assert_int_equal(strlen(to), length);
    for (size_t i = 0; i + length <= n; i++)
        if (!memcmp(bytes + i, from, length)) {
            memcpy(bytes + i, to, length);
            found++;
        }
    assert_true(found > 0);
}

/* ---- what PyTorch wrote ---- */

static void test_torch_file__archives_equal_what_was_saved(void **state) {
    (void)state;
    check_golden("zip-1.13");
    check_golden("zip-2.15");
    check_golden("nested-1.13");
    check_golden("nested-2.15");
}

static void test_torch_file__older_files_equal_what_was_saved(void **state) {
    (void)state;
    check_golden("old-1.13");
    check_golden("old-2.15");
}

static void test_torch_file__shards_with_an_index(void **state) {
    (void)state;
    char *dir = scratch_make();
    size_t n;
    char *bytes = read_golden("old-1.13", &n);
    qb_checkpoint *ck;
    write_text(dir, "config.json", "{}");
    write_bytes(dir, "pytorch_model-00001-of-00002.bin", bytes, n);
    write_bytes(dir, "training_args.bin", "x", 1); /* not weights */
    assert_ok(qb_checkpoint_open(dir, &ck));       /* the one file there is */
    qb_checkpoint_close(ck);
    write_text(dir, "pytorch_model.bin.index.json",
               "{\"weight_map\":{\"weight\":\"pytorch_model-00001-of-00002.bin\","
               "\"other\":\"pytorch_model-00002-of-00002.bin\"}}");
    assert_fails(qb_checkpoint_open(dir, &ck), QB_ERR_NOT_FOUND, "shard 2 of 2");
    write_bytes(dir, "pytorch_model-00002-of-00002.bin", bytes, n);
    const qb_tensor *t;
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_fails(qb_checkpoint_need(ck, "weight", &t), QB_ERR_FORMAT,
                 "is in pytorch_model-00001-of-00002.bin and in pytorch_model-00002-of-00002.bin");
    qb_checkpoint_close(ck);
    write_text(dir, "pytorch_model.bin.index.json",
               "{\"weight_map\":{\"other\":\"pytorch_model-00001-of-00002.bin\"}}");
    assert_ok(qb_checkpoint_open(dir, &ck));
    assert_ok(qb_checkpoint_need(ck, "weight", &t)); /* not in the index, but there */
    assert_fails(qb_checkpoint_need(ck, "other", &t), QB_ERR_FORMAT,
                 "the index puts tensor other into pytorch_model-00001-of-00002.bin, which does not hold it");
    qb_checkpoint_close(ck);
    qb_free(bytes);
    scratch_remove(dir);
}

/* ---- damage ---- */

/* Every prefix of a file, and every byte changed, is refused or read without a fault. */
static void check_damage(const char *name) {
    size_t n;
    char *bytes = read_golden(name, &n);
    for (size_t cut = 0; cut < n; cut += 1 + cut / 64) {
        char *part = NULL;
        assert_ok(qb_alloc(cut, 1, &part));
        if (cut) memcpy(part, bytes, cut);
        assert_true(open_bytes(part, cut) != QB_OK);
        assert_null(strchr(qb_error_text(), '\n'));
        qb_free(part);
    }
    for (size_t at = 0; at < n; at += 1 + at / 256) {
        bytes[at] = (char)(bytes[at] ^ 0x41);
        (void)!open_bytes(bytes, n);
        bytes[at] = (char)(bytes[at] ^ 0x41);
    }
    assert_ok(open_bytes(bytes, n));
    qb_free(bytes);
}

static void test_torch_file__damage_is_one_clear_line(void **state) {
    (void)state;
    check_damage("zip-1.13");
    check_damage("old-1.13");
    assert_fails(open_bytes("PK\3\4", 4), QB_ERR_FORMAT, "no zip archive");
    assert_fails(open_bytes("version https://git-lfs", 23), QB_ERR_FORMAT, "is no file of torch.save");
}

static void test_torch_file__names_what_it_refuses(void **state) {
    (void)state;
    size_t n;
    char *bytes = read_golden("old-1.13", &n);
    replace_once(bytes, n, "torch\nHalfStorage", "torch\nQInt8Storag");
    assert_fails(open_bytes(bytes, n), QB_ERR_UNSUPPORTED, "test.pt: the pickle names torch.QInt8Storag");
    qb_free(bytes);
    bytes = read_golden("old-1.13", &n);
    replace_once(bytes, n, "little_endian\x71\x02\x88", "little_endian\x71\x02\x89");
    assert_fails(open_bytes(bytes, n), QB_ERR_UNSUPPORTED, "byte order big");
    qb_free(bytes);
    /* A member that is not stored: its entry in the central directory says so. */
    bytes = read_golden("zip-1.13", &n);
    size_t at = 0;
    for (size_t i = 0; i + 60 < n; i++)
        if (!memcmp(bytes + i, "PK\1\2", 4) && !at) at = i;
    bytes[at + 10] = 8;
    assert_fails(open_bytes(bytes, n), QB_ERR_UNSUPPORTED, "is compressed or encrypted");
    qb_free(bytes);
    /* A bomb of members that lie on each other: each as long as half of the file and more, and so are two. */
    bytes = read_golden("zip-1.13", &n);
    uint32_t length = (uint32_t)(n / 2 + 1);
    for (size_t i = 0, left = 2; i + 60 < n && left; i++) {
        if (memcmp(bytes + i, "PK\1\2", 4) != 0) continue;
        memcpy(bytes + i + 20, &length, 4);
        memcpy(bytes + i + 24, &length, 4);
        left--;
    }
    assert_fails(open_bytes(bytes, n), QB_ERR_FORMAT, "add up to more than");
    qb_free(bytes);
}

/* A damaged storage shows when it is read: the archive holds its checksum. */
static void test_torch_file__a_changed_byte_of_a_weight_shows(void **state) {
    (void)state;
    size_t n;
    char *bytes = read_golden("zip-2.15", &n), text[] = "\0\0\200?\0\0\0@"; /* 1.0, 2.0 of views.whole */
    size_t at = 0;
    for (size_t i = 0; i + 8 < n && !at; i++)
        if (!memcmp(bytes + i, text, 8)) at = i;
    assert_true(at > 0);
    bytes[at] = 1;
    qb_torch_file *f;
    assert_ok(qb_torch_file_open((const uint8_t *)bytes, n, "test.pt", &f));
    bool seen = false;
    for (size_t i = 0; i < qb_torch_file_count(f); i++) {
        const qb_torch_entry *e = qb_torch_file_at(f, i);
        float values[24];
        if (strcmp(e->name, "views.whole") != 0) continue;
        assert_fails(qb_torch_file_read(f, e, values), QB_ERR_FORMAT, "CRC error");
        seen = true;
    }
    assert_true(seen);
    qb_torch_file_close(f);
    qb_free(bytes);
}

/* ---- pickles ---- */

typedef struct {
    const char *bytes;
    size_t n;
    qb_status status;
    const char *needle;
} pickle_row;
#define PICKLE(text, status, needle)                                                                         \
    { text, sizeof text - 1, status, needle }

static void test_torch_file__pickles_run_nothing(void **state) {
    (void)state;
    static const pickle_row rows[] = {
        PICKLE("cos\nsystem\n(S'true'\ntR.", QB_ERR_UNSUPPORTED, "the pickle names os.system"),
        PICKLE("\x80\x04\x8c\x05posix\x8c\x06system\x93.", QB_ERR_UNSUPPORTED, "names posix.system"),
        PICKLE("c__builtin__\neval\n.", QB_ERR_UNSUPPORTED, "names __builtin__.eval"),
        PICKLE("\x80\x02ibuiltins\nexec\n.", QB_ERR_UNSUPPORTED, "opcode 0x69 at byte 2"),
        PICKLE("\x80\x02)\x81.", QB_ERR_UNSUPPORTED, "opcode 0x81"),
        PICKLE("K\1K\2R.", QB_ERR_FORMAT, "a call of what is no function"),
        PICKLE("ctorch\nFloatStorage\n)R.", QB_ERR_FORMAT, "torch.FloatStorage is called"),
        PICKLE("ctorch._utils\n_rebuild_tensor_v2\n)R.", QB_ERR_FORMAT, "without a storage"),
        PICKLE("ctorch._utils\n_rebuild_parameter\n)R.", QB_ERR_FORMAT, "without arguments"),
        PICKLE("K\1Q.", QB_ERR_FORMAT, "a persistent id that is no storage"),
        PICKLE(".", QB_ERR_FORMAT, "a value is missing"),
        PICKLE("(K\1.", QB_ERR_FORMAT, "a mark is left"),
        PICKLE("t.", QB_ERR_FORMAT, "a mark is missing"),
        PICKLE("K\1(0.", QB_OK, ""),
        PICKLE("(K\1d.", QB_ERR_FORMAT, "a key without a value"),
        PICKLE("h\7.", QB_ERR_FORMAT, "a memo entry that was never made"),
        PICKLE("Nr\xff\xff\xff\x7f.", QB_ERR_FORMAT, "a memo index out of range"),
        PICKLE("K", QB_ERR_FORMAT, "it ends within an opcode"),
        PICKLE("X\xff\xff\xff\xff.", QB_ERR_FORMAT, "it ends within an opcode"),
        PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", QB_ERR_FORMAT, "it ends within an opcode"),
        PICKLE("ctorch", QB_ERR_FORMAT, "a line without an end"),
        PICKLE("]q\0h\0a.", QB_OK, ""), /* a list that holds itself */
        PICKLE("", QB_ERR_FORMAT, "it ends within an opcode"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_arena arena = {0};
        const qb_pickle_value *v;
        size_t used;
        qb_status st = qb_pickle_read((const uint8_t *)rows[i].bytes, rows[i].n, "p", &arena, &used, &v);
        if (rows[i].status == QB_OK)
            assert_ok(st);
        else
            assert_fails(st, rows[i].status, rows[i].needle);
        assert_true(used <= rows[i].n);
        qb_arena_free(&arena);
    }
}

#define STORAGE                                                                                              \
    "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                                       \
    "0X\3\0\0\0cpuK\6tQ"
#define REBUILD(args) "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE args "\x89}tR."

static void test_torch_file__views_stay_within_their_storage(void **state) {
    (void)state;
    static const pickle_row rows[] = {
        PICKLE(REBUILD("K\0K\2K\3\x86K\3K\1\x86"), QB_OK, ""),
        PICKLE(REBUILD("K\0K\2K\3\x86K\1K\2\x86"), QB_OK, ""), /* transposed */
        PICKLE(REBUILD("K\1K\2K\3\x86K\3K\1\x86"), QB_ERR_FORMAT, "reaches beyond its storage"),
        PICKLE(REBUILD("K\0K\2K\4\x86K\4K\1\x86"), QB_ERR_FORMAT, "reaches beyond its storage"),
        PICKLE(REBUILD("K\7K\0\x85K\1\x85"), QB_ERR_FORMAT, "reaches beyond its storage"),
        PICKLE(REBUILD("J\xff\xff\xff\xffK\1\x85K\1\x85"), QB_ERR_FORMAT, "without a storage and an offset"),
        PICKLE(REBUILD("K\0J\xff\xff\xff\xff\x85K\1\x85"), QB_ERR_FORMAT, "no whole numbers"),
        PICKLE(REBUILD("K\0J\0\0\0@J\0\0\0@\x86K\1K\1\x86"), QB_ERR_FORMAT, "reaches beyond"),
        PICKLE(REBUILD("K\0K\2K\3\x86K\1\x85"), QB_ERR_FORMAT, "more strides than dimensions"),
        PICKLE(REBUILD("K\0K\6\x85K\0\x85"), QB_ERR_UNSUPPORTED,
               "a tensor of shape [6] with strides [0] is neither contiguous nor transposed"),
        PICKLE(REBUILD("K\0K\3\x85K\2\x85"), QB_ERR_UNSUPPORTED, "strides [2]"),
        PICKLE(REBUILD("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t(t"), QB_ERR_UNSUPPORTED, "9 dimensions"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_arena arena = {0};
        const qb_pickle_value *v;
        size_t used;
        qb_status st = qb_pickle_read((const uint8_t *)rows[i].bytes, rows[i].n, "p", &arena, &used, &v);
        if (rows[i].status == QB_OK) {
            assert_ok(st);
            assert_int_equal(v->kind, QB_PICKLE_TENSOR);
            assert_int_equal(v->tensor->bytes, 24);
        } else {
            assert_fails(st, rows[i].status, rows[i].needle);
        }
        qb_arena_free(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_file__archives_equal_what_was_saved),
        cmocka_unit_test(test_torch_file__older_files_equal_what_was_saved),
        cmocka_unit_test(test_torch_file__shards_with_an_index),
        cmocka_unit_test(test_torch_file__damage_is_one_clear_line),
        cmocka_unit_test(test_torch_file__names_what_it_refuses),
        cmocka_unit_test(test_torch_file__a_changed_byte_of_a_weight_shows),
        cmocka_unit_test(test_torch_file__pickles_run_nothing),
        cmocka_unit_test(test_torch_file__views_stay_within_their_storage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
