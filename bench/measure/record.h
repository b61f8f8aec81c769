/* The parts of a result document that the program writes: context, cases, their model and quantization. The
   rules they follow are results/schema.json. */
#pragma once

#include "base/hash.h"
#include "model/model.h"
#include "quant/driver.h"

/* What the device says of itself, and what the machine can do. */
typedef struct qb_device_facts {
    qb_json *describe; /* owned; {threads, simd, blas, ...} */
    qb_ceilings ceilings;
    bool measured;       /* the ceilings are */
    double load_average; /* of the host over the last minute, before the device did anything; NaN: unknown */
} qb_device_facts;
qb_status qb_device_facts_take(qb_device *dev, bool measure, qb_device_facts *out) QB_NODISCARD;
void qb_device_facts_free(qb_device_facts *f);
/* For passing them between processes. */
qb_json *qb_device_facts_json(const qb_device_facts *f);
qb_status qb_device_facts_parse(const qb_json *json, qb_device_facts *out) QB_NODISCARD;

/* The command line that the program was started with; main tells it once. */
void qb_record_command(int argc, char **argv);
/* The same as one would type it, "bench" for the program's path. */
void qb_record_command_text(qb_str *out);
/* An entry of context.devices: {id, backend, the host's facts, the device's, ceilings}. Caller frees. */
qb_json *qb_record_device(const char *id, const char *backend, const qb_device_facts *facts);
/* {program, created, suite, command, seed, devices, data}. Takes `devices` and `data` (both may be NULL).
   suite may be NULL. */
qb_json *qb_record_context(const char *suite, qb_json *devices, qb_json *data);

/* What a model that is measured as it is found is called in ids and lines: the element type that most of its
   weights have ("f16", "bf16", "f32"), or "as-is" where it is quantized. */
void qb_record_found_label(const qb_model *m, char out[96]);
/* {name, path, sha256, architecture, n_params, ...}; sha256 may be NULL. */
qb_json *qb_record_model(const qb_model *m, const char *sha256);
/* How a checkpoint says it was quantized, as a case's config: {method, bits, ...}, method "none" for dense
 * ones. */
qb_json *qb_record_found_method(const qb_model *m);

/* A case with every key of the schema in its order; takes the objects (config, model, quantization may be
 * NULL). */
typedef struct qb_case_record {
    const char *id, *status, *error; /* error NULL when ok */
    const char *device;              /* its id in context.devices, or NULL */
    const char *started;             /* RFC 3339, or NULL */
    int rounds_done, rounds;         /* of the speed rows, of so many; 0 rounds: none */
    double seconds;
    qb_json *display; /* bench/measure/display.h */
    qb_json *config, *model, *quantization, *metrics;
    const qb_json *warnings; /* texts; NULL: none. Copied */
} qb_case_record;
qb_json *qb_record_case(const qb_case_record *r);

/* What qb_quant_report_json gave (in quantize_report.json it is the member "report") -> the case's
   "quantization". Copies. */
qb_json *qb_record_quantization(const char *method, const qb_json *report, bool cached);
