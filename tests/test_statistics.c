#include "base/statistics.h"
#include "tests/support.h"

#include <math.h>

static void near_to(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-12 * fmax(1, fabs(expected))))
        fail_msg("found %.17g, expected %.17g", found, expected);
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
        cmocka_unit_test(test_statistics__median_mean_and_deviation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
