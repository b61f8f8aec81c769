#include "bench/project/project.h"
#include "plots/axis.h"
#include "plots/gnuplot.h"
#include "plots/labels.h"
#include "plots/plots.h"
#include "plots/sheet.h"
#include "tests/noisy_rows.h"
#include "tests/support.h"

#include <dirent.h>
#include <math.h>

#define EXAMPLE QB_SOURCE_DIR "/tests/golden/results/example.json"

/* ---- axes ---- */

static void expect_tics(double min, double max, bool log, const char *expected) {
    qb_axis a = {min, max, log};
    qb_str out = {0};
    qb_axis_tics(&a, 8, &out);
    assert_string_equal(qb_str_get(&out), expected);
    qb_str_free(&out);
}

static void test_axis__tics_are_round_and_few(void **state) {
    (void)state;
    expect_tics(1.8, 9, false, "('2' 2, '3' 3, '4' 4, '5' 5, '6' 6, '7' 7, '8' 8, '9' 9)");
    expect_tics(
        0, 1830, false,
        "('0' 0, '250' 250, '500' 500, '750' 750, '1000' 1000, '1250' 1250, '1500' 1500, '1750' 1750)");
    expect_tics(16, 520, true, "('20' 20, '30' 30, '50' 50, '100' 100, '200' 200, '300' 300, '500' 500)");
    expect_tics(5, 2e6, true,
                "('10' 10, '100' 100, '1000' 1000, '10000' 10000, '10⁵' 100000, '10⁶' 1000000)");
    expect_tics(-0.5, 0.6, false, "('-0.4' -0.4, '-0.2' -0.2, '0' 0, '0.2' 0.2, '0.4' 0.4, '0.6' 0.6)");
}

static void test_axis__an_even_scale_has_one_notation(void **state) {
    (void)state;
    expect_tics(0, 210000, false,
                "('0' 0, '50000' 50000, '100000' 100000, '150000' 150000, '200000' 200000)");
}

/* Tics of neighbours differ also where the values are large and near to each other. */
static void test_axis__tics_differ(void **state) {
    (void)state;
    expect_tics(251800, 253100, false,
                "('2.518×10⁵' 251800, '2.52×10⁵' 252000, '2.522×10⁵' 252200, '2.524×10⁵' 252400, "
                "'2.526×10⁵' 252600, '2.528×10⁵' 252800, '2.53×10⁵' 253000)");
    static const double ranges[][2] = {{99990, 100010},    {247.12345, 247.12352},
                                       {1e-7, 1.0004e-7},  {12345678901, 12345678999},
                                       {-5.00001e8, -5e8}, {99999, 100000.5}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        qb_axis a = {ranges[i][0], ranges[i][1], false};
        double values[64];
        int n = qb_axis_values(&a, 8, values, 64);
        qb_str before = {0};
        assert_true(n > 2);
        for (int k = 0; k < n; k++) {
            qb_str text = {0};
            qb_axis_format(values[k], qb_axis_step(values, n), &text);
            assert_string_not_equal(qb_str_get(&text), qb_str_get(&before));
            qb_str_free(&before);
            before = text;
        }
        qb_str_free(&before);
    }
}

static void test_axis__fits_any_values(void **state) {
    (void)state;
    static const double values[][2] = {{5, 5},
                                       {0, 0},
                                       {-3, -3},
                                       {1e308, 1.7e308},
                                       {1e-320, 1e308},
                                       {NAN, 1},
                                       {INFINITY, -INFINITY},
                                       {1, INFINITY},
                                       {1e-300, 1e-299},
                                       {-1.7e308, 1.7e308},
                                       {1.0, 1 + 1e-15}};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        for (int kind = 0; kind < 4; kind++) {
            qb_axis a = qb_axis_fit(values[i][0], values[i][1], 0.07, kind & 1, kind & 2);
            if (!(a.min < a.max) || !isfinite(a.min) || !isfinite(a.max) || (a.log && !(a.min > 0)))
                fail_msg("[%g, %g] kind %d gives [%g, %g] log %d", values[i][0], values[i][1], kind, a.min,
                         a.max, a.log);
            qb_str out = {0};
            qb_axis_tics(&a, 8, &out);
            assert_true(out.length < 2000);
            qb_str_free(&out);
        }
    qb_axis a = qb_axis_fit(10, 1000, 0.5, true, false);
    assert_true(a.log && fabs(a.min - 1) < 1e-9 && fabs(a.max - 10000) < 1e-6);
    assert_true(fabs(qb_axis_place(&a, 100) - 0.5) < 1e-12);
}

/* ---- pictures ---- */

static void need_gnuplot(void) {
    char version[64];
    if (qb_gnuplot_find(version)) return;
    print_message("skipped: gnuplot is absent (%s)\n", version);
    skip();
}

static char *read_file(const char *dir, const char *name, size_t *n) {
    char *path = qb_path_join(dir, name), *text;
    assert_ok(qb_file_read(path, 16 << 20, &text, n));
    qb_free(path);
    return text;
}

static qb_status draw(const qb_results *r, const char *dir, const char *only, int *n) {
    qb_rows rows;
    qb_status st = qb_rows_read(&r, 1, &rows);
    if (st == QB_OK) st = qb_plots_draw(&rows, &(qb_plots_request){.dir = dir, .only = only}, n);
    qb_rows_free(&rows);
    return st;
}

static int count_files(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void expect_in(const char *text, const char *needle) {
    if (!strstr(text, needle)) fail_msg("the picture lacks \"%s\"", needle);
}

static void test_plots__draw_every_format_with_every_label(void **state) {
    (void)state;
    need_gnuplot();
    char *dir = scratch_make();
    qb_results r;
    qb_str terminals = {0};
    int n;
    assert_ok(qb_gnuplot_terminals(&terminals));
    int formats = strstr(terminals.text, " pdfcairo ") ? 3 : 2;
    assert_ok(qb_results_open(EXAMPLE, &r));
    assert_ok(draw(&r, dir, "perplexity-bits", &n));
    /* Two texts, and both need a closer view beside the logarithmic one. */
    assert_int_equal(n, 4 * formats);
    assert_int_equal(count_files(dir), n);
    char *svg = read_file(dir, "perplexity-bits-demo.svg", NULL);
    static const char *const words[] = {"Perplexity against bits per weight",
                                        "demo on demo · gptq-256",
                                        "RTN 2b g128",
                                        "GPTQ 4b g128 act",
                                        "NF4 DQ",
                                        "unquantized, 16 bit: 24.81",
                                        "entropy of the text: 18.42",
                                        "bits per weight, scales included"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) expect_in(svg, words[i]);
    qb_free(svg);
    svg = read_file(dir, "perplexity-bits-demo-detail.svg", NULL);
    expect_in(svg, "2 cases above 31 not shown");
    assert_null(strstr(svg, "RTN 2b"));
    qb_free(svg);
    size_t size;
    char *png = read_file(dir, "perplexity-bits-wikitext2.png", &size);
    assert_true(size > 5000 && !memcmp(png, "\x89PNG\r\n\x1a\n", 8));
    assert_memory_equal(png + 16, "\0\0\x06\x40\0\0\x04\x10", 8); /* 1600 x 1040 */
    qb_free(png);
    qb_results_close(&r);
    qb_str_free(&terminals);
    scratch_remove(dir);
}

static void test_plots__every_registered_plot_draws_the_example(void **state) {
    (void)state;
    need_gnuplot();
    qb_results r;
    assert_ok(qb_results_open(EXAMPLE, &r));
    for (size_t i = 1; qb_plot_at(i); i++) {
        char *dir = scratch_make();
        int n;
        assert_ok(draw(&r, dir, qb_plot_at(i)->name, &n));
        assert_true(n >= 2 && count_files(dir) == n);
        scratch_remove(dir);
    }
    qb_results_close(&r);
}

/* Names out of a document are shown as they are; nothing in them is a command, a quote or markup. */
static void test_plots__hostile_names_are_only_text(void **state) {
    (void)state;
    need_gnuplot();
    static const char hostile[] =
        "a'b`touch hit`\\\"; system('touch hit') # $(touch hit) {/Bold x}_2^3 @x\\n%d<&>";
    char *dir = scratch_make();
    char *text;
    qb_json *doc;
    qb_results r;
    assert_ok(qb_file_read(EXAMPLE, 1 << 20, &text, NULL));
    assert_ok(qb_json_parse(text, strlen(text), "example", &doc));
    for (const qb_json *c = qb_json_first(qb_json_get(doc, "cases")); c; c = qb_json_next(c)) {
        qb_json *model = (qb_json *)(uintptr_t)qb_json_get(c, "model");
        qb_json *config = (qb_json *)(uintptr_t)qb_json_get(c, "config");
        qb_json_put_text(model, "name", hostile);
        if (!strcmp(qb_json_string(qb_json_get(config, "method")), "nf4"))
            qb_json_put_text(config, "method", hostile);
    }
    qb_free(text);
    r = (qb_results){.doc = doc};
    assert_ok(qb_results_validate(doc, "hostile"));
    int n;
    assert_ok(draw(&r, dir, "decode-bits,memory", &n));
    assert_int_equal(count_files(dir), n);
    char *svg = read_file(dir, "decode-bits.svg", NULL);
    expect_in(
        svg,
        "a'b`touch hit`\\\"; system('touch hit') # $(touch hit) {/Bold x}_2^3 @x\\n%d&lt;&amp;> · tg128");
    assert_false(qb_path_exists("hit"));
    qb_free(svg);
    qb_results_close(&r);
    scratch_remove(dir);
}

static void test_plots__bad_requests_fail_clearly(void **state) {
    (void)state;
    qb_results r;
    int n;
    assert_ok(qb_results_open(EXAMPLE, &r));
    assert_fails(draw(&r, "/tmp", "perplexity-bit", &n), QB_ERR_USAGE, "did you mean perplexity-bits?");
    assert_fails(draw(&r, "/tmp", "memory,,", &n), QB_ERR_USAGE, "unknown plot \"\"");
    char *path = qb_strdup(getenv("PATH"));
    setenv("PATH", "/nowhere", 1);
    assert_fails(draw(&r, "/tmp", NULL, &n), QB_ERR_NOT_FOUND, "apt-get install gnuplot-nox");
    char version[64];
    assert_false(qb_gnuplot_find(version));
    assert_string_equal(version, "apt-get install gnuplot-nox");
    setenv("PATH", path, 1);
    qb_free(path);
    need_gnuplot();
    assert_fails(draw(&r, "/proc/nowhere", "memory", &n), QB_ERR_IO, "/proc/nowhere");
    char *share = qb_strdup(getenv("BENCH_SHARE")), *dir = scratch_make();
    setenv("BENCH_SHARE", "/nowhere", 1);
    assert_fails(draw(&r, dir, "memory", &n), QB_ERR_NOT_FOUND, "set BENCH_SHARE");
    assert_int_equal(count_files(dir), 0);
    if (share)
        setenv("BENCH_SHARE", share, 1);
    else
        unsetenv("BENCH_SHARE");
    qb_free(share);
    scratch_remove(dir);
    qb_results_close(&r);
}

static void test_plots__a_document_without_data_draws_nothing(void **state) {
    (void)state;
    need_gnuplot();
    static const char empty[] =
        "{\"schema\":\"qb.results/1\",\"context\":{\"program\":{\"name\":\"q\",\"version\":\"1\"},"
        "\"created\":\"2026-11-22T06:10:00Z\",\"machine\":{\"cpu\":\"c\",\"cores\":1,\"threads\":1}},"
        "\"cases\":[{\"id\":\"a\",\"status\":\"ok\",\"config\":{},\"model\":null,\"metrics\":[]}]}";
    char *dir = scratch_make();
    qb_results r;
    int n = -1;
    assert_ok(qb_results_parse(empty, strlen(empty), "empty", &r));
    assert_ok(draw(&r, dir, NULL, &n));
    assert_int_equal(n, 0);
    assert_int_equal(count_files(dir), 0);
    qb_results_close(&r);
    scratch_remove(dir);
}

static void test_sheet__methods_keep_their_colours(void **state) {
    (void)state;
    qb_results r;
    qb_sheet s;
    qb_panel *panels;
    int n;
    qb_rows rows;
    const qb_results *document = &r;
    assert_ok(qb_results_open(EXAMPLE, &r));
    assert_ok(qb_rows_read(&document, 1, &rows));
    assert_ok(qb_sheet_make(&rows, &s));
    assert_int_equal(s.n, 13); /* the failed and the skipped case have nothing to draw */
    assert_true(s.entries[0].unquantized && s.entries[0].hue == 0);
    assert_int_equal(s.entries[1].hue, 2); /* rtn */
    assert_int_equal(s.entries[6].hue, 1); /* gptq */
    assert_int_equal(s.entries[6].variant, 0);
    assert_int_equal(s.entries[7].variant, 1); /* act-order: the same colour, another mark */
    assert_ok(qb_sheet_panels(&s, QB_PANEL_TEXT, &panels, &n));
    assert_int_equal(n, 2);
    assert_string_equal(panels[0].suffix, "-demo");
    assert_string_equal(panels[1].suffix, "-wikitext2");
    assert_ok(qb_sheet_panels(&s, QB_PANEL_DEVICE, &panels, &n));
    assert_int_equal(n, 1);
    assert_string_equal(panels[0].suffix, "");
    qb_sheet_free(&s);
    qb_rows_free(&rows);
    qb_results_close(&r);
}

/* Projected cases beside the measured ones: named as such, in pale colours, and absent from pictures of
 * quality. */
static void test_plots__projected_cases_are_drawn_apart(void **state) {
    (void)state;
    need_gnuplot();
    char *dir = scratch_make();
    qb_results r;
    const qb_project_config config = {2048, 1, 0.7e9};
    int n;
    assert_ok(qb_results_open(QB_SOURCE_DIR "/results/baselines/demo.json", &r));
    qb_free(r.path);
    r.path = NULL; /* in memory only */
    const qb_results *document = &r;
    qb_rows rows;
    assert_ok(qb_rows_read(&document, 1, &rows));
    int i = 0;
    while (i < rows.n_cases && !qb_rows_find(&rows.cases[i], "decode", NULL, NULL)) i++;
    assert_true(i < rows.n_cases);
    qb_json *projected;
    assert_ok(qb_project_case(&rows, &rows.cases[i], qb_target_find("t4"), &config, &projected));
    qb_rows_free(&rows);
    assert_ok(qb_results_put_case(&r, projected));
    assert_ok(draw(&r, dir, "decode-bits,prefill,perplexity-size", &n));
    char *svg = read_file(dir, "decode-bits.svg", NULL);
    expect_in(svg, "t4 projected");
    expect_in(svg, "pale and hollow: projected, not measured");
    qb_free(svg);
    svg = read_file(dir, "prefill.svg", NULL);
    expect_in(svg, "t4 projected");
    qb_free(svg);
    svg = read_file(dir, "perplexity-size.svg", NULL);
    assert_null(strstr(svg, "projected"));
    qb_free(svg);
    qb_results_close(&r);
    scratch_remove(dir);
}

static size_t behind(const char *text, const char *words) {
    size_t at = 0, n = strlen(words);
    while (text[at] && strncmp(text + at, words, n) != 0) at++;
    if (!text[at]) fail_msg("no \"%s\"", words);
    return at + n;
}

/* On a paper's column letters of the usual size would leave no room for the plot. */
static void test_plots__letters_fit_small_canvases(void **state) {
    (void)state;
    need_gnuplot();
    static const struct {
        int width, height;
        const char *font, *words;
    } tries[] = {{238, 180, NULL, "font_scale = 0.614987\n"},
                 {238, 180, "Times", "font_scale = 0.614987\n"},
                 {238, 180, "Times,13", "font_scale = 1\n"},
                 {720, 480, NULL, "font_scale = 1\n"},
                 {72, 72, NULL, "font_scale = 0.384615\n"}};
    char *dir = scratch_make();
    qb_results r;
    qb_rows rows;
    const qb_results *document = &r;
    assert_ok(qb_results_open(EXAMPLE, &r));
    assert_ok(qb_rows_read(&document, 1, &rows));
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        const qb_plots_request request = {.dir = dir,
                                          .only = "decode-bits",
                                          .width = tries[i].width,
                                          .height = tries[i].height,
                                          .font = tries[i].font,
                                          .sources = true};
        int n;
        assert_ok(qb_plots_draw(&rows, &request, &n));
        char *text = read_file(dir, "decode-bits.gp", NULL);
        expect_in(text, tries[i].words);
        /* The subtitle says what was measured: it ends on the canvas. */
        double px = atof(text + behind(text, "subtitle_px = "));
        double left = 16 * atof(text + behind(text, "font_scale = "));
        char *subtitle = text + behind(text, "figure_subtitle = '");
        subtitle[strcspn(subtitle, "\n") - 1] = 0;
        assert_true(strlen(subtitle) > 20);
        assert_true(left + qb_text_width(subtitle, px) <= tries[i].width);
        qb_free(text);
    }
    qb_rows_free(&rows);
    qb_results_close(&r);
    scratch_remove(dir);
}

/* A row that stayed noisy is marked wherever it is drawn, and the picture says what the mark means; in
   pictures without one the words are absent. */
static void test_plots__noisy_rows_are_marked(void **state) {
    (void)state;
    need_gnuplot();
    char *dir = scratch_make(), *text;
    qb_results r;
    int n;
    assert_ok(qb_results_open(EXAMPLE, &r));
    leave_noisy(r.doc, 1);
    assert_ok(draw(&r, dir, "decode-bits,prefill,memory", &n));
    text = read_file(dir, "decode-bits.svg", NULL);
    expect_in(text, "crossed: stayed noisy");
    qb_free(text);
    text = read_file(dir, "prefill.svg", NULL);
    expect_in(text, "hatched: stayed noisy");
    qb_free(text);
    text = read_file(dir, "memory.svg", NULL);
    assert_null(strstr(text, "noisy"));
    qb_free(text);
    qb_rows rows;
    const qb_results *document = &r;
    assert_ok(qb_rows_read(&document, 1, &rows));
    assert_ok(qb_plots_draw(
        &rows, &(qb_plots_request){.dir = dir, .only = "decode-bits,prefill", .sources = true}, &n));
    text = read_file(dir, "decode-bits.csv", NULL); /* the file's own checkpoint, and none else */
    expect_in(text, "half error bar,noisy\r\n");
    expect_in(text, ",1\r\n");
    expect_in(text, ",0\r\n");
    qb_free(text);
    text = read_file(dir, "decode-bits.gp", NULL);
    expect_in(text, "n_noisy = 1");
    qb_free(text);
    text = read_file(dir, "prefill.gp", NULL);
    expect_in(text, " 0 0 2\n"); /* a bar that is hatched */
    qb_free(text);
    qb_rows_free(&rows);
    leave_noisy(r.doc, -1);
    assert_ok(draw(&r, dir, "decode-bits,prefill", &n));
    text = read_file(dir, "decode-bits.svg", NULL);
    assert_null(strstr(text, "noisy"));
    qb_free(text);
    qb_results_close(&r);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axis__tics_are_round_and_few),
        cmocka_unit_test(test_axis__an_even_scale_has_one_notation),
        cmocka_unit_test(test_axis__tics_differ),
        cmocka_unit_test(test_axis__fits_any_values),
        cmocka_unit_test(test_sheet__methods_keep_their_colours),
        cmocka_unit_test(test_plots__draw_every_format_with_every_label),
        cmocka_unit_test(test_plots__projected_cases_are_drawn_apart),
        cmocka_unit_test(test_plots__letters_fit_small_canvases),
        cmocka_unit_test(test_plots__noisy_rows_are_marked),
        cmocka_unit_test(test_plots__every_registered_plot_draws_the_example),
        cmocka_unit_test(test_plots__hostile_names_are_only_text),
        cmocka_unit_test(test_plots__bad_requests_fail_clearly),
        cmocka_unit_test(test_plots__a_document_without_data_draws_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
