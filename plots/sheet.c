#include "plots/sheet.h"

#include "results/device.h"
#include "results/text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PANELS = 64, MAX_HUES = 8 };

/* Known methods keep their colour in every document; others take the free ones in order of appearance. */
static const char *const known_methods[] = {"", "gptq", "rtn", "nf4", "fp4"};
enum { N_KNOWN = sizeof known_methods / sizeof known_methods[0] };

static int hue_of(const qb_sheet *s, int i) {
    const qb_entry *e = &s->entries[i];
    if (e->unquantized) return 0;
    const char *method = e->c->method;
    for (int k = 1; k < N_KNOWN; k++)
        if (!strcmp(method, known_methods[k])) return k;
    int next = N_KNOWN;
    for (int j = 0; j < i; j++) {
        if (s->entries[j].unquantized || s->entries[j].hue < N_KNOWN) continue;
        if (!strcmp(s->entries[j].c->method, method)) return s->entries[j].hue;
        if (s->entries[j].hue >= next) next = s->entries[j].hue + 1;
    }
    return next < MAX_HUES ? next : N_KNOWN + (next - N_KNOWN) % (MAX_HUES - N_KNOWN);
}

/* Distinct series of the same colour so far; an equal series keeps its number. */
static int variant_of(const qb_sheet *s, int i) {
    int next = 0;
    for (int j = 0; j < i; j++) {
        if (s->entries[j].hue != s->entries[i].hue) continue;
        if (!strcmp(s->entries[j].series, s->entries[i].series)) return s->entries[j].variant;
        if (s->entries[j].variant >= next) next = s->entries[j].variant + 1;
    }
    return next;
}

static qb_status keep(qb_arena *arena, qb_str *text, const char **out) {
    qb_status st = qb_str_status(text);
    if (st == QB_OK) st = qb_arena_strdup(arena, qb_str_get(text), out);
    qb_str_free(text);
    return st;
}

/* Cases of several documents are no points of one line. */
static bool is_shared_series(const qb_rows *rows, const qb_row_case *c) {
    for (int i = 0; i < rows->n_cases; i++) {
        const qb_row_case *other = &rows->cases[i];
        if (other->document != c->document && !strcmp(other->of, c->of) && !strcmp(other->series, c->series))
            return true;
    }
    return false;
}

qb_status qb_sheet_make(const qb_rows *rows, qb_sheet *s) {
    qb_status st;
    *s = (qb_sheet){.rows = rows};
    QB_TRY(st, qb_arena_alloc(&s->arena, (size_t)rows->n_cases, sizeof *s->entries, &s->entries));
    for (int i = 0; i < rows->n_cases; i++) {
        const qb_row_case *c = &rows->cases[i];
        if (c->status != QB_ROW_OK) continue;
        qb_entry *e = &s->entries[s->n];
        *e = (qb_entry){
            .c = c, .label = c->label, .unquantized = c->unquantized, .projected = c->projected_on != NULL};
        qb_str series = {0};
        qb_str_text(&series, c->series);
        if (is_shared_series(rows, c)) qb_str_printf(&series, " (%s)", c->document->name);
        QB_TRY(st, keep(&s->arena, &series, &e->series));
        e->hue = hue_of(s, s->n);
        e->variant = variant_of(s, s->n);
        s->n++;
    }
out:
    if (st != QB_OK) qb_sheet_free(s);
    return st;
}

void qb_sheet_free(qb_sheet *s) {
    if (!s) return;
    qb_arena_free(&s->arena);
    *s = (qb_sheet){0};
}

/* ---- panels ---- */

static bool same(const char *a, const char *b) {
    return a == b || (a && b && !strcmp(a, b));
}

static bool same_device(const qb_row_device *a, const qb_row_device *b) {
    return a == b || (a && b && !qb_device_difference(a->json, b->json));
}

bool qb_panel_has(const qb_panel *p, const qb_entry *e) {
    return !strcmp(e->c->of, p->model) && (!p->by_device || same_device(e->c->device, p->device));
}

static void add_panel(qb_panel *panels, int *n, qb_panel p) {
    for (int i = 0; i < *n; i++)
        if (same(panels[i].model, p.model) && same(panels[i].dataset, p.dataset) &&
            same(panels[i].protocol, p.protocol) && same_device(panels[i].device, p.device))
            return;
    if (*n < MAX_PANELS) panels[(*n)++] = p;
}

static void put_slug(char *out, size_t size, const char *word) {
    size_t n = strlen(out);
    if (n + 2 < size) out[n++] = '-';
    for (; *word && n + 1 < size; word++)
        out[n++] = isalnum((unsigned char)*word) ? (char)tolower((unsigned char)*word) : '-';
    out[n] = 0;
}

/* Only what differs between the panels goes into a file name. */
static void name_panels(qb_panel *panels, int n) {
    bool models = false, datasets = false, protocols = false, devices = false;
    for (int i = 1; i < n; i++) {
        models |= !same(panels[0].model, panels[i].model);
        datasets |= !same(panels[0].dataset, panels[i].dataset);
        protocols |= !same(panels[0].protocol, panels[i].protocol);
        devices |= !same_device(panels[0].device, panels[i].device);
    }
    for (int i = 0; i < n; i++) {
        char word[24];
        panels[i].suffix[0] = 0;
        if (models) put_slug(panels[i].suffix, 40, panels[i].model);
        if (datasets && panels[i].dataset) put_slug(panels[i].suffix, 64, panels[i].dataset);
        if (protocols && panels[i].protocol) put_slug(panels[i].suffix, 84, panels[i].protocol);
        if (devices && panels[i].device) {
            const qb_row_device *d = panels[i].device;
            put_slug(panels[i].suffix, 84, *d->gpu ? d->gpu : d->cpu);
        }
        for (int j = 0; j < i; j++) {
            if (strcmp(panels[i].suffix, panels[j].suffix) != 0) continue;
            snprintf(word, sizeof word, "%d", i + 1);
            put_slug(panels[i].suffix, sizeof panels[i].suffix, word);
            break;
        }
    }
}

qb_status qb_sheet_panels(qb_sheet *s, qb_panel_kind kind, qb_panel **panels, int *n) {
    *n = 0;
    qb_status st = qb_arena_alloc(&s->arena, MAX_PANELS, sizeof **panels, panels);
    if (st != QB_OK) return st;
    for (int i = 0; i < s->n; i++) {
        const qb_row_case *c = s->entries[i].c;
        bool by_device = kind == QB_PANEL_DEVICE;
        if (kind != QB_PANEL_TEXT)
            add_panel(
                *panels, n,
                (qb_panel){.model = c->of, .device = by_device ? c->device : NULL, .by_device = by_device});
        for (int k = 0; kind == QB_PANEL_TEXT && k < c->n_rows; k++) {
            const qb_row *r = &c->rows[k];
            if (strcmp(r->name, "perplexity") != 0 || r->status != QB_ROW_OK) continue;
            add_panel(*panels, n, (qb_panel){.model = c->of, .dataset = r->dataset, .protocol = r->protocol});
        }
    }
    name_panels(*panels, *n);
    return QB_OK;
}

static void put_part(qb_str *out, const char *separator, const char *text) {
    if (!text || !*text) return;
    if (out->length) qb_str_text(out, separator);
    qb_text_clean(text, 120, out);
}

qb_status qb_sheet_subtitle(qb_sheet *s, const qb_panel *panel, const char *protocol, const char *tail,
                            const char **out) {
    qb_str text = {0};
    put_part(&text, " · ", panel->model);
    put_part(&text, " on ", panel->dataset);
    put_part(&text, " · ", panel->protocol);
    put_part(&text, " · ", protocol);
    if (panel->device) put_part(&text, " · ", panel->device->description);
    put_part(&text, " · ", tail);
    return keep(&s->arena, &text, out);
}

static bool has_projected(const qb_sheet *s) {
    for (int i = 0; i < s->n; i++)
        if (s->entries[i].projected) return true;
    return false;
}

qb_status qb_sheet_speed_tail(qb_sheet *s, const char *noisy, const char **out) {
    qb_str text = {0};
    qb_str_text(&text, "median, bars: ± 1 sd");
    if (noisy) qb_str_printf(&text, " · %s: stayed noisy", noisy);
    if (has_projected(s)) qb_str_text(&text, " · pale and hollow: projected, not measured");
    return keep(&s->arena, &text, out);
}
