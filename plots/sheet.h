/* A result document laid out for drawing: its measured cases with labels, colours and shapes that stay the
   same from plot to plot, and the panels that go into pictures of their own. */
#pragma once

#include "base/memory.h"
#include "results/case.h"

typedef struct qb_entry {
    const qb_json *c;
    const char *label, *model; /* clean text */
    int hue;     /* index into the palette of plots/style.gp: 0 the unquantized model, then one a method */
    int variant; /* of the method: 0 filled marks, 1 and above open ones and other dashes */
    const char *series; /* cases that differ in bits only share it and are joined by a line */
    bool unquantized;
    bool projected; /* computed for another device, not measured: drawn hollow, pale and dotted */
} qb_entry;

typedef struct qb_sheet {
    const qb_results *r;
    qb_arena arena;
    qb_entry *entries; /* cases with status ok */
    int n;
} qb_sheet;

qb_status qb_sheet_make(const qb_results *r, qb_sheet *out) QB_NODISCARD;
void qb_sheet_free(qb_sheet *sheet);

/* One picture's share of the document: a model, and for a quality the text and protocol. Strings point into
 * the document. */
typedef struct qb_panel {
    const char *model, *dataset, *protocol; /* dataset and protocol NULL where they do not matter */
    char suffix[96];                        /* of the file name, "" when there is one panel only */
} qb_panel;
/* The panels of a perplexity plot (by_text), or of one that has a picture a model. */
qb_status qb_sheet_panels(qb_sheet *sheet, bool by_text, qb_panel **panels, int *n) QB_NODISCARD;

/* "demo on wikitext2 · gptq-256 · TAIL", "demo · tg128 · AMD EPYC 9B14, 2 threads · TAIL": what the picture
 * holds for; parts may be NULL. */
qb_status qb_sheet_subtitle(qb_sheet *sheet, const qb_panel *panel, const char *protocol, const char *tail,
                            const char **out) QB_NODISCARD;
/* The end of a speed's subtitle: what its bars are, and
   how projected figures are drawn where there are any. */
const char *qb_sheet_speed_tail(const qb_sheet *sheet);
