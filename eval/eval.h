/* Measurements of a model. Each metric fills typed rows; bench/ puts them into the result document. */
#pragma once

#include "base/metric.h"
#include "base/option.h"
#include "model/decoder.h"

/* One measured value, as a row of `metrics` in the result. */
enum { QB_SAMPLES_MAX = 256 };
typedef struct qb_measure {
    char name[48]; /* "perplexity", "prefill", "decode", "time_to_first_token", "latency", "peak_rss" ... */
    char unit[16]; /* "1", "tok/s", "s", "B", "bit" */
    char protocol[64]; /* "gptq-2048", "pp512", "tg128@d0 b1" */
    char dataset[64];
    bool higher_is_better;
    double value;        /* the headline: median of the samples for speeds */
    double stderr_value; /* standard error of value; NaN when it has none */
    int64_t n;           /* scored tokens, or samples */
    int n_samples;
    double samples[QB_SAMPLES_MAX];
    qb_json *extra;    /* owned; further keys (mean, sd, bytes_per_s, share_of_ceiling, windows, sha256...) */
    char skipped[200]; /* reason, when the row could not be measured */
} qb_measure;
typedef struct qb_measures {
    qb_measure *rows;
    size_t count, capacity;
} qb_measures;
/* A row of metrics.def with its unit and direction, no value yet (NaN), an empty `extra`. */
qb_status qb_measure_init(qb_measure *row, const char *metric) QB_NODISCARD;
void qb_measure_free(qb_measure *row);
qb_status qb_measures_add(qb_measures *m, const char *metric, qb_measure **row) QB_NODISCARD; /* at the end */
void qb_measures_free(qb_measures *m);

/* Perplexity of the windows. With resident weights it goes batch by batch; otherwise layer-major: the
   residual streams of as many windows as memory_bytes allows are held, and each block is loaded once for all
   of them. memory_bytes 0: 80 % of what the machine has free. The plan says whether the weights fit, so that
   the caller can load the model resident. */
typedef struct qb_perplexity_plan {
    bool layer_major;
    int64_t windows_per_batch, windows_per_pass, passes, peak_bytes;
    int64_t head_rows; /* whose logits are held at once */
    double flops;
} qb_perplexity_plan;
qb_status qb_perplexity_plan_make(const qb_model *m, const qb_windows *w, int64_t memory_bytes,
                                  qb_perplexity_plan *out) QB_NODISCARD;
qb_status qb_perplexity(qb_model *m, qb_device *dev, const qb_windows *w, int64_t memory_bytes,
                        qb_measure *out) QB_NODISCARD;

/* Speed. Inside the timed window: embedding, blocks, head, argmax. Outside: tokenizing, loading, warm-up. */
typedef struct qb_speed_config {
    qb_int_list prefill, decode, depth, batch; /* tokens; 0 entries are skipped */
    double precision, budget_s, sample_ms;     /* sampling.h; precision in per cent */
    int64_t rounds;                            /* of a run over several cases */
    int64_t repeat, warmup;                    /* repeat 0: as many as precision and budget ask for */
    const char *kv;                            /* "f16" or "f32" */
    const char *prompts;                       /* file of prompts, a blank line between, or NULL */
    int64_t prompt_tokens;                     /* tokens generated after each prompt */
    const char *activations;                   /* QB_ACTIVATIONS_CHOICES (eval/activations.h); NULL: f32 */
} qb_speed_config;
extern const qb_option qb_speed_options[];
/* The longest context that prefill and decode rows need; prompts are not counted. */
int64_t qb_speed_positions(const qb_speed_config *config);
/* One of several passes over the same rows. */
typedef struct qb_speed_round {
    int index, count;       /* this one, of so many; {0, 1}: all at once */
    const qb_json *earlier; /* array of the metric rows that earlier rounds made, or NULL */
} qb_speed_round;
/* prompts: token windows of whole prompts, or NULL. ceilings: measured elsewhere (measuring them takes more
   than a gigabyte, which would stand in this process's peak), or NULL to ask the device. The model must be
   loaded resident. round: NULL for all at once; rows hold what earlier rounds sampled too. */
qb_status qb_speed(qb_model *m, qb_device *dev, const qb_speed_config *config, const qb_windows *prompts,
                   const qb_ceilings *ceilings, const qb_speed_round *round, qb_measures *out) QB_NODISCARD;

/* Memory rows: checkpoint bytes, bits per weight, resident weights, KV bytes a token, peak RSS of this
 * process. */
qb_status qb_memory_measures(qb_model *m, qb_device *dev, qb_measures *out) QB_NODISCARD;
/* SHA-256 of the float32 logits of fixed tokens: row logits_sha256 with the hash in extra.sha256. Resident
 * model. */
qb_status qb_determinism(qb_model *m, qb_device *dev, qb_measures *out) QB_NODISCARD;
int64_t qb_peak_rss_bytes(void);

/* Generation, greedy or sampled; calls `emit` with each new id and stops when it returns false, at eos or
 * after n_tokens. */
typedef struct qb_generate_config {
    int64_t tokens, seed, top_k;
    double temperature, top_p; /* temperature 0: greedy */
    bool ignore_eos;
    const int32_t *stops; /* [n_stops] ids that end a text, beside the config's EOS */
    size_t n_stops;
} qb_generate_config;
typedef bool (*qb_emit_fn)(void *ctx, int32_t id);
qb_status qb_generate(qb_model *m, qb_device *dev, const int32_t *prompt, int64_t n_prompt,
                      const qb_generate_config *config, qb_emit_fn emit, void *ctx) QB_NODISCARD;
