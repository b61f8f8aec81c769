/* The packed layout of the CUDA kernels as maps of numbers: every bit of a tile holds one bit of one code,
   what lanes load is aligned, and the order of columns puts each column into its group once. */
#include "tests/support.h"

#include "kernels/cuda/layout.cuh"
#include "kernels/cuda/order.h"

static const char *const kind_names[QB_CODES_PACKED_COUNT] = {"2", "3", "4", "8", "codebook"};
static const int kind_bits[QB_CODES_PACKED_COUNT] = {2, 3, 4, 8, 4};

static uint32_t state = 7;
static uint32_t noise_u32(void) {
    return state = state * 1664525u + 1013904223u;
}

static void test_layout__lanes_and_coordinates_are_inverse(void **unused) {
    (void)unused;
    for (int lane = 0; lane < QB_LANES; lane++)
        for (int half = 0; half < 2; half++)
            for (int unit = 0; unit < QB_TILE_UNITS; unit++)
                for (int i = 0; i < QB_RUN_COLS; i++) {
                    int r = qb_lane_row(lane, half), c = qb_lane_col(lane, unit, i);
                    assert_in_range(r, 0, QB_TILE_ROWS - 1);
                    assert_in_range(c, 0, QB_TILE_COLS - 1);
                    assert_int_equal(qb_tile_lane(r, c), lane);
                    assert_int_equal(r / 8, half);
                    assert_int_equal(c / QB_UNIT_COLS, unit);
                    assert_int_equal(c % QB_RUN_COLS, i);
                }
}

/* One code at a time, all ones, into an empty tile: no two share a bit and together they fill it. */
static void test_layout__every_bit_holds_one_bit_of_one_code(void **unused) {
    (void)unused;
    for (int k = 0; k < QB_CODES_PACKED_COUNT; k++) {
        qb_codes_kind kind = (qb_codes_kind)k;
        uint8_t seen[2048] = {0};
        int64_t bytes = qb_tile_bytes(kind), bits = 0;
        assert_int_equal(bytes * 8, (int64_t)QB_TILE_ROWS * QB_TILE_COLS * kind_bits[k]);
        for (int r = 0; r < QB_TILE_ROWS; r++)
            for (int c = 0; c < QB_TILE_COLS; c++) {
                uint32_t words[QB_LANE_WORDS_MAX] = {0};
                qb_put_code(kind, words, c / QB_UNIT_COLS, r / 8, c % QB_RUN_COLS, (1u << kind_bits[k]) - 1);
                for (int w = 0; w < QB_LANE_WORDS_MAX; w++) {
                    if (!words[w]) continue;
                    assert_true(w < qb_lane_words(kind));
                    int at = qb_word_byte(kind, qb_tile_lane(r, c), w);
                    assert_int_equal(at % 4, 0);
                    assert_in_range(at, 0, (int)bytes - 4);
                    for (int b = 0; b < 32; b++) {
                        if (!(words[w] >> b & 1)) continue;
                        uint8_t *byte = &seen[at + b / 8];
                        if (*byte >> b % 8 & 1) fail_msg("%s: bit %d of byte %d twice", kind_names[k], b, at);
                        *byte = (uint8_t)(*byte | 1u << b % 8);
                        bits++;
                    }
                }
            }
        assert_int_equal(bits, bytes * 8);
    }
}

/* Words 4 j .. 4 j + 3 of the lanes are 512 consecutive bytes, 16 aligned bytes a lane; 3 bits' last two
 * are 8. */
static void test_layout__loads_are_wide_and_aligned(void **unused) {
    (void)unused;
    for (int k = 0; k < QB_CODES_PACKED_COUNT; k++)
        for (int lane = 0; lane < QB_LANES; lane++)
            for (int w = 0; w < qb_lane_words((qb_codes_kind)k); w++) {
                int at = qb_word_byte((qb_codes_kind)k, lane, w);
                bool high = k == QB_CODES_3 && w >= 4;
                assert_int_equal(at, high ? 512 + 8 * lane + 4 * (w - 4)
                                          : 512 * (w / 4) + 16 * lane + 4 * (w % 4));
                assert_int_equal(qb_tile_bytes((qb_codes_kind)k) % 256, 0);
            }
}

/* What kernels do with 3-bit words: the third bit of pair p comes to stand above its two low bits. */
static void test_layout__third_bits_come_to_stand_above_the_low_ones(void **unused) {
    (void)unused;
    for (int round = 0; round < 200; round++) {
        uint32_t words[QB_LANE_WORDS_MAX] = {0}, code[QB_TILE_UNITS][2][QB_RUN_COLS];
        for (int u = 0; u < QB_TILE_UNITS; u++)
            for (int h = 0; h < 2; h++)
                for (int i = 0; i < QB_RUN_COLS; i++)
                    qb_put_code(QB_CODES_3, words, u, h, i, code[u][h][i] = noise_u32() >> 29);
        for (int u = 0; u < QB_TILE_UNITS; u++)
            for (int h = 0; h < 2; h++) {
                uint32_t low = words[u] >> (8 * h), high = words[4 + u / 2];
                if (h) high = (high & 0xff00ff) << 8 | (high >> 8 & 0xff00ff);
                if (u % 2) high >>= 1;
                for (int p = 0; p < 4; p++) {
                    uint32_t v = (low & 0x00030003u << 2 * p) | (high & 0x00040004u << 2 * p);
                    assert_int_equal(v & 0xffff, code[u][h][2 * p] << 2 * p);
                    assert_int_equal(v >> 16, code[u][h][2 * p + 1] << 2 * p);
                }
            }
    }
}

static void test_layout__scales_have_one_place_each(void **unused) {
    (void)unused;
    enum { ROWS = 48, GROUPS = 5 };
    uint8_t seen[ROWS * GROUPS] = {0};
    for (int r = 0; r < ROWS; r++)
        for (int g = 0; g < GROUPS; g++) {
            int64_t at = qb_scale_index(r, g, GROUPS);
            assert_in_range(at, 0, ROWS * GROUPS - 1);
            assert_int_equal(seen[at]++, 0);
            if (r % 16 < 8) assert_int_equal(qb_scale_index(r + 8, g, GROUPS), at + 1);
        }
}

/* Every column once, each in a part of its own group; parts are whole; plain orders say so. */
static void check_order(int64_t cols, int64_t group_cols, const int32_t *g_idx, int64_t n_groups) {
    qb_column_order o;
    assert_ok(qb_column_order_make(cols, group_cols, n_groups, g_idx, &o));
    uint8_t *seen;
    assert_ok(qb_alloc_zero((size_t)cols, 1, &seen));
    assert_int_equal(o.padded_cols % QB_TILE_COLS, 0);
    int64_t found = 0, last = -1;
    for (int64_t k = 0; k < o.padded_cols; k++) {
        int64_t c = o.source ? o.source[k] : k < cols ? k : -1, part = k / QB_UNIT_COLS >> o.shift;
        if (c < 0) continue;
        assert_in_range(c, 0, cols - 1);
        assert_int_equal(seen[c]++, 0);
        assert_in_range(part, 0, o.n_parts - 1);
        assert_int_equal(o.group[part], g_idx ? g_idx[c] : c / group_cols);
        found++, last = k;
    }
    assert_int_equal(found, cols);
    assert_true(o.padded_cols - last <= QB_TILE_COLS);
    if (!o.source) assert_int_equal(o.digest, 0);
    if (o.source) assert_int_not_equal(o.digest, 0);
    if (!g_idx && (group_cols % QB_UNIT_COLS == 0 || group_cols >= cols)) {
        assert_null(o.source);
        int64_t units = group_cols / QB_UNIT_COLS;
        if (group_cols < cols && (units & (units - 1)) == 0 && cols % QB_TILE_COLS == 0)
            assert_int_equal(o.n_parts, n_groups);
        if (group_cols >= cols) assert_int_equal(o.n_parts, 1);
    }
    qb_free(seen);
    qb_column_order_free(&o);
}

static void test_order__every_column_falls_into_its_group(void **unused) {
    (void)unused;
    static const int64_t cols[] = {1, 8, 31, 32, 33, 100, 127, 128, 129, 172, 512, 1000, 1376, 4096};
    static const int64_t groups[] = {1, 8, 16, 32, 36, 40, 64, 96, 128, 172, 256, 1024, 4096};
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
            int64_t group = groups[g] < cols[i] ? groups[g] : cols[i];
            check_order(cols[i], group, NULL, (cols[i] + group - 1) / group);
        }
}

static void test_order__act_order_of_any_sizes(void **unused) {
    (void)unused;
    int32_t g_idx[700];
    for (int round = 0; round < 300; round++) {
        int64_t cols = 1 + noise_u32() % 700, n_groups = 1 + noise_u32() % 12;
        bool even = round % 3 == 0;
        for (int64_t c = 0; c < cols; c++)
            g_idx[c] = (int32_t)(even ? (c * 64 / cols) % n_groups : (noise_u32() >> 8) % (uint32_t)n_groups);
        check_order(cols, 64, g_idx, n_groups);
    }
}

static void test_order__a_group_that_is_not_there_is_refused(void **unused) {
    (void)unused;
    qb_column_order o;
    int32_t high[3] = {0, 2, 1}, low[3] = {0, -1, 1};
    assert_fails(qb_column_order_make(3, 2, 2, high, &o), QB_ERR_FORMAT, "group index 2 of column 1");
    assert_fails(qb_column_order_make(3, 2, 2, low, &o), QB_ERR_FORMAT, "group index -1 of column 1");
    assert_null(o.group);
}

static void test_order__equal_orders_have_equal_digests(void **unused) {
    (void)unused;
    int32_t g_idx[256];
    qb_column_order a, b;
    for (int c = 0; c < 256; c++) g_idx[c] = c * 37 % 256 / 64;
    assert_ok(qb_column_order_make(256, 64, 4, g_idx, &a));
    assert_ok(qb_column_order_make(256, 64, 4, g_idx, &b));
    assert_true(a.digest == b.digest);
    qb_column_order_free(&b);
    int32_t keep = g_idx[3];
    for (int c = 4; g_idx[3] == keep; c++) g_idx[3] = g_idx[c], g_idx[c] = g_idx[3] == keep ? g_idx[c] : keep;
    assert_ok(qb_column_order_make(256, 64, 4, g_idx, &b));
    assert_true(a.digest != b.digest);
    qb_column_order_free(&a);
    qb_column_order_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout__lanes_and_coordinates_are_inverse),
        cmocka_unit_test(test_layout__every_bit_holds_one_bit_of_one_code),
        cmocka_unit_test(test_layout__loads_are_wide_and_aligned),
        cmocka_unit_test(test_layout__third_bits_come_to_stand_above_the_low_ones),
        cmocka_unit_test(test_layout__scales_have_one_place_each),
        cmocka_unit_test(test_order__every_column_falls_into_its_group),
        cmocka_unit_test(test_order__act_order_of_any_sizes),
        cmocka_unit_test(test_order__a_group_that_is_not_there_is_refused),
        cmocka_unit_test(test_order__equal_orders_have_equal_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
