/* Speed. Timed: embedding, blocks, head of the last position and argmax, one synchronisation at the end. Not
   timed: loading, tokenizing, warm-up, filling the cache to the wanted depth. Prefill (pp) and decode (tg)
   are measured apart; every sample is kept and the median is the headline. How many there are: sampling.h. */
#include "eval/activations.h"
#include "eval/instructions.h"
#include "eval/share.h"
#include "eval/timing.h"
#include "eval/watch.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/statistics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ROW(name, type, field, initial, min, max, choices, unit, help)                                       \
    { name, 0, type, offsetof(qb_speed_config, field), initial, min, max, choices, unit, help }
const qb_option qb_speed_options[] = {
    ROW("prefill", QB_OPTION_INT_LIST, prefill, "128,512", 0, 1e6, NULL, "N,N",
        "prompt lengths to time (pp<N>); 0 for none"),
    ROW("decode", QB_OPTION_INT_LIST, decode, "32,128", 0, 1e6, NULL, "N,N",
        "tokens to generate and time (tg<N>); 0 for none"),
    ROW("depth", QB_OPTION_INT_LIST, depth, "0", 0, 1e6, NULL, "N,N",
        "context tokens that stand in the cache before decoding starts"),
    ROW("batch", QB_OPTION_INT_LIST, batch, "1", 1, 1024, NULL, "N,N", "sequences decoded side by side"),
    ROW("precision", QB_OPTION_REAL, precision, "2", 0.01, 100, NULL, "PERCENT",
        "take samples until the median is known to so many per cent either way, at 95 % confidence"),
    ROW("budget-s", QB_OPTION_REAL, budget_s, "10", 0, 1e6, NULL, "SECONDS",
        "but no longer than this for each row"),
    ROW("sample-ms", QB_OPTION_REAL, sample_ms, "10", 0, 1e6, NULL, "MS",
        "least length of a sample; shorter measurements are repeated within it"),
    ROW("repeat", QB_OPTION_INT, repeat, "0", 0, QB_SAMPLES_MAX, NULL, "N",
        "just so many samples, whatever their spread; 0: as many as precision and budget ask for"),
    ROW("rounds", QB_OPTION_INT, rounds, "3", 1, QB_ROUNDS_MAX, NULL, "N",
        "passes over all cases of a run, so that what drifts falls on all alike; one case alone takes one"),
    ROW("warmup", QB_OPTION_INT, warmup, "1", 0, 100, NULL, "N", "repetitions before, which do not count"),
    ROW("kv", QB_OPTION_CHOICE, kv, "f16", 0, 0, "f16|f32", "TYPE",
        "element type of the key and value cache"),
    ROW("prompts", QB_OPTION_TEXT, prompts, NULL, 0, 0, NULL, "FILE",
        "prompts, a blank line between them, timed whole for the latency row; 'default' takes the project's "
        "own"),
    ROW("prompt-tokens", QB_OPTION_INT, prompt_tokens, "32", 1, 1e6, NULL, "N",
        "tokens generated after each prompt"),
    ROW("activations", QB_OPTION_CHOICE, activations, "fastest", 0, 0, QB_ACTIVATIONS_CHOICES, "KIND",
        QB_ACTIVATIONS_HELP),
    {0},
};

static double causal_flops(const qb_topology *t, double tokens) {
    return tokens * (2.0 * (double)qb_topology_active_params(t) + tokens * (double)t->context_flops);
}

/* Of samples that are not of one thing: each prompt has a length of its own. */
static void summarize_prompts(qb_measure *row) {
    int n = row->n_samples;
    double least = row->samples[0], most = row->samples[0], sd = qb_stddev(row->samples, n);
    for (int i = 1; i < n; i++) {
        least = fmin(least, row->samples[i]);
        most = fmax(most, row->samples[i]);
    }
    row->value = qb_median(row->samples, n);
    row->n = n;
    row->stderr_value = sd / sqrt(n);
    qb_json_put_real(row->extra, "mean", qb_mean_of(row->samples, n));
    qb_json_put_real(row->extra, "sd", sd);
    qb_json_put_real(row->extra, "min", least);
    qb_json_put_real(row->extra, "max", most);
}

/* What all rows of one call have in common. */
typedef struct {
    qb_model *m;
    qb_device *dev;
    const qb_speed_config *config;
    const qb_ceilings *ceilings;
    const qb_speed_round *round;
    qb_activation_use use;
    qb_measures *out;
} job;

/* Adds the instructions of a token of what the row times; where the kernel counts none, the row says why. */
static qb_status count_instructions(const job *j, const qb_timing *op, qb_measure *timed) {
    qb_counters counters;
    char protocol[sizeof timed->protocol];
    double count = (double)NAN;
    qb_measure *row;
    qb_status st = QB_OK;
    memcpy(protocol, timed->protocol, sizeof protocol);
    if (j->dev->backend->separate_memory) {
        qb_json_put_text(timed->extra, "instructions_missing", "the device is not the host's processor");
        return QB_OK;
    }
    if (qb_instructions_open(&counters)) {
        qb_counters_begin(&counters);
        st = qb_timing_run(op);
        count = qb_counters_end(&counters);
        if (st == QB_OK && !(count > 0))
            snprintf(counters.why, sizeof counters.why, "the counter stood still");
    }
    if (counters.why[0]) qb_json_put_text(timed->extra, "instructions_missing", counters.why);
    if (st == QB_OK && count > 0) {
        st = qb_measures_add(j->out, "instructions", &row);
        if (st == QB_OK) {
            memcpy(row->protocol, protocol, sizeof row->protocol);
            row->value = count / (double)(op->n_tok * op->r->n_seq);
            row->n = op->n_tok * op->r->n_seq;
        }
    }
    qb_counters_close(&counters);
    return st;
}

/* Of a row's products, each with so many tokens. */
static qb_activation_use use_of(const job *j, int64_t tokens) {
    qb_activation_use use = j->use;
    if (j->dev->backend->set_activations) qb_activations_count(j->m, tokens, &use);
    return use;
}
static void put_use(const job *j, size_t first, const qb_activation_use *use) {
    for (size_t i = first; i < j->out->count; i++) qb_activations_put(use, j->out->rows[i].extra);
}

static qb_status measure_prefill(const job *j, int64_t n_tok, int64_t n_seq) {
    qb_speed_run r;
    qb_measure *rate, *ttft;
    qb_sampling sampling;
    const qb_activation_use use = use_of(j, n_tok * n_seq);
    const size_t first = j->out->count;
    qb_status st;
    QB_TRY(st, qb_speed_run_create(&r, j->m, j->dev, j->config, n_seq, n_tok));
    QB_TRY(st, qb_measures_add(j->out, "prefill", &rate));
    size_t rate_at = j->out->count - 1;
    snprintf(rate->protocol, sizeof rate->protocol, "pp%lld b%lld", (long long)n_tok, (long long)n_seq);
    qb_timing op = {.r = &r, .prompt = true, .n_tok = n_tok};
    QB_TRY(st, qb_timing_row(&op, j->round, j->out, &sampling, rate));
    double flops = causal_flops(&j->m->topology, (double)n_tok) / (double)n_tok * rate->value;
    qb_json_put_real(rate->extra, "flop_per_s", flops);
    double products = (double)qb_topology_active_params(&j->m->topology) * 2 * rate->value;
    qb_activation_use shares = use;
    shares.whole_share *= products / flops, shares.dense_share *= products / flops;
    qb_share_put(j->dev, flops, qb_product_ceiling(j->ceilings, &shares), 0, rate);
    qb_ceilings_put(j->m, j->ceilings, rate);
    if (n_seq == 1) {
        qb_sampling_rule rule = qb_timing_rule(j->config, NULL);
        qb_sampling_invert(&sampling, (double)n_tok);
        QB_TRY(st, qb_measures_add(j->out, "time_to_first_token", &ttft));
        snprintf(ttft->protocol, sizeof ttft->protocol, "pp%lld b1", (long long)n_tok);
        qb_sampling_put(&sampling, &rule, ttft);
        qb_ceilings_put(j->m, j->ceilings, ttft);
    }
    st = count_instructions(j, &op, &j->out->rows[rate_at]);
out:
    put_use(j, first, &use);
    qb_speed_run_free(&r);
    return st;
}

static qb_status measure_decode(const job *j, int64_t n_tok, int64_t depth, int64_t n_seq) {
    qb_speed_run r;
    qb_measure *row;
    qb_sampling sampling;
    const qb_activation_use use = use_of(j, n_seq);
    const size_t first = j->out->count;
    qb_status st;
    QB_TRY(st, qb_speed_run_create(&r, j->m, j->dev, j->config, n_seq, depth + n_tok));
    QB_TRY(st, qb_measures_add(j->out, "decode", &row));
    /* The cache up to `depth` is filled once: decoding overwrites only what lies behind it. */
    if (depth > 0) QB_TRY(st, qb_speed_prompt(&r, NULL, depth));
    snprintf(row->protocol, sizeof row->protocol, "tg%lld@d%lld b%lld", (long long)n_tok, (long long)depth,
             (long long)n_seq);
    qb_timing op = {.r = &r, .n_tok = n_tok, .depth = depth};
    QB_TRY(st, qb_timing_row(&op, j->round, j->out, &sampling, row));
    /* Bytes of an average step: all weights once, and each sequence's cache at its mean length. */
    int64_t weights = qb_model_decode_bytes(j->m, 0, r.kv_dtype);
    double kv = (double)(qb_model_decode_bytes(j->m, 1, r.kv_dtype) - weights) *
                ((double)depth + (double)(n_tok + 1) / 2);
    double bytes_per_s = ((double)weights + kv * (double)n_seq) * row->value / (double)n_seq;
    qb_json_put_real(row->extra, "bytes_per_token", ((double)weights + kv * (double)n_seq) / (double)n_seq);
    qb_json_put_real(row->extra, "bytes_per_s", bytes_per_s);
    qb_share_put(j->dev, bytes_per_s, j->ceilings->read_bytes_per_s, (double)weights, row);
    qb_ceilings_put(j->m, j->ceilings, row);
    qb_json_put_text(row->extra, "kv_dtype", j->config->kv);
    st = count_instructions(j, &op, row);
out:
    put_use(j, first, &use);
    qb_speed_run_free(&r);
    return st;
}

/* ---- whole prompts: prefill and `prompt_tokens` generated tokens, one sample a prompt ---- */

/* What earlier rounds timed of them. */
static void take_up_prompts(const qb_json *earlier, qb_measure *row, int64_t sums[3]) {
    static const char *const keys[] = {"prompts", "prompt_tokens_total", "prompts_shortened"};
    for (const qb_json *v = qb_json_first(qb_json_get(earlier, "samples"));
         v && row->n_samples < QB_SAMPLES_MAX; v = qb_json_next(v))
        row->samples[row->n_samples++] = qb_json_number(v);
    for (int k = 0; k < 3; k++) {
        double sum = qb_json_number(qb_json_get(earlier, keys[k]));
        sums[k] = sum > 0 ? (int64_t)sum : 0;
    }
}

static qb_status time_prompt(qb_speed_run *r, const int32_t *ids, int64_t n, double *seconds) {
    const qb_backend *be = r->dev->backend;
    qb_status st;
    QB_TRY(st, be->timer_start(r->dev));
    QB_TRY(st, qb_speed_prompt(r, ids, n));
    QB_TRY(st, qb_speed_tokens(r, n, r->config->prompt_tokens - 1));
    st = be->timer_stop(r->dev, seconds);
out:
    return st;
}

/* Each prompt is timed in one of the rounds, in turn. */
static qb_status measure_latency(const job *j, const qb_windows *prompts) {
    qb_speed_run r = {.m = j->m, .dev = j->dev};
    qb_watch watch;
    qb_measure *row;
    qb_status st;
    int64_t answer = j->config->prompt_tokens, room = j->m->config.max_positions - answer;
    int64_t sums[3], timed = 0;
    double seconds;
    if (room < 1)
        return qb_fail(QB_ERR_USAGE,
                       "--prompt-tokens %lld leaves no room for a prompt in the model's %lld positions",
                       (long long)answer, (long long)j->m->config.max_positions);
    int64_t longest = prompts->max_length < room ? prompts->max_length : room;
    QB_TRY(st, qb_speed_run_create(&r, j->m, j->dev, j->config, 1, longest + answer));
    QB_TRY(st, qb_measures_add(j->out, "latency", &row));
    snprintf(row->protocol, sizeof row->protocol, "prompts+tg%lld", (long long)answer);
    take_up_prompts(qb_timing_earlier(j->round, j->out, row), row, sums);
    const qb_window *first = &prompts->windows[0];
    QB_TRY(st, time_prompt(&r, prompts->ids + first->offset,
                           first->length < longest ? first->length : longest, &seconds)); /* warms up */
    qb_watch_begin(&watch, j->dev);
    for (int64_t i = j->round->index; i < prompts->count && row->n_samples < QB_SAMPLES_MAX;
         i += j->round->count) {
        const qb_window *p = &prompts->windows[i];
        int64_t n = p->length < longest ? p->length : longest;
        QB_TRY(st, time_prompt(&r, prompts->ids + p->offset, n, &seconds));
        row->samples[row->n_samples++] = seconds;
        sums[0]++;
        sums[1] += n;
        sums[2] += n < p->length;
        timed++;
    }
    qb_watch_end(&watch, (double)(timed * answer), row->extra);
    summarize_prompts(row);
    qb_ceilings_put(j->m, j->ceilings, row);
    qb_json_put_int(row->extra, "prompts", sums[0]);
    qb_json_put_int(row->extra, "prompt_tokens_total", sums[1]);
    qb_json_put_int(row->extra, "prompts_shortened", sums[2]);
    if (sums[2] && j->round->index + 1 == j->round->count)
        qb_warn("%lld of %lld prompts were cut to the %lld tokens that fit the model's context",
                (long long)sums[2], (long long)sums[0], (long long)longest);
    const qb_activation_use use = use_of(j, 1), of_prompt = use_of(j, longest);
    qb_activations_put(&use, row->extra);
    if (of_prompt.float32_bytes > use.float32_bytes)
        qb_json_put_int(row->extra, "prompt_float32_activation_bytes", of_prompt.float32_bytes);
out:
    qb_speed_run_free(&r);
    return st;
}

/* ---- all ---- */

int64_t qb_speed_positions(const qb_speed_config *c) {
    int64_t most = 0;
    for (int i = 0; i < c->prefill.n; i++) most = c->prefill.values[i] > most ? c->prefill.values[i] : most;
    for (int d = 0; d < c->depth.n; d++)
        for (int g = 0; g < c->decode.n; g++) {
            int64_t sum = c->depth.values[d] + c->decode.values[g];
            most = sum > most ? sum : most;
        }
    return most;
}

/* A row that failed before its last sample has no value to show. */
static void drop_unfinished(qb_measures *out) {
    if (out->count && isnan(out->rows[out->count - 1].value)) qb_measure_free(&out->rows[--out->count]);
}

qb_status qb_speed(qb_model *m, qb_device *dev, const qb_speed_config *config, const qb_windows *prompts,
                   const qb_ceilings *ceilings, const qb_speed_round *round, qb_measures *out) {
    static const qb_speed_round at_once = {0, 1, NULL};
    if (!m->resident) return qb_fail(QB_ERR_INTERNAL, "speed needs resident weights");
    qb_ceilings own;
    qb_activation_use use;
    qb_status st = qb_activations_use(m, dev, config->activations, false, &use);
    if (st != QB_OK) return st;
    if (!ceilings) QB_TRY(st, dev->backend->ceilings(dev, &own));
    const job j = {m, dev, config, ceilings ? ceilings : &own, round ? round : &at_once, use, out};
    int total = config->batch.n * (config->prefill.n + config->decode.n * config->depth.n), done = 0;
    qb_progress progress;
    qb_progress_begin(&progress, total, "speed");
    for (int b = 0; b < config->batch.n; b++) {
        int64_t n_seq = config->batch.values[b];
        for (int p = 0; p < config->prefill.n; p++) {
            if (config->prefill.values[p] > 0)
                QB_TRY(st, measure_prefill(&j, config->prefill.values[p], n_seq));
            qb_progress_update(&progress, ++done);
        }
        for (int d = 0; d < config->depth.n; d++)
            for (int g = 0; g < config->decode.n; g++) {
                if (config->decode.values[g] > 0)
                    QB_TRY(st, measure_decode(&j, config->decode.values[g], config->depth.values[d], n_seq));
                qb_progress_update(&progress, ++done);
            }
    }
    qb_progress_end(&progress);
    if (prompts && prompts->count > 0) QB_TRY(st, measure_latency(&j, prompts));
out:
    if (st != QB_OK) drop_unfinished(out);
    qb_status back = qb_activations_use(m, dev, NULL, true, &use);
    if (st == QB_OK) st = back;
    return qb_model_explain(m, st);
}

qb_status qb_determinism(qb_model *m, qb_device *dev, qb_measures *out) {
    static const qb_speed_config config = {.kv = "f32"};
    int64_t n = m->config.max_positions < 64 ? m->config.max_positions : 64;
    int64_t bytes = n * m->config.vocab * (int64_t)sizeof(float);
    qb_speed_run r;
    float *logits = NULL, *host = NULL;
    qb_measure *row;
    char hex[QB_SHA256_HEX];
    bool finite;
    qb_status st;
    QB_TRY(st, qb_speed_run_create(&r, m, dev, &config, 1, n));
    QB_TRY(st, dev->backend->alloc(dev, QB_MEMORY_ACTIVATIONS, bytes, &logits));
    QB_TRY(st, qb_alloc((size_t)bytes, 1, &host));
    for (int64_t i = 0; i < n; i++) r.ids[i] = qb_speed_id(&r, i);
    qb_span span = {1, n, 0, &r.kv, 0};
    QB_TRY(st, qb_model_forward(m, &r.ws, r.x, r.ids, &span));
    QB_TRY(st, qb_model_head(m, &r.ws, logits, r.x, n));
    QB_TRY(st, dev->backend->all_finite(dev, logits, n * m->config.vocab, &finite));
    if (!finite) {
        st = qb_model_explain(m, qb_fail(QB_ERR_NUMERIC, "the logits hold a NaN or an infinity"));
        goto out;
    }
    QB_TRY(st, dev->backend->download(dev, host, logits, bytes));
    QB_TRY(st, qb_hash_bytes(host, (size_t)bytes, hex));
    QB_TRY(st, qb_measures_add(out, "logits_sha256", &row));
    row->n = n;
    snprintf(row->protocol, sizeof row->protocol, "%lld fixed tokens", (long long)n);
    qb_json_put_text(row->extra, "sha256", hex);
out:
    dev->backend->free(dev, logits);
    qb_free(host);
    qb_speed_run_free(&r);
    return st;
}
