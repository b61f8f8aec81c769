/* The result document: the only truth. {"schema":"qb.results/2","context":{..},"cases":[..]}; see
   results/schema.json and these rules: snake_case, SI base units in the key, null and a status instead of
   NaN, RFC 3339 UTC times. */
#pragma once

#include "base/json.h"
#include "base/str.h"

#define QB_RESULTS_SCHEMA "qb.results/2"

typedef struct qb_results {
    char *path;     /* where it is rewritten; NULL: only in memory */
    qb_json *doc;   /* owned */
    bool unwritten; /* the last writing failed: the file holds less than doc */
} qb_results;

/* A new document with the given context object (moved in). Fails when `path` cannot be written (tried now).
 */
qb_status qb_results_create(const char *path, qb_json *context, qb_results *out) QB_NODISCARD;
/* Reads and validates a document (structure, types, enums, finite numbers); the error names the JSON path.
   Documents of qb.results/1 are lifted to today's schema (results/lift.h). */
qb_status qb_results_open(const char *path, qb_results *out) QB_NODISCARD;
qb_status qb_results_parse(const char *text, size_t n, const char *name, qb_results *out) QB_NODISCARD;
void qb_results_close(qb_results *r);

/* Adds a case object (moved in), or replaces the one with the same id, and rewrites the file atomically. When
   only the writing fails, `unwritten` is set and the document holds the case all the same. */
qb_status qb_results_put_case(qb_results *r, qb_json *case_object) QB_NODISCARD;
const qb_json *qb_results_case(const qb_results *r, const char *id); /* NULL when absent */
qb_status qb_results_write(qb_results *r) QB_NODISCARD;

/* How many rounds of its speed rows a case had, of how many; false where it has none, or all at once. */
bool qb_results_rounds(const qb_json *case_object, int *done, int *of);
/* Cases that the run planned (context.planned) and that the document lacks, or whose rounds it lacks: it
   ended before them. */
int64_t qb_results_unmeasured(const qb_results *r);

/* Checks a document against the rules that results/schema.json states. */
qb_status qb_results_validate(const qb_json *doc, const char *name) QB_NODISCARD;

/* A case's metric row by name (and protocol, dataset when not NULL); NULL when absent. */
const qb_json *qb_results_metric(const qb_json *case_object, const char *name, const char *protocol,
                                 const char *dataset);
