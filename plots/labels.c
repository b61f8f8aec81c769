#include "plots/labels.h"

#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { DIRECTIONS = 12, RINGS = 12, LINE_PLACES = 24, GRID = 18, ROUNDS = 8, MAX_TAGS = 256 };
/* Marks and distances are of letters of FONT_PX and go with their size. */
#define FONT_PX   11.0
#define MARKER_PX 5.0

static double scale_of(const qb_tag *t) {
    return t->font_px / FONT_PX;
}
static double marker_of(const qb_tag *t) {
    return MARKER_PX * scale_of(t);
}

double qb_text_width(const char *text, double font_px) {
    double em = 0;
    for (const char *p = text; *p; p++) {
        if (((unsigned char)*p & 0xC0) == 0x80) continue; /* a further byte of the same character */
        em += strchr("iljt.,:;|'!", *p)  ? 0.26
              : strchr(" fr()-/", *p)    ? 0.33
              : strchr("mwMW%@", *p)     ? 0.85
              : (*p >= 'A' && *p <= 'Z') ? 0.68
                                         : 0.56;
    }
    return em * font_px;
}

typedef struct place {
    double x, y; /* as in qb_tag.at_x, at_y */
    bool flush_right, leader;
    double preference;  /* cost of the place itself */
    qb_box box;         /* of the text there */
    qb_segment leading; /* from what is named to the box: the leader, where there is one */
    double alone;       /* what it costs whatever the other labels do */
} place;

/* Best first: to the right, then above and below it, the left side last, since readers expect a label behind
 * its point. */
static const struct {
    double dx, dy, cost;
} directions[DIRECTIONS] = {{1, 0, 0},    {0.7, 1, 1},     {0.7, -1, 1.5}, {-1, 0, 3},
                            {-0.7, 1, 3}, {-0.7, -1, 3.5}, {0, 1, 2},      {0, -1, 2.5},
                            {1, 0.5, 1},  {1, -0.5, 1.5},  {-1, 0.5, 3.2}, {-1, -0.5, 3.7}};

/* Anywhere at all: a mesh over the area, flush to the side that the mark is on. The way to a line is straight
   up or down. */
static place place_in_mesh(const qb_tag *t, qb_box area, int k) {
    double width = qb_text_width(t->text, t->font_px), half = t->font_px * 0.56 + 1;
    double left = area.x0 + 2 + (area.x1 - area.x0 - width - 4) * (k % GRID) / (GRID - 1.0);
    double y = area.y0 + half + (area.y1 - area.y0 - 2 * half) * (k / GRID) / (GRID - 1.0);
    bool flush_right = left + width / 2 < t->x;
    double x = flush_right ? left + width : left;
    double far = (t->on_line ? 40 + fabs(y - t->y) : hypot(x - t->x, y - t->y)) / scale_of(t);
    return (place){.x = x, .y = y, .flush_right = flush_right, .leader = true, .preference = 12 + far * 0.12};
}

static place place_of(const qb_tag *t, qb_box area, int k) {
    if (t->on_line && k >= LINE_PLACES) return place_in_mesh(t, area, k - LINE_PLACES);
    if (t->on_line) {
        /* Along the line from right to left, each above and then below it. */
        double width = qb_text_width(t->text, t->font_px),
               step = (t->x - t->line_x0 - width - 4) / (LINE_PLACES / 2 - 1.0);
        double side = k % 2 ? -1 : 1;
        return (place){.x = t->x - 2 - step * (k / 2),
                       .y = t->y + side * (t->font_px * 0.5 + 3),
                       .flush_right = true,
                       .preference = k / 2 * 0.8 + (k % 2) * 1.5};
    }
    if (k >= DIRECTIONS * RINGS) return place_in_mesh(t, area, k - DIRECTIONS * RINGS);
    int direction = k % DIRECTIONS, ring = k / DIRECTIONS;
    static const double distances[RINGS] = {
        MARKER_PX + 4,   MARKER_PX + 11,  MARKER_PX + 22,  MARKER_PX + 36,  MARKER_PX + 54,  MARKER_PX + 76,
        MARKER_PX + 100, MARKER_PX + 128, MARKER_PX + 160, MARKER_PX + 196, MARKER_PX + 236, MARKER_PX + 280};
    double dx = directions[direction].dx, dy = directions[direction].dy, d = distances[ring] * scale_of(t);
    double width = qb_text_width(t->text, t->font_px);
    place p = {.x = t->x + dx * d,
               .y = t->y + dy * d,
               .flush_right = dx < 0,
               .leader = ring >= 2,
               .preference = directions[direction].cost + ring * 4.0};
    if (dx == 0) { /* straight above or below: centred */
        p.x -= width / 2;
        p.y += dy * t->font_px * 0.35;
    }
    return p;
}

enum { PLACES_MAX = DIRECTIONS * RINGS + GRID * GRID };
static int places_of(const qb_tag *t) {
    return t->on_line ? LINE_PLACES + GRID * GRID : PLACES_MAX;
}

static qb_box box_of(const qb_tag *t, const place *p) {
    double width = qb_text_width(t->text, t->font_px), half = t->font_px * 0.56;
    double left = p->flush_right ? p->x - width : p->x;
    return (qb_box){left - 1, p->y - half, left + width + 1, p->y + half};
}

static double overlap(qb_box a, qb_box b) {
    double w = fmin(a.x1, b.x1) - fmax(a.x0, b.x0), h = fmin(a.y1, b.y1) - fmax(a.y0, b.y0);
    return w > 0 && h > 0 ? w * h : 0;
}

/* Liang-Barsky: whether any part of the segment lies in the box. */
static bool crosses(const qb_segment *s, qb_box b) {
    double dx = s->x1 - s->x0, dy = s->y1 - s->y0, from = 0, to = 1;
    const double p[4] = {-dx, dx, -dy, dy}, q[4] = {s->x0 - b.x0, b.x1 - s->x0, s->y0 - b.y0, b.y1 - s->y0};
    for (int i = 0; i < 4; i++) {
        if (p[i] == 0) {
            if (q[i] < 0) return false;
        } else if (p[i] < 0) {
            from = fmax(from, q[i] / p[i]);
        } else {
            to = fmin(to, q[i] / p[i]);
        }
    }
    return from <= to;
}

/* What a label costs that hides a line, a mark or another label, or is hidden: more than any place alone. */
#define VIOLATION 60.0

typedef struct scene {
    const qb_tag *tags;
    int n;
    qb_box area;
    const qb_segment *segments;
    int n_segments;
    const place *places; /* [n][PLACES_MAX] */
    const place *chosen; /* [n] */
} scene;

static qb_box marker_box(const qb_tag *t) {
    double m = marker_of(t);
    return (qb_box){t->x - m, t->y - m, t->x + m, t->y + m};
}

static double between(double low, double value, double high) {
    return fmin(fmax(value, low), high);
}

/* From the mark to the nearest of the box, or from the line to its middle. */
static qb_segment leader_of(const qb_tag *t, qb_box box) {
    double x = t->on_line ? between(t->line_x0, (box.x0 + box.x1) / 2, t->x) : t->x;
    return (qb_segment){x, t->y, between(box.x0, x, box.x1), between(box.y0 + 2, t->y, box.y1 - 2)};
}

static double side_of(const qb_segment *s, double x, double y) {
    return (s->x1 - s->x0) * (y - s->y0) - (s->y1 - s->y0) * (x - s->x0);
}
static bool cross_each_other(const qb_segment *a, const qb_segment *b) {
    return side_of(a, b->x0, b->y0) * side_of(a, b->x1, b->y1) < 0 &&
           side_of(b, a->x0, a->y0) * side_of(b, a->x1, a->y1) < 0;
}

/* What a tag costs at p because of tag j, which stands at its chosen place. */
static double cost_beside(const scene *s, const place *p, int j) {
    const place *its_place = &s->chosen[j];
    const qb_box box = p->box, its = its_place->box;
    double cost = 0, both = overlap(box, its);
    if (both > 0) cost += 150 + both * 0.3;
    if (p->leader && crosses(&p->leading, its)) cost += 90;
    if (its_place->leader && crosses(&its_place->leading, box)) cost += 90;
    if (p->leader && its_place->leader && cross_each_other(&p->leading, &its_place->leading)) cost += 10;
    return cost;
}

/* By itself: the place, what of it lies outside, marks and lines that it hides. */
static double cost_alone(const scene *s, int i, const place *p) {
    const qb_tag *t = &s->tags[i];
    const qb_box box = p->box;
    double cost = p->preference;
    double outside = fmax(0, s->area.x0 - box.x0) + fmax(0, box.x1 - s->area.x1) +
                     fmax(0, s->area.y0 - box.y0) + fmax(0, box.y1 - s->area.y1);
    if (outside > 0) cost += 200 + outside;
    for (int j = 0; j < s->n; j++) {
        const qb_tag *other = &s->tags[j];
        /* A line's name is read as that of the nearest line. */
        if (j != i && t->on_line && !p->leader && other->on_line && fabs(p->y - other->y) < fabs(p->y - t->y))
            cost += 160;
        if (other->on_line) continue;
        const qb_box marker = marker_box(other);
        double hidden = overlap(box, marker);
        if (hidden > 0) cost += 70 + hidden * 0.5;
        bool elsewhere = fabs(other->x - t->x) + fabs(other->y - t->y) > 2 * marker_of(t);
        if (j != i && p->leader && elsewhere && crosses(&p->leading, marker)) cost += 7;
    }
    for (int k = 0; k < s->n_segments; k++)
        if (crosses(&s->segments[k], box)) cost += 160;
    /* A line's own leader should meet no other line on its way. */
    for (int k = 0; k < s->n_segments && t->on_line && p->leader; k++)
        if (cross_each_other(&s->segments[k], &p->leading)) cost += 20;
    return cost;
}

/* From a point to the nearest of a box; 0 inside. */
static double distance(double x, double y, qb_box b) {
    double dx = fmax(0, fmax(b.x0 - x, x - b.x1)), dy = fmax(0, fmax(b.y0 - y, y - b.y1));
    return sqrt(dx * dx + dy * dy);
}

/* A reader takes a label for that of the nearest mark: where another series' is nearer, a line leads home. */
static bool needs_leader(const qb_tag *tags, int n, int i, qb_box box) {
    double own = distance(tags[i].x, tags[i].y, box);
    for (int j = 0; j < n; j++)
        if (!tags[j].on_line && tags[j].group != tags[i].group &&
            distance(tags[j].x, tags[j].y, box) <= own + 2)
            return true;
    return false;
}

/* All places of all tags. */
static void list_places(const scene *s, place *out) {
    for (int i = 0; i < s->n; i++, out += PLACES_MAX)
        for (int k = 0; k < places_of(&s->tags[i]); k++) {
            const qb_tag *t = &s->tags[i];
            place *p = &out[k];
            *p = place_of(t, s->area, k);
            p->box = box_of(t, p);
            p->leader |= !t->on_line && needs_leader(s->tags, s->n, i, p->box);
            p->leading = leader_of(t, p->box);
            p->alone = cost_alone(s, i, p);
        }
}

/* Tags that are not placed yet hide nothing; their points count already. Stops at `enough`. */
static double cost_of(const scene *s, int i, const place *p, const bool *placed, double enough) {
    double cost = p->alone;
    for (int j = 0; j < s->n && cost < enough; j++)
        if (j != i && placed[j]) cost += cost_beside(s, p, j);
    return cost;
}

/* Whether a cheaper place for tag i was found and taken. */
static bool improve(const scene *s, int i, const bool *placed, place *chosen) {
    const place *places = s->places + (size_t)i * PLACES_MAX, *best = NULL;
    double least = cost_of(s, i, chosen, placed, INFINITY) - 1e-9;
    for (int k = 0; k < places_of(&s->tags[i]); k++) {
        double cost = cost_of(s, i, &places[k], placed, least);
        if (cost >= least) continue;
        least = cost;
        best = &places[k];
    }
    if (best) *chosen = *best;
    return best;
}

/* Greedy in the given order, then coordinate descent: each tag in turn takes the cheapest place, given where
   the others stand, until none moves. Returns what all of them cost. */
static double descend(const scene *s, const int *order, place *chosen) {
    bool placed[MAX_TAGS] = {0, 0, 0, 0}, moved = true;
    for (int i = 0; i < s->n; i++) chosen[i] = s->places[(size_t)i * PLACES_MAX];
    for (int round = 0; round < ROUNDS && moved; round++) {
        moved = false;
        for (int k = 0; k < s->n; k++) {
            moved |= improve(s, order[k], placed, &chosen[order[k]]);
            placed[order[k]] = true;
        }
    }
    double cost = 0;
    for (int i = 0; i < s->n; i++) cost += cost_of(s, i, &chosen[i], placed, INFINITY);
    return cost;
}

/* The only tag that stands in the way of p; -1 for none or several. */
static int only_one_beside(const scene *s, int i, const place *p) {
    int found = -1;
    for (int j = 0; j < s->n; j++) {
        if (j == i || cost_beside(s, p, j) < VIOLATION) continue;
        if (found >= 0) return -1;
        found = j;
    }
    return found;
}

/* Tag i hides something or is hidden wherever it goes as the others stand: it takes a place that one other
   is in the way of, when that one finds another and both together are cheaper. */
static bool push_aside(const scene *s, int i, const bool *placed, place *chosen) {
    const place *places = s->places + (size_t)i * PLACES_MAX, was = chosen[i];
    if (cost_of(s, i, &was, placed, INFINITY) - was.preference < VIOLATION) return false;
    for (int k = 0; k < places_of(&s->tags[i]); k++) {
        const place *p = &places[k];
        int j = p->alone - p->preference < VIOLATION ? only_one_beside(s, i, p) : -1;
        if (j < 0) continue;
        const place its = chosen[j];
        double before = cost_of(s, i, &was, placed, INFINITY) + cost_of(s, j, &its, placed, INFINITY);
        chosen[i] = *p;
        improve(s, j, placed, &chosen[j]);
        if (cost_of(s, i, p, placed, INFINITY) + cost_of(s, j, &chosen[j], placed, INFINITY) < before - 1e-9)
            return true;
        chosen[i] = was;
        chosen[j] = its;
    }
    return false;
}

static void push_all_aside(const scene *s, place *chosen) {
    bool placed[MAX_TAGS], moved = true;
    for (int i = 0; i < s->n; i++) placed[i] = true;
    for (int round = 0; round < ROUNDS && moved; round++) {
        moved = false;
        for (int i = 0; i < s->n; i++) moved |= push_aside(s, i, placed, chosen);
        for (int i = 0; i < s->n && moved; i++) improve(s, i, placed, &chosen[i]);
    }
}

static int by_chance(uint64_t *state, int below) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (int)((*state >> 33) % (uint64_t)below);
}

/* Where few tags stand close together the order decides what is found, so several are tried: the given one,
   its reverse, and shuffled ones. */
static void find_places(scene *s, place *chosen) {
    enum { WORK = 8000, MOST = 40 };
    int order[MAX_TAGS], tries = s->n ? WORK / (s->n * s->n) : 0;
    place trial[MAX_TAGS];
    uint64_t state = 1;
    double least = INFINITY;
    for (int i = 0; i < s->n; i++) order[i] = i;
    for (int t = 0; t < (tries < 1 ? 1 : tries < MOST ? tries : MOST); t++) {
        s->chosen = trial;
        double cost = descend(s, order, trial);
        if (cost < least) memcpy(chosen, trial, (size_t)s->n * sizeof *chosen);
        least = fmin(least, cost);
        for (int i = s->n - 1; i > 0; i--) {
            int other = t == 0 ? s->n - 1 - i : by_chance(&state, i + 1), was = order[i];
            if (t == 0 && other >= i) continue;
            order[i] = order[other], order[other] = was;
        }
    }
    s->chosen = chosen;
    push_all_aside(s, chosen);
}

qb_status qb_tags_place(qb_tag *tags, int n, qb_box area, const qb_segment *segments, int n_segments) {
    place chosen[MAX_TAGS], *places;
    if (n > MAX_TAGS)
        n = MAX_TAGS; /* callers keep below; a picture with more labels shows none of them legibly */
    qb_status st = qb_alloc((size_t)n * PLACES_MAX + 1, sizeof *places, &places);
    if (st != QB_OK) return st;
    scene s = {tags, n, area, segments, n_segments, places, chosen};
    list_places(&s, places);
    find_places(&s, chosen);
    qb_free(places);
    for (int i = 0; i < n; i++) {
        tags[i].at_x = chosen[i].x;
        tags[i].at_y = chosen[i].y;
        tags[i].flush_right = chosen[i].flush_right;
        tags[i].leader = chosen[i].leader;
        tags[i].leading = chosen[i].leading;
        tags[i].on_segment = false;
        for (int k = 0; k < n_segments; k++) tags[i].on_segment |= crosses(&segments[k], chosen[i].box);
    }
    return QB_OK;
}
