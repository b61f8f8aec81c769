/* Plots of results, drawn by gnuplot from the scripts in share/plots. */
#pragma once

#include "results/rows.h"

/* Whether gnuplot is there; version and path for `bench doctor`, the install command otherwise. */
bool qb_gnuplot_find(char version[64]);

typedef struct qb_plots_request {
    const char *dir, *only; /* only: comma-separated names, or NULL for all */
    int width, height;      /* 0: each picture's own */
    const char *font; /* "Times,9": family and size of the axes' letters; NULL: Arial; without a size 13,
                         and less on small canvases */
    bool untitled;    /* a caption stands elsewhere */
    bool sources;     /* NAME.gp and NAME.csv beside each picture */
} qb_plots_request;

/* Writes DIR/NAME.svg, .png (and .pdf where gnuplot has a PDF terminal) for every plot whose data the
   rows hold. *n_files counts. Files are replaced atomically; plots without data are left out with an info
   line, which is the caller's where there are none at all. QB_ERR_NOT_FOUND, the others being drawn, where
   request->only names one. */
qb_status qb_plots_draw(const qb_rows *rows, const qb_plots_request *request, int *n_files) QB_NODISCARD;
/* Option rows for size, font and title over fields of these names. */
#define QB_PLOT_STYLE_OPTIONS(type)                                                                          \
    {"size",                                                                                                 \
     0,                                                                                                      \
     QB_OPTION_TEXT,                                                                                         \
     offsetof(type, size),                                                                                   \
     NULL,                                                                                                   \
     0,                                                                                                      \
     0,                                                                                                      \
     NULL,                                                                                                   \
     "W,H",                                                                                                  \
     "size of every plot, such as 3.3in,2.5in or 84mm,60mm for a paper's column; each has its own without"}, \
        {"font",                                                                                             \
         0,                                                                                                  \
         QB_OPTION_TEXT,                                                                                     \
         offsetof(type, font),                                                                               \
         NULL,                                                                                               \
         0,                                                                                                  \
         0,                                                                                                  \
         NULL,                                                                                               \
         "FAMILY,SIZE",                                                                                      \
         "letters of the plots, such as Times,8; without Arial,13, smaller where --size is small"},          \
    {                                                                                                        \
        "title", 0, QB_OPTION_BOOL, offsetof(type, title), "true", 0, 0, NULL, NULL,                         \
            "title and subtitle above each plot; without where a caption says it"                            \
    }
/* "3.3in,2.5in", "800,520", "84mm,60mm": width and height of a plot; of a PDF 72 a inch. */
qb_status qb_plots_size(const char *text, int *width, int *height) QB_NODISCARD;
/* Registry for `bench plot --help`. */
typedef struct qb_plot {
    const char *name, *summary;
} qb_plot;
const qb_plot *qb_plot_at(size_t index);
