/* The colours of the pages against their papers, light and dark: WCAG 2.1, 1.4.3 (letters 4.5 to 1)
   and 1.4.11 (marks that carry a meaning 3 to 1). Relative luminance as its definition says. */
#include "tests/support.h"

#include "history/history.h"

#include <math.h>

typedef struct pair {
    const char *ink, *paper;
    double least;
} pair;

static double linear(long channel) {
    double c = (double)channel / 255;
    return c <= 0.04045 ? c / 12.92 : pow((c + 0.055) / 1.055, 2.4);
}

static double luminance(const char *hex) { /* "0072b2" or "fff" */
    size_t n = strspn(hex, "0123456789abcdefABCDEF");
    long v = strtol(hex, NULL, 16);
    if (n == 3)
        v = (v >> 8) * 0x110000 + ((v >> 4) & 15) * 0x1100 + (v & 15) * 0x11;
    else
        assert_int_equal(n, 6);
    return 0.2126 * linear(v >> 16) + 0.7152 * linear((v >> 8) & 255) + 0.0722 * linear(v & 255);
}

/* The nth block of custom properties: 0 light, 1 dark. A name that a block lacks keeps the first one's value.
 */
static double colour(const char *css, int nth, const char *name) {
    char key[32];
    snprintf(key, sizeof key, "--%s:", name);
    const char *block = css, *value = NULL;
    for (int i = 0; i <= nth; i++) {
        block = strstr(block, ":root");
        assert_non_null(block);
        const char *end = strchr(block, '}'), *at = strstr(block, key);
        if (at && at < end) value = at + strlen(key);
        block = end;
    }
    if (!value) fail_msg("no colour %s", name);
    value += strspn(value, " ");
    assert_int_equal(*value, '#');
    return luminance(value + 1);
}

static double contrast(double a, double b) {
    return (fmax(a, b) + 0.05) / (fmin(a, b) + 0.05);
}

static void check(const char *css, const pair *pairs, size_t n) {
    assert_true(fabs(contrast(luminance("000"), luminance("ffffff")) - 21) < 1e-9);
    assert_true(fabs(contrast(luminance("777777"), luminance("fff")) - 4.48) <
                0.005); /* as WebAIM's checker */
    for (int dark = 0; dark < 2; dark++)
        for (size_t i = 0; i < n; i++) {
            double found = contrast(colour(css, dark, pairs[i].ink), colour(css, dark, pairs[i].paper));
            if (found < pairs[i].least)
                fail_msg("%s: %s on %s has a contrast of %.2f, wanted %.1f", dark ? "dark" : "light",
                         pairs[i].ink, pairs[i].paper, found, pairs[i].least);
        }
}

static void test_contrast__of_the_report(void **state) {
    (void)state;
    static const pair pairs[] = {
        {"text", "paper", 4.5}, {"soft", "paper", 4.5}, {"text", "mark", 4.5}, {"soft", "mark", 4.5},
        {"text", "grid", 4.5},  {"i0", "paper", 4.5},   {"i1", "paper", 4.5},  {"i2", "paper", 4.5},
        {"i3", "paper", 4.5},   {"i4", "paper", 4.5},   {"i5", "paper", 4.5},  {"i6", "paper", 4.5},
        {"i7", "paper", 4.5},   {"h0", "paper", 3},     {"h1", "paper", 3},    {"h2", "paper", 3},
        {"h3", "paper", 3},     {"h4", "paper", 3},     {"h5", "paper", 3},    {"h6", "paper", 3},
        {"h7", "paper", 3},     {"heat", "paper", 3},   {"i1", "mark", 4.5},
    };
    char *css;
    assert_ok(qb_file_read(QB_SOURCE_DIR "/bench/report/report.css", 1 << 20, &css, NULL));
    check(css, pairs, sizeof pairs / sizeof pairs[0]);
    assert_null(strstr(css, "url("));
    assert_null(strstr(css, "@import"));
    qb_free(css);
}

static void test_contrast__of_the_history(void **state) {
    (void)state;
    static const pair pairs[] = {{"ink", "paper", 4.5},
                                 {"pale", "paper", 4.5},
                                 {"line", "paper", 4.5},
                                 {"worse", "paper", 4.5},
                                 {"better", "paper", 4.5}};
    const qb_history_view empty = {0};
    qb_str page = {0};
    assert_ok(qb_history_page(&empty, &page));
    check(page.text, pairs, sizeof pairs / sizeof pairs[0]);
    assert_null(strstr(page.text, "url("));
    assert_null(strstr(page.text, "@import"));
    assert_null(strstr(page.text, "src="));
    qb_str_free(&page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contrast__of_the_report),
        cmocka_unit_test(test_contrast__of_the_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
