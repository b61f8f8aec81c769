/* Parts of tensors as linear modules: fused, interleaved, stacked and transposed ones, dense and quantized.
 */
#include "tests/gguf_files.h"

#include "tests/golden_checkpoint.h"
#include <math.h>

/* ---- dense: bytes count 0, 1, 2, .., so element e of a BF16 tensor is (2 e, 2 e + 1) ---- */

static char *scratch;
static int make_scratch(void **state) {
    (void)state;
    scratch = scratch_make();
    return 0;
}
static int drop_scratch(void **state) {
    (void)state;
    scratch_remove(scratch);
    return 0;
}

static const char *dense_directory(void) {
    const char *dir = scratch;
    write_text(dir, "config.json", "{}");
    write_safetensors(dir, "model.safetensors",
                      "{\"a.weight\":{\"dtype\":\"BF16\",\"shape\":[12,4],\"data_offsets\":[0,96]},"
                      "\"experts\":{\"dtype\":\"BF16\",\"shape\":[2,4,6],\"data_offsets\":[96,192]},"
                      "\"b\":{\"dtype\":\"BF16\",\"shape\":[12],\"data_offsets\":[192,216]},"
                      "\"e.bias\":{\"dtype\":\"BF16\",\"shape\":[2,6],\"data_offsets\":[216,240]}}",
                      240);
    return dir;
}

static uint16_t element(int64_t first_byte, int64_t e) {
    return (uint16_t)((first_byte + 2 * e) | (first_byte + 2 * e + 1) << 8);
}

/* Module [rows, cols] of the tensor that begins at `first`; row_of and col_step say where its elements lie.
 */
static void check(qb_checkpoint *ck, const char *module, qb_slice s, int64_t rows, int64_t cols,
                  int64_t first, const int64_t *row_starts, int64_t col_step, bool copied) {
    qb_weight w;
    assert_ok(qb_checkpoint_linear_slice(ck, module, &s, rows, cols, &w));
    assert_int_equal(w.dtype, QB_DTYPE_BF16);
    assert_int_equal(w.copy != NULL, copied);
    const uint16_t *values = w.dense;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            assert_int_equal(values[r * cols + c], element(first, row_starts[r] + c * col_step));
    qb_checkpoint_free_linear(ck, module, &w);
    assert_null(w.dense);
}

static void test_slices__dense_rows_are_found_where_they_lie(void **state) {
    (void)state;
    qb_checkpoint *ck = open_ok(dense_directory());
    check(ck, "a", (qb_slice){.tensor_rows = 12, .first_row = 4}, 3, 4, 0, (int64_t[]){16, 20, 24}, 1, false);
    /* two heads of rows (q q k k v v): the keys */
    check(ck, "a", (qb_slice){.tensor_rows = 12, .first_row = 2, .run = 2, .stride = 6}, 4, 4, 0,
          (int64_t[]){8, 12, 32, 36}, 1, true);
    check(ck, "a", (qb_slice){.tensor_rows = 12, .first_row = 1, .run = 1, .stride = 2}, 6, 4, 0,
          (int64_t[]){4, 12, 20, 28, 36, 44}, 1, true);
    /* stored [in, out] = [12, 4]: rows 1 and 2 of four */
    check(ck, "a", (qb_slice){.tensor_rows = 4, .first_row = 1, .transposed = true}, 2, 12, 0,
          (int64_t[]){1, 2}, 4, true);
    check(ck, "experts", (qb_slice){.matrices = 2, .index = 1}, 4, 6, 96, (int64_t[]){24, 30, 36, 42}, 1,
          false);
    /* stacked [E, in, out] with gate and up in turn */
    check(ck, "experts",
          (qb_slice){.matrices = 2,
                     .index = 1,
                     .tensor_rows = 6,
                     .first_row = 1,
                     .run = 1,
                     .stride = 2,
                     .transposed = true},
          3, 4, 96, (int64_t[]){24 + 1, 24 + 3, 24 + 5}, 6, true);
    qb_checkpoint_close(ck);
}

static void test_slices__biases_follow_the_same_rows(void **state) {
    (void)state;
    qb_checkpoint *ck = open_ok(dense_directory());
    float *v;
    assert_ok(qb_checkpoint_read_f32_slice(
        ck, "b", &(qb_slice){.tensor_rows = 12, .first_row = 2, .run = 2, .stride = 6}, 4, &v));
    for (int i = 0; i < 4; i++) assert_true(v[i] == qb_f32_of_bf16(element(192, (int64_t[]){2, 3, 8, 9}[i])));
    qb_free(v);
    assert_ok(qb_checkpoint_read_f32_slice(
        ck, "e.bias",
        &(qb_slice){.matrices = 2, .index = 1, .tensor_rows = 6, .first_row = 1, .run = 1, .stride = 2}, 3,
        &v));
    for (int i = 0; i < 3; i++) assert_true(v[i] == qb_f32_of_bf16(element(216, 6 + 1 + 2 * i)));
    qb_free(v);
    qb_checkpoint_close(ck);
}

static void test_slices__what_does_not_lie_in_the_tensor_is_refused(void **state) {
    (void)state;
    qb_checkpoint *ck = open_ok(dense_directory());
    static const qb_slice bad[] = {
        {.tensor_rows = 12, .first_row = 10},
        {.tensor_rows = 12, .first_row = -1},
        {.tensor_rows = 12, .run = 2, .stride = 1},
        {.tensor_rows = 12, .index = 1},
        {.matrices = 2, .index = 2},
        {.tensor_rows = 12, .first_row = 6, .run = 1, .stride = 3},
    };
    qb_weight w;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(qb_checkpoint_linear_slice(ck, "a", &bad[i], 3, 4, &w), QB_ERR_FORMAT, "do not lie in");
    assert_fails(qb_checkpoint_linear_slice(ck, "a", &(qb_slice){.matrices = 2}, 6, 4, &w), QB_ERR_FORMAT,
                 "expected BF16 [2, 6, 4], found BF16 [12, 4]");
    assert_fails(qb_checkpoint_linear_slice(ck, "a", &(qb_slice){.transposed = true}, 3, 4, &w),
                 QB_ERR_FORMAT, "expected BF16 [4, 3]");
    assert_fails(qb_checkpoint_linear_slice(ck, "none", NULL, 3, 4, &w), QB_ERR_FORMAT,
                 "holds no tensor none.weight");
    qb_checkpoint_close(ck);
}

/* ---- quantized ---- */

/* Rows of a part are those of the whole, in every layout that the goldens hold. */
static void check_parts(const char *name) {
    qb_checkpoint *ck = open_ok(golden_path(name));
    static const qb_slice slices[] = {{.tensor_rows = ROWS, .first_row = 8},
                                      {.tensor_rows = ROWS, .first_row = 2, .run = 2, .stride = 8}};
    qb_weight whole, part;
    float *all, *some;
    assert_ok(qb_checkpoint_linear(ck, "m", ROWS, COLS, &whole));
    assert_ok(qb_alloc(ROWS * COLS, sizeof *all, &all));
    assert_ok(qb_alloc(8 * COLS, sizeof *some, &some));
    qb_qweight_dequantize(whole.packed, all);
    for (int i = 0; i < 2; i++) {
        assert_ok(qb_checkpoint_linear_slice(ck, "m", &slices[i], 8, COLS, &part));
        assert_int_equal(part.packed->rows, 8);
        assert_int_equal(part.packed->symmetric, whole.packed->symmetric);
        qb_qweight_dequantize(part.packed, some);
        for (int64_t r = 0; r < 8; r++)
            assert_memory_equal(some + r * COLS, all + qb_slice_row(&slices[i], r) * COLS,
                                COLS * sizeof *all);
        if (whole.packed->int8_rows)
            assert_true(part.packed->absmax[1] == whole.packed->absmax[qb_slice_row(&slices[i], 1)]);
        qb_checkpoint_free_linear(ck, "m", &part);
    }
    assert_fails(qb_checkpoint_linear_slice(ck, "m", &(qb_slice){.matrices = 2}, ROWS, COLS, &part),
                 QB_ERR_UNSUPPORTED, "stacked");
    qb_checkpoint_free_linear(ck, "m", &whole);
    qb_checkpoint_close(ck);
    qb_free(all);
    qb_free(some);
}

static void test_slices__quantized_rows_are_those_of_the_whole(void **state) {
    (void)state;
    static const char *const names[] = {
        "awq-asym",         "bnb8-half",         "compressed-asym",       "compressed-order",
        "gptqmodel-sym-v1", "gptqmodel-asym-v2", "gptqmodel-3bit-zero-v2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) check_parts(names[i]);
}

static int64_t slice_row(const void *slice, int64_t row) {
    return qb_slice_row(slice, row);
}

static void test_slices__codebook_blocks_part_only_with_the_rows(void **state) {
    (void)state;
    qb_qweight q, part;
    qb_slice s = {.tensor_rows = 4, .first_row = 1, .run = 1, .stride = 2};
    for (int dq = 0; dq < 2; dq++)
        for (int64_t cols = 48; cols <= 64; cols += 16) {
            assert_ok(qb_qweight_alloc_codebook(4, cols, QB_CODEBOOK_NF4, 32, dq, &q));
            for (int64_t i = 0; i < q.n_blocks; i++) q.absmax[i] = (float)i;
            qb_status st = qb_qweight_take_rows(&q, 2, slice_row, &s, &part);
            if (cols == 64 && !dq) {
                assert_ok(st);
                static const float expected[4] = {2, 3, 6, 7};
                assert_memory_equal(part.absmax, expected, sizeof expected);
                qb_qweight_free(&part);
            } else {
                assert_fails(st, QB_ERR_UNSUPPORTED,
                             dq && cols == 64 ? "quantized across" : "cannot be parted");
            }
            qb_qweight_free(&q);
        }
}

/* A stack of three Q8_0 matrices of 4 rows of 32, scale 1, whose codes count on; and the same bytes as one
   matrix. */
static void test_slices__gguf_blocks_are_read_matrix_by_matrix(void **state) {
    (void)state;
    gguf_file f = gguf_begin(3, 2, 7);
    gguf_text(&f, "general.architecture", "llama");
    gguf_int(&f, "llama.context_length", 128);
    gguf_int(&f, "llama.embedding_length", 32);
    gguf_int(&f, "llama.feed_forward_length", 12);
    gguf_int(&f, "llama.block_count", 1);
    gguf_int(&f, "llama.attention.head_count", 2);
    gguf_real(&f, "llama.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_info(&f, "blk.0.ffn_up.weight", 3, (uint64_t[]){32, 4, 3}, 8, 0);
    gguf_info(&f, "token_embd.weight", 2, (uint64_t[]){32, 1}, 0, 416);
    gguf_data(&f, 32, 0);
    for (int row = 0; row < 12; row++) {
        gguf_put(&f, "\x00\x3c", 2); /* float16 1 */
        for (int c = 0; c < 32; c++) {
            int8_t code = (int8_t)(8 * row + c);
            gguf_put(&f, &code, 1);
        }
    }
    gguf_data(&f, 32, 128);
    write_bytes(scratch, "m.gguf", f.bytes.text, f.bytes.length);
    gguf_free(&f);
    qb_checkpoint *ck = open_ok(scratch);
    const char *module = "model.layers.0.mlp.up_proj";
    qb_slice s = {.matrices = 3, .index = 2, .tensor_rows = 4, .first_row = 1, .run = 1, .stride = 2};
    qb_weight w;
    float values[2 * 32];
    assert_ok(qb_checkpoint_linear_slice(ck, module, &s, 2, 32, &w));
    qb_qweight_dequantize(w.packed, values);
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 32; c++) assert_true(values[r * 32 + c] == (float)(8 * (8 + 1 + 2 * r) + c));
    qb_checkpoint_free_linear(ck, module, &w);
    s.matrices = 4;
    assert_fails(qb_checkpoint_linear_slice(ck, module, &s, 2, 32, &w), QB_ERR_FORMAT,
                 "expected [4, 4, 32], found Q8_0 [3, 4, 32]");
    qb_checkpoint_close(ck);
}

/* Two experts of [3, 64] in blocks of 32: value = table[nibble] * 2^(scale - 127), lower nibble first. */
static void test_slices__mxfp4_experts_are_read_one_by_one(void **state) {
    (void)state;
    static const float values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                     -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    enum { E = 2, R = 3, C = 64, BLOCKS = E * R * C / 2, SCALES = E * R * C / 32 };
    static const char header[] =
        "{\"x.experts.down_proj_blocks\":{\"dtype\":\"U8\",\"shape\":[2,3,2,16],\"data_offsets\":[0,192]},"
        "\"x.experts.down_proj_scales\":{\"dtype\":\"U8\",\"shape\":[2,3,2],\"data_offsets\":[192,204]}}";
    uint8_t bytes[BLOCKS + SCALES];
    for (int damaged = 0; damaged < 2; damaged++) {
        for (int i = 0; i < BLOCKS; i++) bytes[i] = (uint8_t)(37 * i + 11);
        for (int i = 0; i < SCALES; i++) bytes[BLOCKS + i] = (uint8_t)(120 + i);
        if (damaged) bytes[BLOCKS + 7] = 255;
        qb_str s = {0};
        uint64_t length = sizeof header - 1;
        qb_str_append(&s, &length, 8);
        qb_str_append(&s, header, length);
        qb_str_append(&s, bytes, sizeof bytes);
        write_bytes(scratch, "model.safetensors", s.text, s.length);
        qb_str_free(&s);
        write_text(scratch, "config.json", "{\"quantization_config\":{\"quant_method\":\"mxfp4\"}}");
        qb_checkpoint *ck = open_ok(scratch);
        qb_slice slice = {.matrices = E, .index = 1, .tensor_rows = R, .transposed = true};
        qb_weight w;
        qb_status st = qb_checkpoint_linear_slice(ck, "x.experts.down_proj", &slice, R, C, &w);
        if (damaged) {
            assert_fails(st, QB_ERR_NUMERIC, "the scale of row 0, block 1 is NaN");
        } else {
            float found[R * C];
            assert_ok(st);
            qb_qweight_dequantize(w.packed, found);
            for (int i = 0; i < R * C; i++) {
                uint8_t byte = bytes[R * C / 2 + i / 2], nibble = i % 2 ? byte >> 4 : byte & 15;
                int exponent = bytes[BLOCKS + R * C / 32 + i / 32] - 127;
                assert_true(found[i] == ldexpf(values[nibble], exponent));
            }
        }
        qb_checkpoint_free_linear(ck, "x.experts.down_proj", &w);
        qb_checkpoint_close(ck);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slices__dense_rows_are_found_where_they_lie, make_scratch,
                                        drop_scratch),
        cmocka_unit_test_setup_teardown(test_slices__biases_follow_the_same_rows, make_scratch, drop_scratch),
        cmocka_unit_test_setup_teardown(test_slices__what_does_not_lie_in_the_tensor_is_refused, make_scratch,
                                        drop_scratch),
        cmocka_unit_test_setup_teardown(test_slices__quantized_rows_are_those_of_the_whole, make_scratch,
                                        drop_scratch),
        cmocka_unit_test_setup_teardown(test_slices__codebook_blocks_part_only_with_the_rows, make_scratch,
                                        drop_scratch),
        cmocka_unit_test_setup_teardown(test_slices__mxfp4_experts_are_read_one_by_one, make_scratch,
                                        drop_scratch),
        cmocka_unit_test_setup_teardown(test_slices__gguf_blocks_are_read_matrix_by_matrix, make_scratch,
                                        drop_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
