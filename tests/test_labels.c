/* Labels of scatter plots, on the coordinates that are drawn. */
#include "plots/pictures.h"
#include "results/set.h"
#include "tests/support.h"

#include <math.h>

static qb_box box_of(const qb_tag *t) {
    double w = qb_text_width(t->text, t->font_px), left = t->flush_right ? t->at_x - w : t->at_x;
    return (qb_box){left, t->at_y - t->font_px / 2, left + w, t->at_y + t->font_px / 2};
}

static bool overlap(qb_box a, qb_box b) {
    return a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
}

static void expect_apart(const qb_tag *tags, int n, qb_box area) {
    for (int i = 0; i < n; i++) {
        qb_box a = box_of(&tags[i]);
        if (a.x0 < area.x0 || a.x1 > area.x1 || a.y0 < area.y0 || a.y1 > area.y1)
            fail_msg("%s leaves the area", tags[i].text);
        for (int j = 0; j < n; j++) {
            if (j < i && overlap(a, box_of(&tags[j])))
                fail_msg("%s and %s overlap", tags[i].text, tags[j].text);
            qb_box point = {tags[j].x - 4, tags[j].y - 4, tags[j].x + 4, tags[j].y + 4};
            if (!tags[j].on_line && overlap(a, point))
                fail_msg("%s hides the point of %s", tags[i].text, tags[j].text);
        }
    }
}

static void test_labels__coincident_points_get_separate_labels(void **state) {
    (void)state;
    const qb_box area = {70, 60, 770, 450};
    static const char *const names[] = {"RTN 8b g128", "GPTQ 8b g128", "GPTQ 4b g128 act",
                                        "NF4",         "NF4 DQ",       "FP4"};
    qb_tag tags[24];
    int n = 0;
    for (int i = 0; i < 6; i++) tags[n++] = (qb_tag){.text = names[i], .x = 400, .y = 200, .font_px = 11};
    for (int i = 0; i < 6; i++) tags[n++] = (qb_tag){.text = names[i], .x = 768, .y = 448 - i, .font_px = 11};
    for (int i = 0; i < 6; i++)
        tags[n++] = (qb_tag){.text = names[i], .x = 100 + 14 * i, .y = 64, .font_px = 11};
    tags[n++] = (qb_tag){.text = "unquantized, 16 bit: 24.81",
                         .x = 770,
                         .y = 200,
                         .on_line = true,
                         .line_x0 = 70,
                         .font_px = 11};
    const qb_segment line = {70, 200, 770, 200};
    assert_ok(qb_tags_place(tags, n, area, &line, 1));
    expect_apart(tags, n, area);
}

/* Fifty random sets: points of several series with lines through them, error bars and reference lines. */
static double next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) / 9007199254740992.0;
}

static double gap(double x, double y, qb_box b) {
    double dx = fmax(0, fmax(b.x0 - x, x - b.x1)), dy = fmax(0, fmax(b.y0 - y, y - b.y1));
    return sqrt(dx * dx + dy * dy);
}

static bool is_cut(qb_segment s, qb_box b) {
    for (int k = 0; k <= 400; k++) {
        double x = s.x0 + (s.x1 - s.x0) * k / 400, y = s.y0 + (s.y1 - s.y0) * k / 400;
        if (x > b.x0 && x < b.x1 && y > b.y0 && y < b.y1) return true;
    }
    return false;
}

/* The line that a reader takes a line's name for is the nearest one. */
static void check_line_names(const qb_placed *p, const char *of) {
    for (int i = 0; i < p->n_tags; i++)
        for (int j = 0; j < p->n_tags; j++)
            if (p->tags[i].on_line && !p->tags[i].leader && p->tags[j].on_line &&
                fabs(p->tags[i].at_y - p->tags[j].y) < fabs(p->tags[i].at_y - p->tags[i].y))
                fail_msg("%s: %s stands at the line of %s", of, p->tags[i].text, p->tags[j].text);
}

static void check_labels(const qb_placed *p, const char *of) {
    check_line_names(p, of);
    for (int i = 0; i < p->n_tags; i++) {
        qb_box box = box_of(&p->tags[i]);
        for (int j = 0; j < p->n_tags; j++) {
            if (j != i && overlap(box, box_of(&p->tags[j])))
                fail_msg("%s: %s touches %s", of, p->tags[i].text, p->tags[j].text);
            if (j != i && p->tags[j].leader && is_cut(p->tags[j].leading, box))
                fail_msg("%s: the line from %s cuts %s", of, p->tags[j].text, p->tags[i].text);
        }
        for (int k = 0; k < p->n_segments; k++)
            if (is_cut(p->segments[k], box)) fail_msg("%s: %s hides a line", of, p->tags[i].text);
        if (p->tags[i].on_line || p->tags[i].leader) continue;
        double own = gap(p->tags[i].x, p->tags[i].y, box);
        for (int j = 0; j < p->n_tags; j++)
            if (!p->tags[j].on_line && p->tags[j].group != p->tags[i].group &&
                gap(p->tags[j].x, p->tags[j].y, box) < own)
                fail_msg("%s: %s is nearer to the mark of %s", of, p->tags[i].text, p->tags[j].text);
    }
}

/* The page's own size, and a column of a paper: 3.3in,2.5in with letters of 8 points. */
static void check_figure(const qb_figure *f, const char *of) {
    static const qb_canvas canvases[] = {{.width = 800, .height = 520},
                                         {.width = 238, .height = 180, .scale = 8.0 / 13, .untitled = true}};
    for (int c = 0; c < 2; c++) {
        qb_arena arena = {0};
        qb_placed placed;
        const qb_figure own = qb_figure_with_room(f, canvases[c]);
        char where[128];
        snprintf(where, sizeof where, "%s, %d wide", of, canvases[c].width);
        assert_ok(qb_figure_place(&own, canvases[c], &arena, &placed));
        check_labels(&placed, where);
        qb_arena_free(&arena);
    }
}

static void test_labels__of_random_sets_are_clear_and_told_apart(void **state) {
    (void)state;
    uint64_t seed = 3; /* one of its sets needs a label pushed aside */
    static const char *const methods[] = {"RTN", "GPTQ", "NF4", "AWQ"};
    for (int set = 0; set < 50; set++) {
        qb_point points[32];
        qb_series series[4];
        char names[32][32], of[16];
        qb_figure f = {.points = points, .series = series, .x = {1.5, 9, false}, .y = {7, 14, false}};
        f.n_series = 2 + (int)(next_random(&seed) * 3);
        for (int s = 0; s < f.n_series; s++) {
            series[s] = (qb_series){.name = methods[s], .hue = s, .joined = true};
            int n = 1 + (int)(next_random(&seed) * 4);
            for (int k = 0; k < n; k++) {
                int i = f.n_points++;
                double bits = 2.2 + 1.9 * k + 0.3 * next_random(&seed);
                snprintf(names[i], sizeof names[i], "%s %db g128", methods[s], k + 2);
                points[i] = (qb_point){
                    bits, 8.2 + 5 * exp(-k) * next_random(&seed), set % 2 ? 0.1 : (double)NAN, names[i], s,
                    false};
            }
        }
        f.references[f.n_references++] = (qb_reference){.y = 8, .label = "unquantized, F16: 8.000"};
        if (set % 3 == 0)
            f.references[f.n_references++] =
                (qb_reference){.y = 7.7, .label = "entropy of the text: 7.700", .is_floor = true};
        snprintf(of, sizeof of, "set %d", set);
        check_figure(&f, of);
    }
}

/* Scatter plots are looked at instead of drawn. */
static int n_looked_at;
static qb_status look(qb_easel *e, const char *name, const qb_figure *f) {
    (void)e;
    check_figure(f, name);
    n_looked_at++;
    return QB_OK;
}
static qb_status pass(qb_easel *e, const char *name, const qb_bar_chart *chart) {
    (void)e, (void)name, (void)chart;
    return QB_OK;
}

static void test_labels__of_published_results_are_clear_and_told_apart(void **state) {
    (void)state;
    static const char *const paths[] = {
        QB_SOURCE_DIR "/results/baselines/demo.json", QB_SOURCE_DIR "/results/baselines/smollm2.json",
        QB_SOURCE_DIR "/results/baselines/seeds.json", QB_SOURCE_DIR "/tests/golden/results/example.json"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        qb_result_set set = {0};
        qb_sheet sheet;
        qb_easel easel = {.scatter = look, .bars = pass};
        n_looked_at = 0;
        assert_ok(qb_result_set_open(&paths[i], 1, &set));
        assert_ok(qb_sheet_make(&set.rows, &sheet));
        assert_ok(qb_pictures_draw(&sheet, &easel, NULL));
        assert_true(n_looked_at >= 3);
        qb_sheet_free(&sheet);
        qb_result_set_close(&set);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels__coincident_points_get_separate_labels),
        cmocka_unit_test(test_labels__of_random_sets_are_clear_and_told_apart),
        cmocka_unit_test(test_labels__of_published_results_are_clear_and_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
