/* Placing labels beside their points so that they hide neither each other nor the data. Everything in canvas
   pixels, origin at the lower left. */
#pragma once

#include "base/status.h"

#include <stdbool.h>

typedef struct qb_box {
    double x0, y0, x1, y1;
} qb_box;

typedef struct qb_segment {
    double x0, y0, x1, y1;
} qb_segment;

typedef struct qb_tag {
    const char *text;
    double x, y;    /* what it names: a point, or the right end of a horizontal line */
    bool on_line;   /* it names a line: it may stand anywhere along it, above or below */
    double line_x0; /* left end of that line */
    int group;      /* marks of one series; 0: of none */
    double font_px;
    /* set by qb_tags_place */
    double at_x, at_y; /* middle of the text's left edge, or of its right edge when flush_right */
    bool flush_right;
    bool leader;        /* far enough away, or near enough to another's mark, to need a line */
    qb_segment leading; /* that line, from what is named to the text */
    bool on_segment;    /* no place was clear of all segments */
} qb_tag;

/* Width of the text in a sans-serif face such as Arial; an estimate within a few per cent. */
double qb_text_width(const char *text, double font_px);

/* Chooses a place for every tag inside `area`. The points named by tags, and `segments`, are kept clear where
   that is possible. Deterministic. Work: tags x tags x about 300 places x a few rounds, for few tags several
   times over. Fails for want of memory only. */
qb_status qb_tags_place(qb_tag *tags, int n, qb_box area, const qb_segment *segments,
                        int n_segments) QB_NODISCARD;
