#include "base/statistics.h"
#include "tests/support.h"

#include <math.h>

static void near_to(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-12 * fmax(1, fabs(expected))))
        fail_msg("found %.17g, expected %.17g", found, expected);
}

/* scipy 1.17.1: mannwhitneyu(x, y, alternative="two-sided", method="exact").pvalue */
static void test_mann_whitney__equals_scipy_exact(void **state) {
    (void)state;
    near_to(qb_mann_whitney_p((double[]){1, 2, 3, 4, 5}, 5, (double[]){6, 7, 8, 9, 10}, 5),
            0.007936507936507936);
    near_to(qb_mann_whitney_p((double[]){6, 7, 8, 9, 10}, 5, (double[]){1, 2, 3, 4, 5}, 5),
            0.007936507936507936);
    near_to(qb_mann_whitney_p((double[]){19, 22, 16, 29, 24}, 5, (double[]){20, 11, 17, 12}, 4),
            0.1111111111111111);
    near_to(qb_mann_whitney_p((double[]){1.1, 2.2, 3.3, 4.4, 5.5}, 5, (double[]){1, 2, 3, 4, 6}, 5),
            0.8412698412698413);
    near_to(qb_mann_whitney_p((double[]){30.1, 30.4, 29.9, 30.2, 30.3}, 5,
                              (double[]){31.5, 31.9, 31.2, 31.7, 30.35}, 5),
            0.015873015873015872);
    near_to(qb_mann_whitney_p((double[]){5}, 1, (double[]){1, 2, 3}, 3), 0.5);
    double x[60], y[60];
    for (int i = 0; i < 60; i++) {
        x[i] = i * 37 % 101;
        y[i] = i * 53 % 103 + 0.25;
    }
    near_to(qb_mann_whitney_p(x, 30, y, 25), 0.529174917975293);
    for (int i = 0; i < 60; i++) y[i] += 20;
    near_to(qb_mann_whitney_p(x, 50, y, 50), 0.011777456670390438);
}

/* The same with method="asymptotic", use_continuity=True: ties, or more than 50 values. */
static void test_mann_whitney__equals_scipy_with_ties_and_many(void **state) {
    (void)state;
    near_to(qb_mann_whitney_p((double[]){1, 1, 2, 2, 3}, 5, (double[]){2, 3, 3, 4, 4}, 5),
            0.05241162867102868);
    near_to(qb_mann_whitney_p((double[]){10, 10, 10, 11}, 4, (double[]){10, 10, 10, 10}, 4),
            0.4532547047537364);
    double x[60], y[55];
    for (int i = 0; i < 60; i++) x[i] = i * 37 % 101;
    for (int i = 0; i < 55; i++) y[i] = i * 53 % 103 + 0.25;
    near_to(qb_mann_whitney_p(x, 60, y, 55), 0.7180017671210555);
}

static void test_mann_whitney__edges(void **state) {
    (void)state;
    double same[] = {3, 3, 3};
    near_to(qb_mann_whitney_p(same, 3, same, 3), 1);
    assert_true(isnan(qb_mann_whitney_p(same, 0, same, 3)));
    assert_true(isnan(qb_mann_whitney_p(same, 3, same, 0)));
}

static void test_statistics__median_mean_and_deviation(void **state) {
    (void)state;
    double x[] = {5, 1, 4, 2};
    near_to(qb_median(x, 4), 3);
    near_to(qb_median(x, 3), 4);
    near_to(x[0], 5); /* untouched */
    near_to(qb_mean_of(x, 4), 3);
    near_to(qb_stddev(x, 4), 1.8257418583505538); /* python3: statistics.stdev([5,1,4,2]) */
    assert_true(isnan(qb_median(x, 0)) && isnan(qb_mean_of(x, 0)) && isnan(qb_stddev(x, 1)));
    double huge[] = {1.7e308, 1.7e308};
    assert_true(isfinite(qb_median(huge, 2)) && isfinite(qb_mean_of(huge, 2)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mann_whitney__equals_scipy_exact),
        cmocka_unit_test(test_mann_whitney__equals_scipy_with_ties_and_many),
        cmocka_unit_test(test_mann_whitney__edges),
        cmocka_unit_test(test_statistics__median_mean_and_deviation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
