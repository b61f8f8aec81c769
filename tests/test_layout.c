/* Layouts of quantized linears against files packed by bitsandbytes and AutoGPTQ
   (tools/record_layout_golden.py), against published packing vectors, and against themselves. */
#include "base/hash.h"
#include "base/rng.h"
#include "checkpoint/layout.h"
#include "checkpoint/layouts/bitpack.h"
#include "checkpoint/layouts/quant_state.h"
#include "tests/checkpoint_files.h"
#include "tests/support.h"
#include "tests/view_support.h"

#include <math.h>

/* ---- helpers ---- */

static qb_checkpoint *open_ok(const char *dir) {
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(dir, &ck));
    return ck;
}

static const char *golden_path(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/layouts/%s", QB_SOURCE_DIR, name);
    return path;
}

/* The bytes of a tensor, held until the checkpoint is closed. */
static const void *bytes_of(qb_checkpoint *ck, const char *name, int64_t *n) {
    const qb_tensor *t;
    const void *bytes;
    assert_ok(qb_checkpoint_need(ck, name, &t));
    assert_ok(qb_checkpoint_acquire(ck, t, &bytes));
    if (n) *n = t->bytes;
    return bytes;
}

/* A checkpoint directory DIR that holds modules m0 .. m(n-1) in one layout. */
static void save(const char *dir, const qb_layout *layout, const qb_qweight *q, size_t n, const char *label) {
    qb_writer *w;
    char module[32];
    qb_json *config = qb_json_object(), *how = layout->config(&q[0], NULL);
    if (label) qb_json_put_text(how, "checkpoint_format", label);
    qb_json_put(config, "quantization_config", how);
    assert_ok(qb_writer_create(dir, true, 0, &w));
    for (size_t i = 0; i < n; i++) {
        snprintf(module, sizeof module, "m%zu", i);
        assert_ok(layout->plan(w, module, &q[i]));
    }
    assert_ok(qb_writer_begin(w));
    for (size_t i = n; i-- > 0;) {
        snprintf(module, sizeof module, "m%zu", i);
        assert_ok(layout->put(w, module, &q[i]));
    }
    assert_ok(qb_writer_put_json(w, "config.json", config));
    assert_ok(qb_writer_finish(w));
    qb_json_free(config);
}

static uint64_t draws;
static uint32_t draw(uint32_t below) {
    return (uint32_t)(qb_noise_u64(7, draws++) >> 32) % below;
}

/* A weight of random codes; scales are float16 values, so that storing them changes nothing. */
static qb_qweight random_affine(int64_t rows, int64_t cols, int bits, int64_t group, bool symmetric,
                                bool act_order) {
    qb_qweight q;
    assert_ok(qb_qweight_alloc_affine(rows, cols, bits, group, act_order, &q));
    for (int64_t i = 0; i < rows * cols; i++) q.codes[i] = (uint8_t)draw(1u << bits);
    for (int64_t i = 0; i < rows * q.n_groups; i++) {
        q.scales[i] = qb_f32_of_f16((uint16_t)(0x2000 + draw(0x1000)));
        q.zeros[i] = (uint8_t)(symmetric ? 1u << (bits - 1) : 1 + draw((1u << bits) - 1));
    }
    q.symmetric = symmetric;
    for (int64_t c = 0; act_order && c < cols; c++) q.g_idx[c] = (int32_t)(c / group);
    for (int64_t c = cols - 1; act_order && c > 0; c--) {
        uint32_t other = draw((uint32_t)c + 1);
        int32_t kept = q.g_idx[c];
        q.g_idx[c] = q.g_idx[other];
        q.g_idx[other] = kept;
    }
    return q;
}

static void assert_same_affine(const qb_qweight *a, const qb_qweight *b) {
    size_t groups = (size_t)(a->rows * a->n_groups);
    assert_int_equal(b->rows, a->rows);
    assert_int_equal(b->cols, a->cols);
    assert_int_equal(b->bits, a->bits);
    assert_int_equal(b->n_groups, a->n_groups);
    assert_int_equal(b->symmetric, a->symmetric);
    assert_memory_equal(b->codes, a->codes, (size_t)(a->rows * a->cols));
    assert_memory_equal(b->zeros, a->zeros, groups);
    assert_memory_equal(b->scales, a->scales, groups * sizeof *a->scales);
    for (int64_t c = 0; c < a->cols; c++)
        assert_int_equal(b->g_idx ? b->g_idx[c] : c / b->group_size,
                         a->g_idx ? a->g_idx[c] : c / a->group_size);
}

static qb_weight read_ok(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols) {
    qb_weight w;
    assert_ok(qb_checkpoint_linear(ck, module, rows, cols, &w));
    assert_non_null(w.packed);
    assert_view_is(ck, module, w.packed);
    return w;
}

/* ---- bits ---- */

/* docs/formats.md, small vectors. */
static void test_layout__packs_the_published_words(void **state) {
    (void)state;
    uint8_t counting[32], codes[32];
    uint32_t words[8];
    for (int i = 0; i < 32; i++) counting[i] = (uint8_t)(i % 8);
    qb_bits_pack(counting, 8, 4, words);
    assert_int_equal(words[0], 0x76543210);
    qb_bits_pack(counting, 32, 3, words);
    assert_int_equal(words[0], 0x88FAC688);
    assert_int_equal(words[1], 0xC688FAC6);
    assert_int_equal(words[2], 0xFAC688FA);
    qb_bits_unpack(words, 32, 3, codes);
    assert_memory_equal(codes, counting, 32);
    static const struct {
        int bits, value;
        uint32_t words[3];
    } zeros[] = {
        {4, 7, {0x77777777, 0, 0}},
        {4, 8, {0x88888888, 0, 0}},
        {2, 1, {0x55555555, 0, 0}},
        {2, 2, {0xAAAAAAAA, 0, 0}},
        {3, 3, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}},
        {3, 4, {0x24924924, 0x49249249, 0x92492492}},
        {8, 127, {0x7F7F7F7F, 0, 0}},
        {8, 128, {0x80808080, 0, 0}},
    };
    for (size_t i = 0; i < sizeof zeros / sizeof zeros[0]; i++) {
        memset(codes, zeros[i].value, sizeof codes);
        qb_bits_pack(codes, 32, zeros[i].bits, words);
        assert_int_equal(words[0], zeros[i].words[0]);
        if (zeros[i].bits == 3) assert_memory_equal(words, zeros[i].words, 12);
    }
}

/* Against one bit at a time, for lengths with and without a tail. */
static void test_layout__bit_streams_round_trip(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 5, 6, 8};
    for (size_t b = 0; b < sizeof bits / sizeof bits[0]; b++)
        for (int64_t n = 1; n <= 200; n++) {
            uint8_t codes[200], back[200];
            uint32_t words[50], slow[50] = {0};
            size_t bytes = (size_t)((n * bits[b] + 31) / 32) * 4;
            for (int64_t i = 0; i < n; i++) {
                codes[i] = (uint8_t)draw(1u << bits[b]);
                for (int64_t k = 0; k < bits[b]; k++)
                    slow[(i * bits[b] + k) / 32] |= (uint32_t)(codes[i] >> k & 1) << (i * bits[b] + k) % 32;
            }
            qb_bits_pack(codes, n, bits[b], words);
            assert_memory_equal(words, slow, bytes);
            qb_bits_unpack(words, n, bits[b], back);
            assert_memory_equal(back, codes, (size_t)n);
        }
}

/* ---- gptq ---- */

static void check_gptq_golden(int bits) {
    char name[32], hex[QB_SHA256_HEX];
    snprintf(name, sizeof name, "gptq-%dbit", bits);
    qb_checkpoint *ck = open_ok(golden_path(name));
    assert_string_equal(qb_checkpoint_quantization(ck)->layout, "gptq");
    assert_true(qb_checkpoint_quantization(ck)->desc_act);
    qb_weight w = read_ok(ck, "m", 32, 64);
    assert_int_equal(w.packed->bits, bits);
    assert_int_equal(w.packed->n_groups, 3);
    assert_non_null(w.packed->g_idx);
    assert_memory_equal(w.packed->codes, bytes_of(ck, "codes", NULL), 32 * 64);
    assert_memory_equal(w.packed->zeros, bytes_of(ck, "zeros", NULL), 32 * 3);
    float dense[32 * 64];
    qb_qweight_dequantize(w.packed, dense);
    assert_ok(qb_hash_bytes(dense, sizeof dense, hex));
    assert_memory_equal(hex, bytes_of(ck, "dequantized_sha256", NULL), 64);

    /* What we write of it is what AutoGPTQ wrote; in v2 with the zeros one lower it is what AutoGPTQ packs of
     * them. */
    char *dir = scratch_make();
    static const char *const suffixes[] = {"qweight", "qzeros", "scales", "g_idx"};
    save(dir, qb_layout_find("gptq"), w.packed, 1, NULL);
    qb_checkpoint *ours = open_ok(dir);
    for (size_t i = 0; i < 4; i++) {
        char theirs_name[32], our_name[32];
        int64_t n, our_n;
        snprintf(theirs_name, sizeof theirs_name, "m.%s", suffixes[i]);
        snprintf(our_name, sizeof our_name, "m0.%s", suffixes[i]);
        const void *theirs = bytes_of(ck, theirs_name, &n);
        assert_memory_equal(bytes_of(ours, our_name, &our_n), theirs, (size_t)n);
        assert_int_equal(our_n, n);
    }
    qb_checkpoint_close(ours);
    memcpy(w.packed->zeros, bytes_of(ck, "zeros_low", NULL), 32 * 3);
    save(dir, qb_layout_find("gptq_v2"), w.packed, 1, NULL);
    ours = open_ok(dir);
    int64_t n;
    const void *theirs = bytes_of(ck, "qzeros_v2_of_low", &n);
    assert_memory_equal(bytes_of(ours, "m0.qzeros", NULL), theirs, (size_t)n);
    qb_weight back = read_ok(ours, "m0", 32, 64);
    assert_same_affine(w.packed, back.packed);
    qb_checkpoint_free_linear(ours, "m0", &back);
    qb_checkpoint_close(ours);
    qb_checkpoint_free_linear(ck, "m", &w);
    qb_checkpoint_close(ck);
    scratch_remove(dir);
}

static void test_layout__gptq_equals_autogptq(void **state) {
    (void)state;
    check_gptq_golden(2);
    check_gptq_golden(3);
    check_gptq_golden(4);
    check_gptq_golden(8);
}

static void test_layout__gptq_round_trips(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 8};
    static const int64_t groups[] = {32, 24, 100000};
    static const int64_t shapes[][2] = {{32, 32}, {64, 352}, {96, 64}, {32, 544}};
    char *dir = scratch_make();
    for (size_t b = 0; b < 4; b++)
        for (size_t g = 0; g < 3; g++)
            for (int kind = 0; kind < 4; kind++) {
                bool symmetric = kind & 1, act_order = kind & 2;
                const qb_layout *layout = qb_layout_find(kind < 3 ? "gptq_v2" : "gptq");
                qb_qweight q[4];
                for (size_t s = 0; s < 4; s++) {
                    int64_t group = groups[g] > shapes[s][1] ? shapes[s][1] : groups[g];
                    q[s] = random_affine(shapes[s][0], shapes[s][1], bits[b], group, symmetric, act_order);
                }
                save(dir, layout, q, 4, NULL);
                qb_checkpoint *ck = open_ok(dir);
                assert_string_equal(qb_checkpoint_quantization(ck)->layout, layout->name);
                assert_int_equal(qb_checkpoint_quantization(ck)->group_size, g == 2            ? -1
                                                                             : g == 1          ? 24
                                                                             : q[0].cols == 32 ? -1
                                                                                               : 32);
                for (size_t s = 0; s < 4; s++) {
                    char module[8];
                    snprintf(module, sizeof module, "m%zu", s);
                    if (g == 0)
                        ((qb_quantization *)(uintptr_t)qb_checkpoint_quantization(ck))->group_size = 32;
                    qb_weight w = read_ok(ck, module, shapes[s][0], shapes[s][1]);
                    assert_same_affine(&q[s], w.packed);
                    qb_checkpoint_free_linear(ck, module, &w);
                    qb_qweight_free(&q[s]);
                }
                qb_checkpoint_close(ck);
            }
    scratch_remove(dir);
}

/* A file labelled v1 that holds v2 zeros, and the reverse: symmetric weights tell by value. */
static void test_layout__gptq_sniffs_mislabelled_zeros(void **state) {
    (void)state;
    char *dir = scratch_make();
    static const int bits[] = {2, 3, 4, 8};
    for (size_t b = 0; b < 4; b++)
        for (int v1 = 0; v1 < 2; v1++) {
            qb_qweight q = random_affine(64, 96, bits[b], 32, true, false);
            save(dir, qb_layout_find(v1 ? "gptq" : "gptq_v2"), &q, 1, v1 ? "gptq_v2" : "gptq");
            qb_checkpoint *ck = open_ok(dir);
            assert_string_equal(qb_checkpoint_quantization(ck)->layout, v1 ? "gptq_v2" : "gptq");
            qb_weight w = read_ok(ck, "m0", 64, 96);
            assert_same_affine(&q, w.packed);
            qb_checkpoint_free_linear(ck, "m0", &w);
            qb_checkpoint_close(ck);
            qb_qweight_free(&q);
        }
    scratch_remove(dir);
}

/* v1 keeps a true zero of 0 as 2^bits - 1: a reader must come back to 0. */
static void test_layout__gptq_v1_wraps_zero(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_qweight q = random_affine(32, 32, 4, 32, false, false);
    memset(q.zeros, 15, 32);
    save(dir, qb_layout_find("gptq_v2"), &q, 1, "gptq"); /* the fields 15 of a file labelled v1 */
    qb_checkpoint *ck = open_ok(dir);
    qb_weight w = read_ok(ck, "m0", 32, 32);
    for (int i = 0; i < 32; i++) assert_int_equal(w.packed->zeros[i], 0);
    qb_checkpoint_free_linear(ck, "m0", &w);
    qb_checkpoint_close(ck);
    q.zeros[5] = 0;
    assert_fails(qb_layout_find("gptq")->check("m0", &q), QB_ERR_UNSUPPORTED, "use gptq_v2");
    assert_ok(qb_layout_find("gptq_v2")->check("m0", &q));
    qb_qweight_free(&q);
    scratch_remove(dir);
}

/* Runs put of one module whose arrays were spoilt; nothing may be published. */
static void assert_put_fails(const qb_layout *layout, const qb_qweight *q, qb_status status,
                             const char *needle) {
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    qb_writer *w;
    assert_ok(qb_writer_create(target, false, 0, &w));
    assert_ok(layout->plan(w, "blocks.0.q", q));
    assert_ok(qb_writer_begin(w));
    assert_fails(layout->put(w, "blocks.0.q", q), status, needle);
    qb_writer_abort(w);
    assert_false(qb_path_exists(target));
    qb_free(target);
    scratch_remove(dir);
}

static void test_layout__gptq_refuses_what_it_cannot_hold(void **state) {
    (void)state;
    const qb_layout *v2 = qb_layout_find("gptq_v2");
    qb_qweight shape = {
        .coding = QB_CODING_AFFINE, .rows = 64, .cols = 172, .bits = 4, .group_size = 172, .n_groups = 1};
    assert_fails(v2->check("mlp.down_proj", &shape), QB_ERR_UNSUPPORTED,
                 "mlp.down_proj: a gptq checkpoint cannot hold a weight of shape [64, 172]: both sizes must "
                 "be multiples of 32; nf4 can");
    shape.bits = 5;
    assert_fails(v2->check("m", &shape), QB_ERR_UNSUPPORTED, "2, 3, 4 or 8 bits, not 5");
    qb_qweight q = random_affine(32, 64, 3, 32, false, false);
    q.codes[70] = 8;
    assert_put_fails(v2, &q, QB_ERR_NUMERIC, "blocks.0.q: code 8 at position 70 does not fit 3 bits");
    q.codes[70] = 0;
    q.zeros[3] = 9;
    assert_put_fails(v2, &q, QB_ERR_NUMERIC, "zero point 9 at position 3 does not fit 3 bits");
    q.zeros[3] = 0;
    q.scales[5] = (float)NAN;
    assert_put_fails(v2, &q, QB_ERR_NUMERIC, "row 2, group 1 is not a finite float16");
    q.scales[5] = 70000.0f;
    assert_put_fails(v2, &q, QB_ERR_NUMERIC, "scale 70000");
    q.scales[5] = 0.3f; /* no float16, and 1e-9 would become 0 */
    assert_put_fails(v2, &q, QB_ERR_INTERNAL,
                     "the scale 0.300000012 of row 2, group 1 was not rounded to float16");
    q.scales[5] = 1e-9f;
    assert_put_fails(v2, &q, QB_ERR_INTERNAL, "was not rounded to float16");
    qb_qweight_free(&q);
}

/* A gptq directory of one module m [rows, 64] at 4 bits, groups of 32, with one thing spoilt. */
typedef struct {
    uint16_t scale;
    int32_t group;
    const char *config, *without;
    int64_t extra_rows;
} spoil;
static void assert_read_fails(const spoil *s, qb_status status, const char *needle) {
    char *dir = scratch_make();
    char *target = qb_path_join(dir, "out");
    qb_json *json;
    qb_writer *w;
    static const struct {
        const char *name;
        qb_dtype dtype;
        int n_dims;
        int64_t shape[2];
    } rows[] = {{"m.qweight", QB_DTYPE_I32, 2, {8, 32}},
                {"m.qzeros", QB_DTYPE_I32, 2, {2, 4}},
                {"m.scales", QB_DTYPE_F16, 2, {2, 32}},
                {"m.g_idx", QB_DTYPE_I32, 1, {64}}};
    assert_ok(qb_writer_create(target, false, 0, &w));
    for (size_t i = 0; i < 4; i++) {
        int64_t shape[2] = {rows[i].shape[0] + (i == 0 ? s->extra_rows : 0), rows[i].shape[1]};
        if (!s->without || strcmp(s->without, rows[i].name) != 0)
            assert_ok(qb_writer_plan(w, rows[i].name, rows[i].dtype, rows[i].n_dims, shape));
    }
    assert_ok(qb_writer_begin(w));
    for (size_t i = 0; i < 4; i++) {
        char data[2048] = {0};
        for (size_t k = 0; i == 2 && k < 64; k++)
            memcpy(data + 2 * k, &(uint16_t){k == 40 ? s->scale : 0x3c00}, 2);
        if (i == 3) memcpy(data + 4 * 9, &s->group, 4);
        if (qb_writer_planned_bytes(w, rows[i].name) >= 0)
            assert_ok(qb_writer_put(w, rows[i].name, data, qb_writer_planned_bytes(w, rows[i].name)));
    }
    assert_ok(qb_json_parse(s->config, strlen(s->config), "test", &json));
    assert_ok(qb_writer_put_json(w, "config.json", json));
    qb_json_free(json);
    assert_ok(qb_writer_finish(w));
    qb_checkpoint *ck;
    qb_status st = qb_checkpoint_open(target, &ck);
    qb_weight weight = {0};
    if (st == QB_OK) st = qb_checkpoint_linear(ck, "m", 32, 64, &weight);
    if (status == QB_OK)
        assert_ok(st);
    else
        assert_fails(st, status, needle);
    qb_weight_free(&weight);
    qb_checkpoint_close(ck);
    qb_free(target);
    scratch_remove(dir);
}

#define GPTQ_CONFIG(more)                                                                                    \
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"sym\":false,\"checkpoint_format\":\"gptq_"        \
    "v2\"," more "}}"
static void test_layout__gptq_read_errors_say_what_is_wrong(void **state) {
    (void)state;
    const char *good = GPTQ_CONFIG("\"bits\":4,\"group_size\":32");
    assert_read_fails(&(spoil){0x3c00, 0, good, NULL, 0}, QB_OK, "");
    assert_read_fails(&(spoil){0x3c00, 0, good, "m.g_idx", 0}, QB_OK, ""); /* older files have none */
    const char *ordered = GPTQ_CONFIG("\"bits\":4,\"group_size\":32,\"desc_act\":true");
    assert_read_fails(&(spoil){0x3c00, 0, ordered, "m.g_idx", 0}, QB_ERR_FORMAT, "m.g_idx is missing");
    const char *fixed = GPTQ_CONFIG("\"bits\":4,\"group_size\":32,\"desc_act\":true,\"static_groups\":true");
    assert_read_fails(&(spoil){0x3c00, 0, fixed, "m.g_idx", 0}, QB_OK, "");
    assert_read_fails(&(spoil){0x7e00, 0, good, NULL, 0}, QB_ERR_NUMERIC,
                      "m.scales: the scale of group 1, row 8 is nan");
    assert_read_fails(&(spoil){0x3c00, 2, good, NULL, 0}, QB_ERR_FORMAT,
                      "m.g_idx: column 9 is in group 2, outside [0, 2)");
    assert_read_fails(&(spoil){0x3c00, -1, good, NULL, 0}, QB_ERR_FORMAT, "column 9 is in group -1");
    assert_read_fails(&(spoil){0x3c00, 0, good, "m.scales", 0}, QB_ERR_FORMAT, "holds no tensor m.scales");
    assert_read_fails(&(spoil){0x3c00, 0, good, "m.qweight", 0}, QB_ERR_FORMAT, "holds no tensor m.weight");
    assert_read_fails(&(spoil){0x3c00, 0, good, NULL, 1}, QB_ERR_FORMAT,
                      "m.qweight: expected I32 [8, 32], found I32 [9, 32]");
    assert_read_fails(&(spoil){0x3c00, 0, GPTQ_CONFIG("\"w_bit\":4,\"q_group_size\":32"), NULL, 0}, QB_OK,
                      "");
    assert_read_fails(&(spoil){0x3c00, 0, GPTQ_CONFIG("\"bits\":4,\"group_size\":16"), NULL, 0},
                      QB_ERR_FORMAT, "m.qzeros: expected I32 [4, 4], found I32 [2, 4]");
    assert_read_fails(&(spoil){0x3c00, 0, GPTQ_CONFIG("\"bits\":3,\"group_size\":32"), NULL, 0},
                      QB_ERR_FORMAT, "expected I32 [6, 32]");
    assert_read_fails(&(spoil){0x3c00, 0, GPTQ_CONFIG("\"bits\":5,\"group_size\":32"), NULL, 0},
                      QB_ERR_UNSUPPORTED, "5-bit gptq");
    assert_read_fails(&(spoil){0x3c00, 0, GPTQ_CONFIG("\"group_size\":32"), NULL, 0}, QB_ERR_FORMAT,
                      "\"bits\" is missing");
    assert_read_fails(
        &(spoil){0x3c00, 0, GPTQ_CONFIG("\"bits\":4,\"dynamic\":{\"+:.*\":{\"bits\":8}}"), NULL, 0},
        QB_ERR_FORMAT, "m.qweight: expected I32");
    assert_read_fails(&(spoil){0x3c00, 0, GPTQ_CONFIG("\"bits\":4,\"is_marlin_format\":true"), NULL, 0},
                      QB_ERR_UNSUPPORTED, "\"marlin\"");
    assert_read_fails(
        &(spoil){0x3c00, 0, "{\"quantization_config\":{\"quant_method\":\"exl2\",\"bits\":4}}", NULL, 0},
        QB_ERR_UNSUPPORTED, "quant_method \"exl2\" is not supported");
    assert_read_fails(&(spoil){0x3c00, 0, "{\"quantization_config\":{\"bits\":4}}", NULL, 0}, QB_ERR_FORMAT,
                      "quantization_config: \"quant_method\" is missing");
    assert_read_fails(&(spoil){0x3c00, 0, "{}", NULL, 0}, QB_ERR_FORMAT, "does not say how it is quantized");
}

/* AutoGPTQ's own file stands in for config.json's member. */
static void test_layout__gptq_config_from_quantize_config_json(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_qweight q = random_affine(32, 64, 4, 32, true, false);
    save(dir, qb_layout_find("gptq"), &q, 1, NULL);
    write_text(dir, "config.json", "{}");
    write_text(dir, "quantize_config.json",
               "{\"bits\":4,\"group_size\":32,\"sym\":true,\"desc_act\":false,\"damp_percent\":0.01}");
    qb_checkpoint *ck = open_ok(dir);
    const qb_quantization *how = qb_checkpoint_quantization(ck);
    assert_string_equal(how->method, "gptq");
    assert_string_equal(how->layout, "gptq");
    qb_weight w = read_ok(ck, "m0", 32, 64);
    assert_same_affine(&q, w.packed);
    qb_checkpoint_free_linear(ck, "m0", &w);
    qb_checkpoint_close(ck);
    qb_qweight_free(&q);
    scratch_remove(dir);
}

static void test_layout__gptq_config_has_the_keys_of_transformers(void **state) {
    (void)state;
    qb_qweight q = {.coding = QB_CODING_AFFINE,
                    .rows = 64,
                    .cols = 128,
                    .bits = 3,
                    .group_size = 128,
                    .n_groups = 1,
                    .symmetric = true};
    const char *options =
        "{\"bits\":3,\"group_size\":128,\"act_order\":true,\"damp_percent\":0.01,\"mse\":false}";
    qb_json *json, *config;
    char *text;
    assert_ok(qb_json_parse(options, strlen(options), "options", &json));
    config = qb_layout_find("gptq_v2")->config(&q, json);
    assert_ok(qb_json_print(config, false, &text));
    assert_string_equal(text, "{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":128,\"desc_act\":true,"
                              "\"sym\":true,\"lm_head\":false,"
                              "\"damp_percent\":0.01,\"checkpoint_format\":\"gptq_v2\",\"pack_dtype\":"
                              "\"int32\",\"meta\":{\"quantizer\":["
                              "\"quantbench:" QB_VERSION "\"],\"damp_percent\":0.01,\"mse\":false}}");
    qb_free(text);
    qb_json_free(config);
    qb_json_free(json);
}

/* ---- bitsandbytes ---- */

static void check_bnb_golden(const char *name, int64_t rows, int64_t cols, int64_t block, bool nested) {
    char hex[QB_SHA256_HEX];
    qb_checkpoint *ck = open_ok(golden_path(name));
    assert_string_equal(qb_checkpoint_quantization(ck)->layout, "bnb4");
    qb_weight w = read_ok(ck, "m", rows, cols);
    const qb_qweight *q = w.packed;
    assert_int_equal(q->block_size, block);
    assert_int_equal(q->double_quant, nested);
    assert_memory_equal(q->absmax, bytes_of(ck, "absmax", NULL), (size_t)q->n_blocks * 4);
    float *dense;
    assert_ok(qb_alloc((size_t)(rows * cols), sizeof *dense, &dense));
    qb_qweight_dequantize(q, dense);
    assert_ok(qb_hash_bytes(dense, (size_t)(rows * cols) * sizeof *dense, hex));
    assert_memory_equal(hex, bytes_of(ck, "dequantized_sha256", NULL), 64);
    qb_free(dense);

    char *dir = scratch_make();
    save(dir, qb_layout_find("bnb4"), q, 1, NULL);
    qb_checkpoint *ours = open_ok(dir);
    size_t compared = 0;
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
        const qb_tensor *theirs = qb_checkpoint_at(ck, i), *t;
        char our_name[128];
        if (strncmp(theirs->name, "m.", 2) != 0) continue;
        snprintf(our_name, sizeof our_name, "m0.%s", theirs->name + 2);
        assert_ok(qb_checkpoint_need(ours, our_name, &t));
        assert_int_equal(t->dtype, theirs->dtype);
        assert_int_equal(t->n_dims, theirs->n_dims);
        assert_memory_equal(t->shape, theirs->shape, sizeof t->shape);
        assert_memory_equal(bytes_of(ours, our_name, NULL), bytes_of(ck, theirs->name, NULL),
                            (size_t)t->bytes);
        compared++;
    }
    assert_int_equal(compared, nested ? 6 : 4);
    assert_int_equal(qb_checkpoint_count(ours), compared);
    qb_checkpoint_close(ours);
    scratch_remove(dir);
    qb_checkpoint_free_linear(ck, "m", &w);
    qb_checkpoint_close(ck);
}

static void test_layout__bnb4_equals_bitsandbytes(void **state) {
    (void)state;
    check_bnb_golden("bnb-nf4", 24, 40, 64, false);
    check_bnb_golden("bnb-fp4", 24, 40, 64, false);
    check_bnb_golden("bnb-nf4-odd", 5, 7, 32, false);
    check_bnb_golden("bnb-fp4-odd", 5, 7, 32, false);
    check_bnb_golden("bnb-nf4-double", 64, 152, 32, true);
    check_bnb_golden("bnb-fp4-double", 64, 152, 32, true);
}

/* The header is written before the offset is known: the state is padded with blanks, which JSON allows. */
static void test_layout__bnb4_plans_before_values_are_known(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_qweight q, shape;
    assert_ok(qb_qweight_alloc_codebook(32, 48, QB_CODEBOOK_NF4, 64, true, &q));
    for (int i = 0; i < 32 * 48; i++) q.codes[i] = (uint8_t)draw(16);
    for (int i = 0; i < q.n_blocks; i++) q.absmax_codes[i] = (uint8_t)draw(256);
    shape = q;
    shape.codes = shape.absmax_codes = NULL;
    shape.absmax = shape.nested_absmax = NULL;
    q.nested_absmax[0] = 0.25f;
    q.nested_offset = 1.1754943508222875e-10f;
    qb_writer *w;
    qb_json *config = qb_json_object();
    const qb_layout *layout = qb_layout_for(&q);
    assert_string_equal(layout->name, "bnb4");
    qb_json_put(config, "quantization_config", layout->config(&q, NULL));
    assert_ok(qb_writer_create(dir, true, 0, &w));
    assert_ok(layout->plan(w, "m", &shape));
    assert_ok(qb_writer_begin(w));
    assert_ok(layout->put(w, "m", &q));
    assert_ok(qb_writer_put_json(w, "config.json", config));
    assert_ok(qb_writer_finish(w));
    qb_json_free(config);
    qb_checkpoint *ck = open_ok(dir);
    qb_weight back = read_ok(ck, "m", 32, 48);
    assert_true(back.packed->nested_offset == q.nested_offset);
    assert_memory_equal(back.packed->codes, q.codes, 32 * 48);
    for (int i = 0; i < q.n_blocks; i++)
        assert_true(back.packed->absmax[i] == qb_dynamic_map()[q.absmax_codes[i]] * 0.25f + q.nested_offset);
    qb_checkpoint_free_linear(ck, "m", &back);
    qb_weight wrong;
    assert_fails(qb_checkpoint_linear(ck, "m", 48, 32, &wrong), QB_ERR_FORMAT,
                 "shape [32, 48], expected [48, 32]");
    qb_checkpoint_close(ck);
    qb_qweight_free(&q);
    scratch_remove(dir);
}

static void test_layout__bnb4_refuses_what_it_cannot_hold(void **state) {
    (void)state;
    const qb_layout *layout = qb_layout_find("bnb4");
    qb_qweight q;
    assert_ok(qb_qweight_alloc_codebook(3, 5, QB_CODEBOOK_FP4, 64, false, &q));
    q.codes[3] = 16;
    assert_put_fails(layout, &q, QB_ERR_NUMERIC, "blocks.0.q: a code does not fit 4 bits");
    q.codes[3] = 0;
    q.absmax[0] = (float)INFINITY;
    assert_put_fails(layout, &q, QB_ERR_NUMERIC, "blocks.0.q");
    qb_qweight_free(&q);
    qb_qweight shape = {
        .coding = QB_CODING_CODEBOOK, .rows = 4, .cols = 24, .bits = 4, .block_size = 96, .n_blocks = 1};
    assert_fails(layout->check("m", &shape), QB_ERR_UNSUPPORTED, "block size of 96");
    shape.coding = QB_CODING_AFFINE;
    assert_fails(layout->check("m", &shape), QB_ERR_UNSUPPORTED, "gptq_v2");
}

static void test_layout__quant_state_errors(void **state) {
    (void)state;
    static const struct {
        const char *text;
        qb_status status;
        const char *needle;
    } rows[] = {
        {"{", QB_ERR_FORMAT, "not valid JSON"},
        {"{\"quant_type\": \"nf4\"}", QB_ERR_FORMAT, "\"dtype\" is missing"},
        {"{\"quant_type\": \"int4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [2, 2]}",
         QB_ERR_UNSUPPORTED, "int4"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 65, \"dtype\": \"float16\", \"shape\": [2, 2]}",
         QB_ERR_FORMAT, "power of two"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int32\", \"shape\": [2, 2]}",
         QB_ERR_FORMAT, "int32"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [2, -2]}",
         QB_ERR_FORMAT, "positive sizes"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [2, 2, 2]}",
         QB_ERR_FORMAT, "two sizes"},
        {"{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [2, 2], "
         "\"nested_blocksize\": 128}",
         QB_ERR_FORMAT, "nested_blocksize"},
    };
    qb_quant_state s;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_fails(qb_quant_state_read(rows[i].text, strlen(rows[i].text), "state", &s), rows[i].status,
                     rows[i].needle);
}

/* python3 -c "import json, struct; print(json.dumps([struct.unpack('f', struct.pack('f', x))[0] for x in
 * ...]))" */
static void test_layout__reals_as_python_writes_them(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } rows[] = {
        {0.0, "0.0"},           {1.0, "1.0"},
        {-1.5, "-1.5"},         {(double)0.1f, "0.10000000149011612"},
        {0.0001, "0.0001"},     {0.00001, "1e-05"},
        {1.5e-7, "1.5e-07"},    {(double)1e-10f, "1.000000013351432e-10"},
        {123456.0, "123456.0"}, {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},        {1.25e22, "1.25e+22"},
        {12.5, "12.5"},         {2.629249095916748, "2.629249095916748"},
        {0.001234, "0.001234"}, {1e300, "1e+300"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qb_str s = {0};
        qb_python_real(rows[i].value, &s);
        assert_string_equal(qb_str_get(&s), rows[i].text);
        qb_str_free(&s);
    }
}

static void test_layout__registry_rows_are_whole(void **state) {
    (void)state;
    size_t n = 0;
    for (const qb_layout *l; (l = qb_layout_at(n)); n++) {
        assert_true(l->name && l->summary && l->source && l->present && l->read);
        /* Written as a whole or not at all. */
        bool writes = l->check && l->plan && l->put && l->config,
             only_reads = !l->check && !l->plan && !l->put && !l->config;
        assert_true(writes != only_reads);
        assert_int_equal(qb_layout_is_writable(l), writes);
        assert_ptr_equal(qb_layout_find(l->name), l);
    }
    assert_true(n >= 6);
    assert_null(qb_layout_find("exl2"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout__packs_the_published_words),
        cmocka_unit_test(test_layout__bit_streams_round_trip),
        cmocka_unit_test(test_layout__gptq_equals_autogptq),
        cmocka_unit_test(test_layout__gptq_round_trips),
        cmocka_unit_test(test_layout__gptq_sniffs_mislabelled_zeros),
        cmocka_unit_test(test_layout__gptq_v1_wraps_zero),
        cmocka_unit_test(test_layout__gptq_refuses_what_it_cannot_hold),
        cmocka_unit_test(test_layout__gptq_read_errors_say_what_is_wrong),
        cmocka_unit_test(test_layout__gptq_config_from_quantize_config_json),
        cmocka_unit_test(test_layout__gptq_config_has_the_keys_of_transformers),
        cmocka_unit_test(test_layout__bnb4_equals_bitsandbytes),
        cmocka_unit_test(test_layout__bnb4_plans_before_values_are_known),
        cmocka_unit_test(test_layout__bnb4_refuses_what_it_cannot_hold),
        cmocka_unit_test(test_layout__quant_state_errors),
        cmocka_unit_test(test_layout__reals_as_python_writes_them),
        cmocka_unit_test(test_layout__registry_rows_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
