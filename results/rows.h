/* What a result document says, read once into typed rows: whoever shows, draws, compares or projects results
   works on these and never on JSON keys. Several documents make one set. Absent figures are NaN, absent words
   "" where a reader would print them and NULL where it has to ask. */
#pragma once

#include "base/ceilings.h"
#include "base/memory.h"
#include "base/metric.h"
#include "results/results.h"

typedef enum { QB_ROW_OK, QB_ROW_SKIPPED, QB_ROW_FAILED } qb_row_status;

typedef struct qb_row_document {
    const qb_results *results;
    const char *name; /* short and unlike the others': what tells its cases from theirs */
    const char *created, *suite, *version, *git; /* "" unknown */
    const char *const *command;
    int n_command;
    bool projection;            /* made by bench project */
    const char *const *planned; /* ids that the run set out to measure */
    int n_planned;
    int64_t unmeasured; /* of those, the ones that it lacks */
} qb_row_document;

typedef struct qb_row_device {
    const qb_row_document *document;
    const char *id, *description; /* "AMD EPYC 9B14, 2 threads, avx512"; clean */
    const char *cpu, *gpu, *simd, *blas, *os, *kernel, *governor;
    double cores, threads, memory_bytes, device_memory_bytes, load_average;
    qb_ceilings ceilings, ceilings_after; /* before the run and behind it; NaN where not measured */
    const qb_json *json;                  /* for results/device.h and results/comparable.h */
} qb_row_device;

/* A quantized matrix. */
typedef struct qb_row_module {
    const char *name;
    int layer; /* -1: of none */
    double rows, cols, relative_error;
    bool of_output;       /* the error is of the output (with the Hessian), else of the weights */
    const char *fallback; /* the method that took the place of the asked one; NULL */
} qb_row_module;

typedef struct qb_row qb_row;

typedef struct qb_row_case {
    const qb_row_document *document;
    const qb_row_device *device; /* that measured it; NULL: unknown */
    int index;                   /* in the set */
    const char *id, *error;
    qb_row_status status;
    const char *model;        /* name; "" unknown */
    const char *of;           /* the unquantized model that it goes back to: what competes in one picture */
    const char *method;       /* "gptq"; "" unknown */
    const char *label;        /* short, clean, one of its kind in the set: "GPTQ 4b g128" */
    const char *name;         /* the same, one of its kind in its document only */
    const char *series;       /* the label without the bits: what a line through several widths is called */
    const char *layout;       /* of a checkpoint that came quantized; NULL else */
    const char *projected_on; /* the device of a projection; NULL: measured */
    bool unquantized;         /* the model as it was: what the others are measured against */
    bool published;           /* came quantized */
    bool cached;              /* its checkpoint is of an earlier run */
    double bits;              /* as configured */
    double group_size, samples, seqlen; /* of the method; NaN: it has none */
    double bits_per_weight, checkpoint_bytes, n_params, n_layers, peak_rss_bytes, device_bytes;
    double quantize_seconds, quantize_peak_bytes; /* NaN: nothing was quantized */
    double seconds;                               /* that the case took */
    const char *model_sha256, *architecture, *started, *backend, *special_tokens;
    const char *const *warnings;
    int n_warnings;
    const qb_row_module *modules;
    int n_modules;
    const qb_row *rows; /* its metrics, in the document's order */
    int n_rows;
    const qb_json *json; /* for the lists of results/comparable.h */
} qb_row_case;

/* Sums over windows that pair two rows (results/paired.h). */
typedef struct qb_windowed {
    const double *nll_nats, *tokens;
    int64_t n; /* sums; 0: none were kept */
    double windows_per_sum;
} qb_windowed;

struct qb_row {
    const qb_row_case *of;
    const qb_metric *metric;                      /* NULL: not in this program's registry */
    const char *name, *unit, *protocol, *dataset; /* "" for none */
    const char *error;
    bool higher_is_better, projected;
    qb_row_status status; /* QB_ROW_OK also means: a value or a hash is there */
    double value, stderr_value;
    double mean, sd, min, max;
    int64_t n; /* scored tokens, or samples */
    const double *samples;
    int n_samples;
    const double *rounds;                       /* medians of the rounds, each a process of its own */
    int n_rounds;                               /* 0: all samples are of one process */
    double median_low, median_high, half_width; /* interval of the median; half_width relative */
    bool noise_told, noisy;                     /* the row says whether it stayed noisy; that it did */
    const char *noise;                          /* why, or NULL */
    qb_windowed windowed;
    double windows, window_tokens, scored_tokens, total_tokens;
    bool few_windows; /* they are too few for the standard error that the document has; none is given */
    double part;      /* of its text, 1 whole */
    double floor;     /* that no model can pass */
    double special_tokens_found;
    double bytes_per_s, bytes_per_token, flop_per_s, ceiling, share_of_ceiling;
    const char *share_reason, *activations, *special_tokens, *sha256, *data_sha256,
        *base;           /* NULL: not said */
    const qb_json *json; /* for the lists of results/comparable.h, and for what one reader alone knows */
};

typedef struct qb_rows {
    qb_arena arena;
    qb_row_document *documents;
    int n_documents;
    qb_row_device *devices;
    int n_devices;
    qb_row_case *cases;
    int n_cases;
    qb_row *rows;
    int n_rows;
} qb_rows;

/* Reads n documents, which must outlive the set; cases in the documents' order. Free in any case. */
qb_status qb_rows_read(const qb_results *const *documents, int n, qb_rows *out) QB_NODISCARD;
void qb_rows_free(qb_rows *rows);

/* A case's row by name (and protocol, dataset when not NULL); NULL when absent. `_ok`: one that has a value.
 */
const qb_row *qb_rows_find(const qb_row_case *c, const char *name, const char *protocol, const char *dataset);
const qb_row *qb_rows_find_ok(const qb_row_case *c, const char *name, const char *protocol,
                              const char *dataset);
/* Its value; NaN. */
double qb_rows_value(const qb_row_case *c, const char *name);
/* NULL when the document has no case of that id. */
const qb_row_case *qb_rows_case(const qb_rows *rows, const qb_row_document *document, const char *id);

/* Standard deviation of a row's samples over its value; NaN where it has none. */
double qb_row_spread(const qb_row *row);
/* Whether a row stayed noisy, so that it decides nothing: it says so itself (docs/measuring.md); one that
   says nothing, of an earlier version, is when its spread passes QB_NOISY. */
#define QB_NOISY 0.10
bool qb_row_is_noisy(const qb_row *row);
/* By its metric; a metric that is not known by its unit. */
qb_judge qb_row_judge(const qb_row *row);

/* The protocol that one column or plot shows for a metric: `preferred` when any ok row has it, else the first
   ok row's. NULL when there is none. */
const char *qb_rows_protocol(const qb_rows *rows, const char *name, const char *preferred);
/* The same for speeds, with the length that stands for the metric wherever one figure must. */
const char *qb_rows_headline(const qb_rows *rows, const char *name);
