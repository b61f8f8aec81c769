/* The page: all that changed as a table, then a chart a series, drawn here as SVG: what changed first, what
   never moved as one table at the end. No script is needed to read it; one of some lines hides what does not
   match a word. tests/test_contrast.c reads the colours. */
#include "history/history.h"

#include "plots/axis.h"
#include "results/compare.h"
#include "results/sink.h"

#include <math.h>
#include <string.h>

enum {
    WIDTH = 860,
    HEIGHT = 200,
    LEFT = 96,
    RIGHT = 14,
    TOP = 12,
    BOTTOM = 26,
    MAX_ROWS = 400,
    MAX_TICS = 16
};

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Benchmark "
    "history</title>\n"
    "<style>\n"
    ":root{color-scheme:light dark;--ink:#1f2328;--paper:#fff;--pale:#57606a;--rule:#d0d7de;--line:#0072b2;"
    "--worse:#a33b00;--better:#00664a}\n"
    "@media screen and "
    "(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--pale:#9aa4af;--rule:#30363d;"
    "--line:#73aed6;--worse:#f0a070;--better:#6fd3b4}}\n"
    "body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:920px;"
    "margin:2rem auto;padding:0 1rem}\n"
    ":focus-visible{outline:3px solid var(--line);outline-offset:2px}a{color:var(--line)}\n"
    "h2{font-size:1.05rem;margin:2rem 0 .2rem;overflow-wrap:anywhere}.sub{color:var(--pale);margin:0 0 "
    ".4rem}\n"
    "svg{width:100%;min-width:600px;height:auto;display:block}svg text{font:12px "
    "system-ui,sans-serif;fill:var(--pale)}\n"
    ".frame{stroke:var(--rule);fill:none}.line{stroke:var(--line);fill:none;stroke-width:1.6}\n"
    ".dot{fill:var(--line)}.noisy{fill:var(--paper);stroke:var(--pale)}\n"
    ".change{stroke-width:1.4;stroke-dasharray:4 3}.worse{color:var(--worse);stroke:var(--worse)}"
    ".better{color:var(--better);stroke:var(--better)}\n"
    "svg text.worse{fill:var(--worse);stroke:none}svg text.better{fill:var(--better);stroke:none}\n"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-"
    "nums}"
    "caption{text-align:left}th,td{text-align:left;vertical-align:top;padding:.25rem .6rem;border-bottom:1px "
    "solid "
    "var(--rule);overflow-wrap:break-word}td.n,th.n{text-align:right;white-space:nowrap}td:first-child,th{"
    "white-space:nowrap}\n"
    "details summary{cursor:pointer;color:var(--pale)}input{font:inherit;padding:.3rem "
    ".5rem;color:inherit;background:var(--paper);border:1px solid "
    "var(--pale);border-radius:.2rem;width:20rem;"
    "max-width:100%}\n"
    "section:target h2{text-decoration:underline}\n"
    "@media print{section details,.filter{display:none}section{break-inside:avoid}svg{min-width:0}}\n"
    "</style>\n</head>\n<body>\n";

static const char script[] =
    "<script>\n(()=>{const "
    "box=document.getElementById('find');document.querySelector('.filter').hidden=false;"
    "box.addEventListener('input',()=>{const words=box.value.toLowerCase().split(/\\s+/);"
    "for(const s of document.querySelectorAll('section[data-name]'))"
    "s.hidden=!words.every(w=>s.dataset.name.includes(w))})})()\n</script>\n";

static void put_name(const qb_history_series *s, qb_str *out) {
    qb_str name = {0};
    qb_history_name(s, &name);
    qb_html_text(qb_str_get(&name), out);
    qb_str_free(&name);
}

static void put_value(double value, const qb_history_series *s, qb_str *out) {
    qb_str text = {0};
    qb_compare_put_value(value, s->unit, &text);
    qb_html_text(qb_str_get(&text), out);
    qb_str_free(&text);
}

static void put_run(const qb_history_run *run, qb_str *out) {
    qb_html_text(*run->git ? run->git : run->name, out);
    qb_str_text(out, ", ");
    qb_str day = {0}; /* of 2026-11-22T06:10:00Z */
    qb_str_printf(&day, "%.10s", run->created);
    qb_html_text(qb_str_get(&day), out);
    qb_str_free(&day);
}

/* As the terminal's and compare's: with the digits that it needs, and no number where it was zero before. */
static void put_pct(const qb_series_change *c, qb_str *out) {
    qb_compare_put_change(100 * (c->after / c->before - 1), out);
}

static const char *kind_of(const qb_series_change *c) {
    return c->worse ? "worse" : "better";
}

/* ---- what changed ---- */

static void put_changes(const qb_history_view *v, qb_str *out) {
    int n = 0;
    for (int i = 0; i < v->n_series; i++) n += v->series[i].n_changes;
    qb_str_printf(out, "<h1>Benchmark history</h1>\n<p>%d runs, %d series, %d change%s.</p>\n", v->n_runs,
                  v->n_series, n, n == 1 ? "" : "s");
    if (!n) return;
    qb_str_text(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"What changed\"><table><caption "
        "class=\"sub\">What changed, the newest first</caption>\n<thead><tr><th>first run of it</th><th "
        "class=\"n\">change</th><th>case</th><th>metric</th><th class=\"n\">before</th><th "
        "class=\"n\">after</th>"
        "<th class=\"n\">p</th></tr></thead><tbody>\n");
    int rows = 0;
    for (int run = v->n_runs - 1; run >= 0; run--)
        for (int i = 0; i < v->n_series; i++)
            for (int k = 0; k < v->series[i].n_changes; k++) {
                const qb_history_series *s = &v->series[i];
                const qb_series_change *c = &s->changes[k];
                if (s->points[c->point].run != run || rows++ >= MAX_ROWS) continue;
                qb_str_text(out, "<tr><td>");
                put_run(&v->runs[run], out);
                qb_str_printf(out, "</td><td class=\"n %s\">", kind_of(c));
                put_pct(c, out);
                qb_str_printf(out, " %s</td><td><a href=\"#s%d\">", kind_of(c), i);
                qb_html_text(s->case_id, out);
                qb_str_text(out, "</a></td><td>");
                put_name(s, out);
                qb_str_text(out, "</td><td class=\"n\">");
                put_value(c->before, s, out);
                qb_str_text(out, "</td><td class=\"n\">");
                put_value(c->after, s, out);
                qb_str_printf(out,
                              c->p < 0.0001 ? "</td><td class=\"n\">&lt; 0.0001</td></tr>\n"
                                            : "</td><td class=\"n\">%.4f</td></tr>\n",
                              c->p);
            }
    qb_str_text(out, "</tbody></table></div>\n");
    if (rows > MAX_ROWS)
        qb_str_printf(out, "<p class=\"sub\">%d earlier ones are in the JSON form.</p>\n", rows - MAX_ROWS);
}

/* ---- a chart ---- */

typedef struct scale {
    double x0, x1, y0, y1;
} scale;

static double place_x(const scale *s, int run) {
    return LEFT + (run - s->x0) / (s->x1 - s->x0) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const scale *s, double value) {
    return HEIGHT - BOTTOM - (value - s->y0) / (s->y1 - s->y0) * (HEIGHT - TOP - BOTTOM);
}

static scale scale_of(const qb_history_view *v, const qb_history_series *s) {
    scale r = {0, v->n_runs > 1 ? v->n_runs - 1 : 1, (double)INFINITY, -(double)INFINITY};
    for (int i = 0; i < s->n_points; i++) {
        r.y0 = fmin(r.y0, s->points[i].value);
        r.y1 = fmax(r.y1, s->points[i].value);
    }
    double margin = r.y1 > r.y0 ? 0.12 * (r.y1 - r.y0) : fmax(fabs(r.y0) * 0.05, 1e-9);
    r.y0 -= margin;
    r.y1 += s->n_changes ? 2 * margin : margin; /* where the changes are named */
    return r;
}

/* What the axis' numbers are divided by, and the unit that they then have. */
static double unit_of(const qb_history_series *s, double most, const char **unit) {
    static const char *const bytes[] = {"B", "kB", "MB", "GB", "TB"};
    double per = 1;
    int k = 0;
    *unit = !strcmp(s->unit, "1") ? "" : s->unit;
    if (strcmp(s->unit, "B") != 0) return 1;
    for (; most >= 1000 * per && k < 4; k++) per *= 1000;
    *unit = bytes[k];
    return per;
}

static void put_axes(const qb_history_view *v, const qb_history_series *s, const scale *at, qb_str *out) {
    qb_str_printf(out, "<rect class=\"frame\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n", LEFT, TOP,
                  WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    const char *unit;
    double per = unit_of(s, fmax(fabs(at->y0), fabs(at->y1)), &unit), values[MAX_TICS];
    qb_axis axis = {at->y0 / per, at->y1 / per, false};
    int n = qb_axis_values(&axis, 3, values, MAX_TICS);
    for (int i = 0; i < n; i++) {
        qb_str text = {0};
        double y = place_y(at, values[i] * per);
        qb_axis_format(values[i], qb_axis_step(values, n), &text);
        qb_str_printf(&text, "%s%s", *unit ? " " : "", unit);
        qb_str_printf(out, "<line class=\"frame\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT,
                      WIDTH - RIGHT, y, y);
        qb_str_printf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 6, y + 4);
        qb_html_text(qb_str_get(&text), out);
        qb_str_text(out, "</text>\n");
        qb_str_free(&text);
    }
    for (int end = 0; end < 2 && v->n_runs; end++) {
        qb_str_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">", end ? WIDTH - RIGHT : LEFT,
                      HEIGHT - 8, end ? "end" : "start");
        put_run(&v->runs[end ? v->n_runs - 1 : 0], out);
        qb_str_text(out, "</text>\n");
    }
}

static void put_line(const qb_history_series *s, const scale *at, qb_str *out) {
    qb_str_text(out, "<polyline class=\"line\" points=\"");
    for (int i = 0; i < s->n_points; i++)
        qb_str_printf(out, "%.1f,%.1f ", place_x(at, s->points[i].run), place_y(at, s->points[i].value));
    qb_str_text(out, "\"/>\n");
}

static void put_marks(const qb_history_view *v, const qb_history_series *s, const scale *at, qb_str *out) {
    for (int k = 0; k < s->n_changes; k++) {
        const qb_series_change *c = &s->changes[k];
        const char *kind = kind_of(c);
        double x = place_x(at, s->points[c->point].run);
        bool right = x > WIDTH - 90;
        qb_str_printf(out, "<line class=\"change %s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", kind,
                      x, x, TOP, HEIGHT - BOTTOM);
        qb_str_printf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">", kind,
                      right ? x - 4 : x + 4, TOP + 12 + 13 * (k % 2), right ? "end" : "start");
        put_pct(c, out);
        qb_str_printf(out, " %s</text>\n", kind);
    }
    for (int i = 0; i < s->n_points; i++) {
        const qb_history_point *p = &s->points[i];
        qb_str_printf(out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.8\"><title>",
                      p->noisy ? "noisy" : "dot", place_x(at, p->run), place_y(at, p->value));
        put_value(p->value, s, out);
        qb_str_text(out, p->noisy ? ", noisy, " : ", ");
        put_run(&v->runs[p->run], out);
        qb_str_text(out, "</title></circle>\n");
    }
}

static void put_table(const qb_history_view *v, const qb_history_series *s, qb_str *out) {
    qb_str_text(out, "<details><summary>values</summary><div class=\"scroll\" "
                     "tabindex=\"0\"><table><thead><tr><th>run</th><th>value</th>"
                     "<th></th></tr></thead><tbody>\n");
    for (int i = s->n_points - 1; i >= 0 && i >= s->n_points - MAX_ROWS; i--) {
        qb_str_text(out, "<tr><td>");
        put_run(&v->runs[s->points[i].run], out);
        qb_str_text(out, "</td><td class=\"n\">");
        put_value(s->points[i].value, s, out);
        qb_str_printf(out, "</td><td>%s</td></tr>\n", s->points[i].noisy ? "noisy" : "");
    }
    qb_str_text(out, "</tbody></table></div></details>\n");
}

static void put_lower(const char *text, qb_str *out) {
    qb_str lower = {0};
    qb_str_text(&lower, text);
    for (size_t i = 0; i < lower.length; i++)
        if (lower.text[i] >= 'A' && lower.text[i] <= 'Z') lower.text[i] = (char)(lower.text[i] - 'A' + 'a');
    qb_html_text(qb_str_get(&lower), out);
    qb_str_free(&lower);
}

static bool any_noisy(const qb_history_series *s) {
    for (int i = 0; i < s->n_points; i++)
        if (s->points[i].noisy) return true;
    return false;
}

/* Sizes and counts that are the same in every run need no chart. */
static bool is_still(const qb_history_series *s) {
    for (int i = 1; i < s->n_points; i++)
        if (s->points[i].value != s->points[0].value) return false;
    return s->n_points > 1;
}

static void put_still(const qb_history_view *v, qb_str *out) {
    int n = 0;
    for (int i = 0; i < v->n_series; i++) n += is_still(&v->series[i]);
    if (!n) return;
    qb_str_printf(
        out,
        "<h2>The same in every run</h2>\n<details open><summary>%d series</summary><div class=\"scroll\" "
        "tabindex=\"0\"><table><thead><tr><th>case</th><th>metric</th><th class=\"n\">value</th><th "
        "class=\"n\">runs</th></tr></thead><tbody>\n",
        n);
    for (int i = 0; i < v->n_series; i++) {
        const qb_history_series *s = &v->series[i];
        if (!is_still(s)) continue;
        qb_str_text(out, "<tr><td>");
        qb_html_text(s->case_id, out);
        qb_str_text(out, "</td><td>");
        put_name(s, out);
        qb_str_text(out, "</td><td class=\"n\">");
        put_value(s->points[0].value, s, out);
        qb_str_printf(out, "</td><td class=\"n\">%d</td></tr>\n", s->n_points);
    }
    qb_str_text(out, "</tbody></table></div></details>\n");
}

static void put_section(const qb_history_view *v, int index, qb_str *out) {
    const qb_history_series *s = &v->series[index];
    scale at = scale_of(v, s);
    qb_str name = {0};
    qb_history_name(s, &name);
    qb_str_printf(out, "<section id=\"s%d\" data-name=\"", index);
    put_lower(s->case_id, out);
    qb_str_text(out, " ");
    put_lower(qb_str_get(&name), out);
    qb_str_printf(out, "%s\">\n<h2>", s->n_changes ? " changed" : "");
    qb_html_text(s->case_id, out);
    qb_str_text(out, ": ");
    qb_html_text(qb_str_get(&name), out);
    qb_str_printf(out, "</h2>\n<p class=\"sub\">%s is better", s->higher_is_better ? "higher" : "lower");
    if (*s->device) qb_str_text(out, " · ");
    qb_html_text(s->device, out);
    if (any_noisy(s)) qb_str_text(out, " · hollow: noisy, no change is looked for in it");
    qb_str_printf(
        out,
        "</p>\n<div class=\"scroll\" tabindex=\"0\"><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"",
        WIDTH, HEIGHT);
    qb_html_text(s->case_id, out);
    qb_str_text(out, ", ");
    qb_html_text(qb_str_get(&name), out);
    qb_str_printf(out, ": %d values, %d changes, last ", s->n_points, s->n_changes);
    if (s->n_points) put_value(s->points[s->n_points - 1].value, s, out);
    qb_str_text(out, "\">\n");
    put_axes(v, s, &at, out);
    put_line(s, &at, out);
    put_marks(v, s, &at, out);
    qb_str_text(out, "</svg></div>\n");
    put_table(v, s, out);
    qb_str_text(out, "</section>\n");
    qb_str_free(&name);
}

qb_status qb_history_page(const qb_history_view *v, qb_str *out) {
    qb_str_text(out, head);
    put_changes(v, out);
    qb_str_text(out, "<p class=\"filter\" hidden><label>Show only <input id=\"find\" type=\"search\" "
                     "placeholder=\"decode rtn changed\"></label></p>\n");
    for (int changed = 1; changed >= 0; changed--)
        for (int i = 0; i < v->n_series; i++)
            if ((v->series[i].n_changes > 0) == changed && !is_still(&v->series[i])) put_section(v, i, out);
    put_still(v, out);
    qb_str_text(out, script);
    qb_str_text(out, "</body>\n</html>\n");
    return qb_str_status(out);
}
