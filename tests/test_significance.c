/* Equality with SciPy and statsmodels: tools/record_statistics_golden.py. */
#include "base/json.h"
#include "base/significance.h"
#include "tests/support.h"

#include <math.h>

enum { MAX_VALUES = 128 };

static void near_to(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-10 * fmax(1e-6, fabs(expected))))
        fail_msg("found %.17g, expected %.17g", found, expected);
}

static int read_values(const qb_json *list, double *out) {
    int n = 0;
    for (const qb_json *v = qb_json_first(list); v; v = qb_json_next(v)) {
        assert_true(n < MAX_VALUES);
        out[n++] = qb_json_number(v);
    }
    return n;
}

static int setup(void **state) {
    qb_json *golden = NULL;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/statistics.json", 1 << 20, &golden));
    *state = golden;
    return 0;
}

static int teardown(void **state) {
    qb_json_free(*state);
    return 0;
}

static void test_mann_whitney__equals_scipy(void **state) {
    double x[MAX_VALUES], y[MAX_VALUES];
    int cases = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(*state, "mann_whitney")); c;
         c = qb_json_next(c), cases++) {
        int n = read_values(qb_json_get(c, "x"), x), m = read_values(qb_json_get(c, "y"), y);
        near_to(qb_mann_whitney_p(x, n, y, m), qb_json_number(qb_json_get(c, "p")));
        near_to(qb_mann_whitney_p(y, m, x, n), qb_json_number(qb_json_get(c, "p")));
    }
    assert_int_equal(cases, 9);
}

static void pairs_equal(const qb_json *golden, const char *name, double (*test)(const double *, int)) {
    double d[MAX_VALUES];
    int cases = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(golden, name)); c; c = qb_json_next(c), cases++) {
        int n = read_values(qb_json_get(c, "d"), d);
        near_to(test(d, n), qb_json_number(qb_json_get(c, "p")));
        for (int i = 0; i < n; i++) d[i] = -d[i];
        near_to(test(d, n), qb_json_number(qb_json_get(c, "p")));
    }
    assert_int_equal(cases, 7);
}

static void test_wilcoxon__equals_scipy(void **state) {
    pairs_equal(*state, "wilcoxon", qb_wilcoxon_p);
}

static void test_sign_flip__equals_scipys_permutations(void **state) {
    pairs_equal(*state, "sign_flip", qb_sign_flip_p);
}

static double number(const qb_json *c, const char *key) {
    return qb_json_number(qb_json_get(c, key));
}

static void test_runs_differ__equals_statsmodels_least_squares(void **state) {
    double x[MAX_VALUES], y[MAX_VALUES];
    int cases = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(*state, "run_figures")); c;
         c = qb_json_next(c), cases++) {
        int n = read_values(qb_json_get(c, "x"), x), m = read_values(qb_json_get(c, "y"), y);
        qb_run_effect e = qb_runs_differ(x, n, 0, y, m, 0);
        near_to(e.difference, number(c, "difference"));
        near_to(e.error, number(c, "error"));
        near_to(e.freedom, number(c, "freedom"));
        near_to(qb_student_p(e.difference, e.error, e.freedom), number(c, "p"));
    }
    assert_int_equal(cases, 5);
}

/* statsmodels maximises by iteration and stops near the optimum, hence the tolerance. */
static void test_runs_differ__equals_statsmodels_mixed_model(void **state) {
    double x[MAX_VALUES], y[MAX_VALUES];
    int cases = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(*state, "run_rounds")); c;
         c = qb_json_next(c), cases++) {
        int n = read_values(qb_json_get(c, "x"), x), m = read_values(qb_json_get(c, "y"), y);
        qb_run_effect e = qb_runs_differ(x, n, number(c, "within"), y, m, number(c, "within"));
        assert_true(fabs(e.difference - number(c, "difference")) < 1e-6);
        assert_true(fabs(e.error / number(c, "error") - 1) < 1e-3);
        assert_true(fabs(e.between / number(c, "between") - 1) < 1e-2);
    }
    assert_int_equal(cases, 3);
}

/* One run a side tells nothing of runs; runs that scatter less than the error within them have no more of it
   than that; a worse known new run makes the difference less sure. */
static void test_runs_differ__where_there_is_little_to_tell(void **state) {
    (void)state;
    double a = 1, b = 2, four[] = {1, 1.01, 0.99, 1};
    qb_run_effect e = qb_runs_differ(&a, 1, 0.5, &b, 1, 0.5);
    assert_true(e.difference == 1 && e.freedom == 0 && isnan(e.error) && isnan(e.between));
    e = qb_runs_differ(four, 4, 0.04, &b, 1, 0.04);
    assert_true(e.between == 0 && fabs(e.error - sqrt(0.04 * 1.25)) < 1e-12);
    assert_true(qb_runs_differ(four, 4, 0.04, &b, 1, 0.16).error > e.error);
}

static void test_holm__equals_statsmodels(void **state) {
    double p[MAX_VALUES], expected[MAX_VALUES], found[MAX_VALUES];
    int cases = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(*state, "holm")); c; c = qb_json_next(c), cases++) {
        int n = read_values(qb_json_get(c, "p"), p);
        read_values(qb_json_get(c, "adjusted"), expected);
        assert_true(qb_holm(p, n, found));
        for (int i = 0; i < n; i++) near_to(found[i], expected[i]);
    }
    assert_int_equal(cases, 4);
}

static void test_holm__leaves_rows_without_a_test_out(void **state) {
    (void)state;
    double p[] = {(double)NAN, 0.01, (double)NAN, 0.04};
    assert_true(qb_holm(p, 4, p));
    assert_true(isnan(p[0]) && isnan(p[2]));
    near_to(p[1], 0.02);
    near_to(p[3], 0.04);
}

static void test_tests__of_little_or_nothing(void **state) {
    (void)state;
    double same[] = {3, 3, 3}, none[] = {0, 0};
    near_to(qb_mann_whitney_p(same, 3, same, 3), 1);
    assert_true(isnan(qb_mann_whitney_p(same, 0, same, 3)) && isnan(qb_mann_whitney_p(same, 3, same, 0)));
    near_to(qb_wilcoxon_p(none, 2), 1);
    near_to(qb_sign_flip_p(none, 2), 1);
    assert_true(isnan(qb_wilcoxon_p(none, 0)) && isnan(qb_sign_flip_p(none, 0)));
    near_to(qb_normal_p(0, 0), 1);
    near_to(qb_normal_p(1, 0), 0);
    near_to(qb_normal_p(-1.959963984540054, 1), 0.05);
    near_to(qb_student_p(-4.302652729696142, 1, 2), 0.05); /* scipy.stats.t.ppf(0.975, 2) */
    near_to(qb_student_quantile(0.975, 2), 4.302652729696142);
    near_to(qb_student_p(0, 0, 2), 1);
    assert_true(isnan(qb_shift_between(same, 0, same, 3, 0.05).value));
}

/* As many as are tabled in halves: all positive leaves two of 2^36 choices. */
static void test_sign_flip__is_exact_to_its_limit(void **state) {
    (void)state;
    double d[QB_SIGN_FLIP_MAX + 1];
    for (int i = 0; i <= QB_SIGN_FLIP_MAX; i++) d[i] = 1 + i / 7.0;
    assert_true(fabs(qb_sign_flip_p(d, QB_SIGN_FLIP_MAX) * ldexp(1, QB_SIGN_FLIP_MAX - 1) - 1) < 1e-12);
    assert_true(isnan(qb_sign_flip_p(d, QB_SIGN_FLIP_MAX + 1)));
}

static void test_least_p__is_what_separated_samples_give(void **state) {
    (void)state;
    double x[12], y[12];
    for (int i = 0; i < 12; i++) x[i] = i, y[i] = 100 + i;
    for (int n = 1; n <= 12; n++)
        for (int m = 1; m <= 12; m++) near_to(qb_mann_whitney_least_p(n, m), qb_mann_whitney_p(x, n, y, m));
}

/* The interval is the set of shifts that the test does not reject: just inside its ends p is above the level,
   just outside it is not. */
static void test_shift__interval_is_the_tests_dual(void **state) {
    (void)state;
    static const int sizes[][2] = {{6, 6}, {9, 14}, {40, 35}, {50, 50}, {70, 90}};
    uint64_t seed = 5;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int n = sizes[s][0], m = sizes[s][1];
        double x[MAX_VALUES], y[MAX_VALUES], moved[MAX_VALUES];
        for (int i = 0; i < n + m; i++) {
            seed = seed * 6364136223846793005U + 1442695040888963407U;
            double value = (double)(seed >> 11) / 9007199254740992.0;
            if (i < n)
                x[i] = value;
            else
                y[i - n] = value + 0.1;
        }
        qb_shift shift = qb_shift_between(x, n, y, m, 0.05);
        assert_true(shift.low < shift.value && shift.value < shift.high);
        double ends[] = {shift.low - 1e-9, shift.low + 1e-9, shift.high - 1e-9, shift.high + 1e-9};
        bool exact = n <= 50 && m <= 50;
        for (int k = 0; k < 4; k++) {
            for (int j = 0; j < m; j++) moved[j] = y[j] - ends[k];
            double p = qb_mann_whitney_p(x, n, moved, m);
            bool inside = k == 1 || k == 2;
            /* The normal interval has no continuity correction, as the p value has: its ends are near. */
            assert_true(exact ? inside == (p > 0.05) : fabs(p - 0.05) < 0.002);
        }
    }
}

static void test_shift__of_known_samples(void **state) {
    (void)state;
    double x[] = {1, 2, 3, 4, 5}, y[] = {11, 12, 13, 14, 15};
    qb_shift shift = qb_shift_between(x, 5, y, 5, 0.01);
    near_to(shift.value, 10);
    near_to(shift.low, 6); /* 2/252 < 0.01: all differences but none lie between */
    near_to(shift.high, 14);
    shift = qb_shift_between(x, 3, y, 3, 0.01);
    assert_true(isinf(shift.low) && isinf(shift.high));
    double one = 2, other = 5;
    near_to(qb_shift_between(&one, 1, &other, 1, 0.5).value, 3);
}

static void test_samples_needed__grow_with_the_square(void **state) {
    (void)state;
    near_to(qb_samples_needed(10, 0.06, 0.02), 90);
    near_to(qb_samples_needed(10, 0.01, 0.02), 10);
}

/* Sums that overflowed leave NaN behind: it has no rank, and nothing waits for it. */
static void test_significance__nan_has_no_p(void **state) {
    (void)state;
    const double x[] = {1, 2, (double)NAN, 3}, y[] = {4, 5, 6, (double)INFINITY};
    const double of[] = {qb_mann_whitney_p(x, 4, y, 4), qb_mann_whitney_p(y, 4, x, 4), qb_wilcoxon_p(x, 4)};
    for (size_t i = 0; i < 3; i++) assert_true(of[i] != of[i]);
    assert_true(qb_wilcoxon_p(y, 4) < 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_significance__nan_has_no_p),
        cmocka_unit_test(test_mann_whitney__equals_scipy),
        cmocka_unit_test(test_wilcoxon__equals_scipy),
        cmocka_unit_test(test_sign_flip__equals_scipys_permutations),
        cmocka_unit_test(test_runs_differ__equals_statsmodels_least_squares),
        cmocka_unit_test(test_runs_differ__equals_statsmodels_mixed_model),
        cmocka_unit_test(test_runs_differ__where_there_is_little_to_tell),
        cmocka_unit_test(test_holm__equals_statsmodels),
        cmocka_unit_test(test_holm__leaves_rows_without_a_test_out),
        cmocka_unit_test(test_tests__of_little_or_nothing),
        cmocka_unit_test(test_sign_flip__is_exact_to_its_limit),
        cmocka_unit_test(test_least_p__is_what_separated_samples_give),
        cmocka_unit_test(test_shift__interval_is_the_tests_dual),
        cmocka_unit_test(test_shift__of_known_samples),
        cmocka_unit_test(test_samples_needed__grow_with_the_square),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
