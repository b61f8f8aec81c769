/* Methods choose codes. One row in methods.def, one const struct, one file; the format they produce lives in
 * kernels/. */
#pragma once

#include "base/option.h"
#include "base/str.h"
#include "base/threads.h"
#include "kernels/backend.h"
#include "kernels/qweight.h"

/* Options of every method; each method's rows (qb_quant_method.options) name those it takes, with its own
 * defaults. */
typedef struct qb_quant_config {
    int64_t bits;       /* 2, 3, 4, 8 */
    int64_t group_size; /* -1: one group a row */
    bool symmetric;
    bool ragged_groups; /* allow a short last group when group_size does not divide in_features */
    bool mse;           /* grid search over shrunken ranges, exponent 2.4 (docs/methods.md) */
    bool act_order, static_groups, true_sequential;
    double damp_percent;   /* fraction of mean(diag H), e.g. 0.01 */
    int64_t block_columns; /* lazy-update block, 128 */
    int64_t block_size;    /* codebook block, 64 */
    bool double_quant;
    /* calibration: which windows bench asks datasets/ for */
    const char *calibration;
    const char *special_tokens; /* in its text: "file", "text", "legacy" */
    int64_t samples, seqlen, seed;
    int64_t hessian_room_bytes; /* no option: for tests, quant/passes.h; 0: by the memory there is */
} qb_quant_config;

/* What happened to one module; goes into the result. */
typedef struct qb_module_report {
    char module[128];
    int64_t rows, cols;
    double bits;  /* stored, as qb_qweight_bits_per_weight counts them */
    double error; /* sum over rows of the output error: (w-q) H (w-q)^T with H = 2/n sum x x^T; sum of squares
                     of (w-q) when there is no Hessian; see error_kind */
    double relative_error;  /* error over the same form of w */
    const char *error_kind; /* "hessian" or "weight" */
    double damp_percent;    /* finally used */
    int64_t dead_columns, retries;
    int64_t calibration_tokens; /* rows that the Hessian is of: of an expert those routed to it; -1: no
                                   calibration */
    const char *fallback;       /* NULL, or "rtn" with the reason */
    char reason[160];
    double seconds;
} qb_module_report;

/* One Hessian and what is derived from it, shared by the linears that read the same input. */
typedef struct qb_hessian {
    int64_t n;         /* in_features */
    int64_t n_samples; /* sequences accumulated */
    float *h; /* [n, n] full symmetric, (2 / n_samples) sum x^T x, dead columns set to 1 on the diagonal */
    float *u; /* [n, n] upper factor, H^-1 = U^T U of the damped, permuted H; NULL until qb_hessian_factor */
    int32_t *perm; /* act-order: perm[i] is the column that stands at place i; NULL without */
    uint8_t *dead; /* [n] 1 where diag(H) was 0 */
    int64_t n_dead, retries;
    double damp_percent; /* finally used */
    bool failed; /* no damping up to the limit made it positive definite: the methods fall back to RTN */
    char reason[160];
} qb_hessian;

/* A linear of a site. */
typedef struct qb_site_linear {
    const char *module;
    const qb_weight *from; /* dense (F32, F16 or BF16), in host memory */
} qb_site_linear;

/* Linears that read one input, and what is known of that input. A method that needs nothing gets them one by
   one. */
typedef struct qb_site_job {
    const qb_site_linear *linears;
    int64_t n;
    /* With QB_NEEDS_HESSIAN one of these two: the sum on the device, which the method may free, or the
       Hessian in host memory, which it may factor. */
    struct qb_hessian_sum *sum;
    qb_hessian *hessian;
    int64_t tokens; /* calibration rows that these statistics are of */
    bool expert;    /* only the rows that a router gave: there may be few or none */
    const qb_quant_config *config;
    qb_device *dev; /* may choose the codes itself, where its backend can */
    qb_threads *threads;
    float *scratch;  /* room for the largest linear of the run */
    bool *host_only; /* kept over the sites of a run: the device has no kernel for these options, which
                        was said once */
    /* Called once for each linear, in order, with its codes and what happened to it; q is taken over in any
       case. */
    qb_status (*take)(void *ctx, int64_t linear, qb_qweight *q, qb_module_report *report);
    void *ctx;
} qb_site_job;

/* An expert that fewer calibration tokens reached is rounded to nearest: its Hessian knows that many
   directions at most of the thousands that its inputs have, so compensation would fit noise, and of columns
   that no token reached nothing is known at all (docs/methods.md). */
enum { QB_EXPERT_TOKENS_MIN = 128 };

/* What a method asks of a run, as bits. */
enum { QB_NEEDS_HESSIAN = 1 };

typedef struct qb_quant_method {
    const char *name, *summary, *source;
    unsigned needs; /* anything: calibration windows pass through the model */
    bool by_rows;   /* the threads widen a row (with `mse` 64) of a weight at a time, not the whole */
    const qb_option *options; /* rows over qb_quant_config, NULL-name terminated */
    /* Fills out's shape and options without arrays, for plans: what would come of a [rows, cols] weight.
       Checks the options against the shape (bits, group size that does not divide, ...). */
    qb_status (*describe)(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                          const qb_quant_config *config, qb_qweight *out);
    /* Quantizes all linears of a site; the method decides whether the device or the host computes. NaN or
       infinity in a weight is QB_ERR_NUMERIC naming module, row and column. */
    qb_status (*site)(const qb_site_job *job);
    /* Appends what distinguishes the codes that come of these options, behind the method's name:
       "-4b-g128-act". */
    void (*label)(const qb_quant_config *config, qb_str *out);
} qb_quant_method;

/* "gptq-4b-g128-act", "nf4-dq": the method's name and its label. */
void qb_quant_label(const qb_quant_method *method, const qb_quant_config *config, qb_str *out);
/* The same for tables and plots: "GPTQ 4b g128 act", "NF4 DQ"; without the bits it names what a line through
   several widths is called: "GPTQ g128 act". */
void qb_quant_title(const qb_quant_method *method, const qb_quant_config *config, bool with_bits,
                    qb_str *out);

const qb_quant_method *qb_quant_method_find(const char *name);
const qb_quant_method *qb_quant_method_at(size_t index);
