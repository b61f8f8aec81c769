/* What tables, comparisons and plots read out of a case: its figures under one name each, and a short label
 * for people. */
#pragma once

#include "base/memory.h"
#include "results/rows.h"

/* Figures; NaN when the document does not hold them. A metric row that is not ok counts as absent. */
double qb_case_metric(const qb_json *case_object, const char *name, const char *protocol,
                      const char *dataset);
double
qb_case_bits_per_weight(const qb_json *case_object); /* of the weights a method may change, scales included */
double qb_case_checkpoint_bytes(const qb_json *case_object);
double qb_case_peak_rss_bytes(const qb_json *case_object);   /* of the measuring process */
double qb_case_quantize_seconds(const qb_json *case_object); /* NaN when nothing was quantized */

double qb_case_device_bytes(const qb_json *case_object); /* device memory at its peak, or as projected */

/* The device a projected case was computed for (its name in context.projection); NULL for a measured case. */
const char *qb_case_projected_device(const qb_json *case_object);
bool qb_metric_is_projected(const qb_json *metric);
bool qb_case_is_ok(const qb_json *case_object);
bool qb_metric_is_ok(const qb_json *metric); /* status ok and a value there */
double qb_metric_spread(const qb_json *metric);
/* Whether the row stayed noisy: it says so itself, or, where it says nothing (documents of earlier versions),
   by its spread. A noisy row never decides anything. */
bool qb_metric_is_noisy(const qb_json *metric);
/* Share of its text that a perplexity row covers: below 1 where windows were left out, 1 else (a remainder
   shorter than a window is nobody's). */
double qb_perplexity_part(const qb_json *metric);
/* The model as it was, for the line that the others are measured against. */
bool qb_case_is_unquantized(const qb_json *case_object);
const char *qb_case_model(const qb_json *case_object); /* model name, "" when unknown */

/* "GPTQ g128": method and variant without the bits; what a line through several bit widths is called. */
void qb_case_series(const qb_json *case_object, qb_str *out);
/* One label a case, in document order: "GPTQ 4b g128", "NF4 DQ", "F16"; where two cases of one model would
   share a label, the config values that tell them apart follow. Clean UTF-8 (results/text.h); lives in the
   arena. */
qb_status qb_case_labels(const qb_results *r, qb_arena *arena, const char ***labels,
                         int64_t *count) QB_NODISCARD;

/* The protocol that one column or plot shows for metric `name`: `preferred` when any ok row has it, else the
   document's first ok row's. NULL when there is no ok row. Points into the document; "" stands for a row
   without protocol. */
const char *qb_results_protocol(const qb_results *r, const char *name, const char *preferred);
/* The same for speeds, with the length that stands for the metric wherever one figure must. */
const char *qb_results_headline(const qb_results *r, const char *name);
