/* Running gnuplot: commands go in through a file, pictures come out in a folder. No shell, and no path of the
   user's is ever part of a command: the child works inside the folder and writes names of ours. */
#pragma once

#include "base/str.h"

typedef struct qb_canvas {
    int width, height; /* of the SVG in px; the PNG has twice as many, the PDF as many points */
} qb_canvas;

enum { QB_CANVAS_FONT_PX = 13 };

/* The names of the terminals that this gnuplot has, each between
   blanks. QB_ERR_NOT_FOUND where there is no gnuplot. */
qb_status qb_gnuplot_terminals(qb_str *out) QB_NODISCARD;

/* Draws `script` once a format into DIR/NAME.svg, .png and .pdf, as far as `terminals` has them; each file
   appears whole or not at all. `name` holds letters, digits, '-', '_' only. *n_files is increased by the
   files written. */
qb_status qb_gnuplot_draw(const char *terminals, const char *dir, const char *name, qb_canvas canvas,
                          const char *script, int *n_files) QB_NODISCARD;

/* Appends `text` as a gnuplot string constant: single-quoted,
   where nothing is interpreted but the quote itself. */
void qb_gnuplot_quote(const char *text, qb_str *out);
