/* Equality with Apache Otava on its tests' data: tools/record_change_points_golden.py. */
#include "base/change_points.h"
#include "base/json.h"
#include "tests/support.h"

#include <math.h>

enum { MAX_VALUES = 1024 };

static qb_json *read_golden(void) {
    qb_json *golden = NULL;
    assert_ok(qb_json_read(QB_SOURCE_DIR "/tests/golden/change_points.json", 1 << 20, &golden));
    return golden;
}

static int read_values(const qb_json *list, double *out) {
    int n = 0;
    for (const qb_json *v = qb_json_first(list); v; v = qb_json_next(v)) {
        assert_true(n < MAX_VALUES);
        out[n++] = qb_json_number(v);
    }
    return n;
}

static const qb_json *item(const qb_json *array, int i) {
    const qb_json *child = qb_json_first(array);
    while (i-- > 0) child = qb_json_next(child);
    return child;
}

static void same_points(const char *name, const qb_change_point_config *config, const double *values, int n,
                        const qb_json *expected) {
    qb_change_point *points;
    int count;
    assert_ok(qb_change_points(values, n, config, &points, &count));
    bool same = count == qb_json_count(expected);
    for (int i = 0; same && i < count; i++) same = points[i].index == (int)qb_json_number(item(expected, i));
    if (!same) {
        for (int i = 0; i < count; i++) print_message("found %d (p %g)\n", points[i].index, points[i].p);
        for (const qb_json *e = qb_json_first(expected); e; e = qb_json_next(e))
            print_message("expected %d\n", (int)qb_json_number(e));
        fail_msg("%s: window %d, level %g, least change %g", name, config->window, config->level,
                 config->least_change);
    }
    qb_free(points);
}

static void test_change_points__stand_where_otava_sees_them(void **state) {
    (void)state;
    qb_json *golden = read_golden();
    double values[MAX_VALUES];
    int runs = 0;
    for (const qb_json *s = qb_json_first(qb_json_get(golden, "series")); s; s = qb_json_next(s)) {
        int n = read_values(qb_json_get(s, "values"), values);
        for (const qb_json *r = qb_json_first(qb_json_get(s, "runs")); r; r = qb_json_next(r), runs++) {
            qb_change_point_config config = {.window = (int)qb_json_number(item(r, 0)),
                                             .level = qb_json_number(item(r, 1)),
                                             .least_change = qb_json_number(item(r, 2))};
            same_points(qb_json_string(qb_json_get(s, "name")), &config, values, n, item(r, 3));
        }
    }
    assert_true(runs > 300);
    qb_json_free(golden);
}

static void near_to(double found, double expected) {
    if (!(fabs(found - expected) <= 1e-9 * fabs(expected) + 1e-300))
        fail_msg("found %.17g, expected %.17g", found, expected);
}

static void test_change_points__have_otavas_p_and_means(void **state) {
    (void)state;
    qb_json *golden = read_golden();
    double values[MAX_VALUES];
    int compared = 0;
    qb_change_point_config config = {.window = 30, .level = 0.01};
    for (const qb_json *s = qb_json_first(qb_json_get(golden, "series")); s; s = qb_json_next(s)) {
        qb_change_point *points;
        int count, n = read_values(qb_json_get(s, "values"), values);
        assert_ok(qb_change_points(values, n, &config, &points, &count));
        const qb_json *e = qb_json_first(qb_json_get(s, "numbers"));
        for (int i = 0; i < count; i++, e = qb_json_next(e), compared++) {
            near_to(points[i].p, qb_json_number(item(e, 1)));
            near_to(points[i].mean_before, qb_json_number(item(e, 2)));
            near_to(points[i].mean_after, qb_json_number(item(e, 3)));
        }
        qb_free(points);
    }
    assert_true(compared > 20);
    qb_json_free(golden);
}

static void test_change_points__of_short_and_constant_series_are_none(void **state) {
    (void)state;
    qb_change_point_config config = qb_change_point_defaults();
    double values[80] = {0};
    for (int n = 0; n <= 80; n += n < 4 ? 1 : 19) {
        qb_change_point *points;
        int count;
        assert_ok(qb_change_points(values, n, &config, &points, &count));
        assert_int_equal(count, 0);
        assert_null(points);
    }
    values[0] = 1; /* two values prove nothing */
    qb_change_point *points;
    int count;
    assert_ok(qb_change_points(values, 2, &config, &points, &count));
    assert_int_equal(count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_points__stand_where_otava_sees_them),
        cmocka_unit_test(test_change_points__have_otavas_p_and_means),
        cmocka_unit_test(test_change_points__of_short_and_constant_series_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
