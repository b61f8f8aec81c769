/* The devices that measured: context.devices of a document, each with its host's facts and its ceilings. A
   case names its own by id. */
#pragma once

#include "results/results.h"

/* The entry with that id; NULL when there is none. */
const qb_json *qb_results_device(const qb_results *r, const char *id);
/* The device that measured the case, or from whose rows a projected case was computed; NULL when unknown. */
const qb_json *qb_case_device(const qb_results *r, const qb_json *case_object);

/* The first of the facts that speed and memory depend on in which two devices differ; NULL: they are the
   same. A fact that one of them does not state tells nothing. What decides for every reader of results:
   resuming, comparing, drawing. */
const char *qb_device_difference(const qb_json *a, const qb_json *b);

/* The same facts as text: devices of equal text are the same. */
void qb_device_identity(const qb_json *device, qb_str *out);

/* "AMD EPYC 9B14, 2 threads, avx512", with a GPU's name before its host. Clean text. */
void qb_device_describe(const qb_json *device, qb_str *out);
