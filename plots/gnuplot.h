/* Running gnuplot: commands go in through a file, pictures come out in a folder. No shell, and no path of the
   user's is ever part of a command: the child works inside the folder and writes names of ours. */
#pragma once

#include "base/str.h"

/* Zero style: sans-serif at its usual size, with titles. */
typedef struct qb_canvas {
    int width, height;  /* of the SVG in px; the PNG has twice as many, the PDF as many points */
    double scale;       /* of letters, marks' distances and margins; 0: 1 */
    const char *family; /* of letters; NULL: Arial */
    bool untitled;
} qb_canvas;

enum { QB_CANVAS_FONT_PX = 13 };
double qb_canvas_scale(const qb_canvas *canvas); /* 1 for 0 */

/* The names of the terminals that this gnuplot has, each between
   blanks. QB_ERR_NOT_FOUND where there is no gnuplot. */
qb_status qb_gnuplot_terminals(qb_str *out) QB_NODISCARD;

/* Draws `script` once a format into DIR/NAME.svg, .png and .pdf, as far as `terminals` has them; each file
   appears whole or not at all. `name` holds letters, digits, '-', '_' only. *n_files is increased by the
   files written. */
qb_status qb_gnuplot_draw(const char *terminals, const char *dir, const char *name, qb_canvas canvas,
                          const char *script, int *n_files) QB_NODISCARD;
/* Writes DIR/NAME.gp, which `gnuplot NAME.gp` makes NAME.svg of, and DIR/NAME.csv with what is drawn. */
qb_status qb_gnuplot_sources(const char *dir, const char *name, qb_canvas canvas, const char *script,
                             const char *csv, int *n_files) QB_NODISCARD;

/* Appends `text` as a gnuplot string constant: single-quoted,
   where nothing is interpreted but the quote itself. */
void qb_gnuplot_quote(const char *text, qb_str *out);
