/* A set of rows laid out for drawing: its measured cases with labels, colours and shapes that stay the
   same from plot to plot, and the panels that go into pictures of their own. */
#pragma once

#include "base/memory.h"
#include "results/rows.h"

typedef struct qb_entry {
    const qb_row_case *c;
    const char *label; /* clean text */
    int hue;     /* index into the palette of plots/style.gp: 0 the unquantized model, then one a method */
    int variant; /* of the method: 0 filled marks, 1 and above open ones and other dashes */
    const char *series; /* cases that differ in bits only share it and are joined by a line */
    bool unquantized;
    bool projected; /* computed for another device, not measured: drawn hollow, pale and dotted */
} qb_entry;

typedef struct qb_sheet {
    const qb_rows *rows;
    qb_arena arena;
    qb_entry *entries; /* cases with status ok */
    int n;
} qb_sheet;

/* The rows must outlive the sheet. */
qb_status qb_sheet_make(const qb_rows *rows, qb_sheet *out) QB_NODISCARD;
void qb_sheet_free(qb_sheet *sheet);

typedef enum {
    QB_PANEL_MODEL,  /* a picture a model */
    QB_PANEL_TEXT,   /* and text and protocol: a quality */
    QB_PANEL_DEVICE, /* and device: a speed or memory, which are nothing without it */
} qb_panel_kind;

/* One picture's share of the set. Strings point into the documents. */
typedef struct qb_panel {
    const char *model;              /* the unquantized one that all its cases go back to (qb_row_case.of) */
    const char *dataset, *protocol; /* NULL where they do not matter */
    const qb_row_device *device;    /* NULL: unknown, or it does not matter */
    bool by_device;
    char suffix[96]; /* of the file name, "" when there is one panel only */
} qb_panel;
qb_status qb_sheet_panels(qb_sheet *sheet, qb_panel_kind kind, qb_panel **panels, int *n) QB_NODISCARD;
/* Whether the entry belongs into the picture, as far as model and device say. */
bool qb_panel_has(const qb_panel *panel, const qb_entry *entry);

/* "demo on wikitext2 · gptq-256 · TAIL", "demo · tg128 · AMD EPYC 9B14, 2 threads · TAIL": what the picture
 * holds for; parts may be NULL. */
qb_status qb_sheet_subtitle(qb_sheet *sheet, const qb_panel *panel, const char *protocol, const char *tail,
                            const char **out) QB_NODISCARD;
/* The end of a speed's subtitle: what its bars are, how projected figures are drawn where there are any, and
   noisy ones: `noisy` says what their marks are ("crossed"), NULL where the picture has none. */
qb_status qb_sheet_speed_tail(qb_sheet *sheet, const char *noisy, const char **out) QB_NODISCARD;
