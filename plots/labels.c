#include "plots/labels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { DIRECTIONS = 8, RINGS = 12, LINE_PLACES = 24, ROUNDS = 8, MARKER_PX = 5 };

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
    double preference; /* cost of the place itself */
} place;

/* Best first: to the right, then above and below it, the left side last, since readers expect a label behind
 * its point. */
static const struct {
    double dx, dy, cost;
} directions[DIRECTIONS] = {{1, 0, 0},    {0.7, 1, 1},     {0.7, -1, 1.5}, {-1, 0, 3},
                            {-0.7, 1, 3}, {-0.7, -1, 3.5}, {0, 1, 2},      {0, -1, 2.5}};

static place place_of(const qb_tag *t, int k) {
    if (t->on_line) {
        /* Along the line from right to left, each above and then below it. */
        double width = qb_text_width(t->text, t->font_px),
               step = (t->x - t->line_x0 - width - 4) / (LINE_PLACES / 2 - 1.0);
        double side = k % 2 ? -1 : 1;
        return (place){t->x - 2 - step * (k / 2), t->y + side * (t->font_px * 0.5 + 3), true, false,
                       k / 2 * 0.8 + (k % 2) * 1.5};
    }
    int direction = k % DIRECTIONS, ring = k / DIRECTIONS;
    static const double distances[RINGS] = {
        MARKER_PX + 4,   MARKER_PX + 11,  MARKER_PX + 22,  MARKER_PX + 36,  MARKER_PX + 54,  MARKER_PX + 76,
        MARKER_PX + 100, MARKER_PX + 128, MARKER_PX + 160, MARKER_PX + 196, MARKER_PX + 236, MARKER_PX + 280};
    double dx = directions[direction].dx, dy = directions[direction].dy, d = distances[ring];
    double width = qb_text_width(t->text, t->font_px);
    place p = {t->x + dx * d, t->y + dy * d, dx < 0, ring >= 2, directions[direction].cost + ring * 4.0};
    if (dx == 0) { /* straight above or below: centred */
        p.x -= width / 2;
        p.y += dy * t->font_px * 0.35;
    }
    return p;
}

static int places_of(const qb_tag *t) {
    return t->on_line ? LINE_PLACES : DIRECTIONS * RINGS;
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

typedef struct scene {
    const qb_tag *tags;
    const place *chosen;
    int n;
    qb_box area;
    const qb_segment *segments;
    int n_segments;
} scene;

/* Tags from `placed` on have no place yet and hide nothing; their points count already. */
static double cost_of(const scene *s, int i, const place *p, int placed) {
    const qb_tag *t = &s->tags[i];
    qb_box box = box_of(t, p);
    double cost = p->preference;
    double outside = fmax(0, s->area.x0 - box.x0) + fmax(0, box.x1 - s->area.x1) +
                     fmax(0, s->area.y0 - box.y0) + fmax(0, box.y1 - s->area.y1);
    if (outside > 0) cost += 200 + outside;
    qb_segment leader = {t->x, t->y, p->x, p->y};
    for (int j = 0; j < s->n; j++) {
        const qb_tag *other = &s->tags[j];
        if (!other->on_line) {
            qb_box marker = {other->x - MARKER_PX, other->y - MARKER_PX, other->x + MARKER_PX,
                             other->y + MARKER_PX};
            double hidden = overlap(box, marker);
            if (hidden > 0) cost += 70 + hidden * 0.5;
        }
        if (j == i) continue;
        if (p->leader && !other->on_line && fabs(other->x - t->x) + fabs(other->y - t->y) > 2 * MARKER_PX) {
            qb_box marker = {other->x - MARKER_PX, other->y - MARKER_PX, other->x + MARKER_PX,
                             other->y + MARKER_PX};
            if (crosses(&leader, marker)) cost += 7;
        }
        if (j >= placed) continue;
        qb_box its = box_of(other, &s->chosen[j]);
        double both = overlap(box, its);
        if (both > 0) cost += 150 + both * 0.3;
        if (p->leader && crosses(&leader, its)) cost += 40;
        if (s->chosen[j].leader) {
            qb_segment its_leader = {other->x, other->y, s->chosen[j].x, s->chosen[j].y};
            if (crosses(&its_leader, box)) cost += 40;
        }
    }
    for (int k = 0; k < s->n_segments; k++)
        if (crosses(&s->segments[k], box)) cost += 60;
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

/* Whether a cheaper place for tag i was found and taken. */
static bool improve(const scene *s, int i, int placed, place *chosen) {
    place best = *chosen;
    double least = cost_of(s, i, &best, placed) - 1e-9;
    bool moved = false;
    for (int k = 0; k < places_of(&s->tags[i]); k++) {
        place p = place_of(&s->tags[i], k);
        double cost = cost_of(s, i, &p, placed);
        if (cost >= least) continue;
        least = cost;
        best = p;
        moved = true;
    }
    *chosen = best;
    return moved;
}

/* Greedy in the given order, then coordinate descent: each tag in turn takes the cheapest place, given where
   the others stand, until none moves. */
void qb_tags_place(qb_tag *tags, int n, qb_box area, const qb_segment *segments, int n_segments) {
    enum { MAX_TAGS = 256 };
    place chosen[MAX_TAGS];
    if (n > MAX_TAGS)
        n = MAX_TAGS; /* callers keep below; a picture with more labels shows none of them legibly */
    for (int i = 0; i < n; i++) chosen[i] = place_of(&tags[i], 0);
    const scene s = {tags, chosen, n, area, segments, n_segments};
    bool moved = true;
    for (int round = 0; round < ROUNDS && moved; round++) {
        moved = false;
        for (int i = 0; i < n; i++) moved |= improve(&s, i, round == 0 ? i : n, &chosen[i]);
    }
    for (int i = 0; i < n; i++) {
        tags[i].at_x = chosen[i].x;
        tags[i].at_y = chosen[i].y;
        tags[i].flush_right = chosen[i].flush_right;
        qb_box box = box_of(&tags[i], &chosen[i]);
        tags[i].leader = chosen[i].leader || (!tags[i].on_line && needs_leader(tags, n, i, box));
        tags[i].leader_x = fmin(fmax(tags[i].x, box.x0), box.x1);
        tags[i].leader_y = fmin(fmax(tags[i].y, box.y0 + 2), box.y1 - 2);
        tags[i].on_segment = false;
        for (int k = 0; k < n_segments; k++) tags[i].on_segment |= crosses(&segments[k], box);
    }
}
