/* Speed. Timed: embedding, blocks, head of the last position and argmax, one synchronisation at the end. Not
   timed: loading, tokenizing, warm-up, filling the cache to the wanted depth. Prefill (pp) and decode (tg)
   are measured apart; every sample is kept and the median is the headline. How many there are: sampling.h. */
#include "eval/activations.h"
#include "eval/disturbance.h"
#include "eval/sampling.h"
#include "eval/watch.h"
#include "model/offload.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/statistics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

typedef struct {
    qb_model *m;
    qb_device *dev;
    const qb_speed_config *config;
    qb_dtype kv_dtype;
    int64_t n_seq, capacity;
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits;   /* [n_seq * chunk, D], [n_seq, V] */
    int32_t *ids, *next; /* [n_seq * capacity], [n_seq] */
} bench_run;

static void run_free(bench_run *r) {
    const qb_backend *be = r->dev->backend;
    qb_workspace_free(r->m, &r->ws);
    qb_kv_free(r->m, &r->kv);
    be->free(r->dev, r->x);
    be->free(r->dev, r->logits);
    qb_free(r->ids);
    qb_free(r->next);
}

static qb_status run_create(bench_run *r, qb_model *m, qb_device *dev, const qb_speed_config *config,
                            int64_t n_seq, int64_t capacity) {
    *r = (bench_run){.m = m, .dev = dev, .config = config, .n_seq = n_seq, .capacity = capacity};
    r->kv_dtype = !strcmp(config->kv, "f32") ? QB_DTYPE_F32 : QB_DTYPE_F16;
    const qb_backend *be = dev->backend;
    int64_t d = m->config.hidden, f = (int64_t)sizeof(float), chunk = qb_prefill_piece(be, n_seq, capacity);
    qb_status st;
    if (capacity > m->config.max_positions)
        return qb_fail(QB_ERR_USAGE, "%lld tokens of context exceed the model's %lld positions",
                       (long long)capacity, (long long)m->config.max_positions);
    QB_TRY(st, qb_workspace_create(m, n_seq * chunk, &r->ws));
    QB_TRY(st, qb_kv_create(m, r->kv_dtype, m->config.n_layers, n_seq, capacity, &r->kv));
    QB_TRY(st, be->alloc(dev, QB_MEMORY_ACTIVATIONS, n_seq * chunk * d * f, &r->x));
    QB_TRY(st, be->alloc(dev, QB_MEMORY_ACTIVATIONS, n_seq * m->config.vocab * f, &r->logits));
    QB_TRY(st, qb_alloc((size_t)(n_seq * capacity), sizeof *r->ids, &r->ids));
    QB_TRY(st, qb_alloc((size_t)n_seq, sizeof *r->next, &r->next));
out:
    return st;
}

/* Token ids that any vocabulary holds; which ones does not matter for time. */
static int32_t some_id(const bench_run *r, int64_t i) {
    return (int32_t)((i * 7919 + 13) % r->m->config.vocab);
}

/* The next ids from the logits. */
static qb_status choose(bench_run *r) {
    return r->dev->backend->argmax(r->dev, r->logits, r->n_seq, r->m->config.vocab, r->next);
}

/* ids[n_tok] for one sequence, or some_id for all; the next ids land in r->next. */
static qb_status prefill(bench_run *r, const int32_t *ids, int64_t n_tok) {
    for (int64_t s = 0; s < r->n_seq; s++)
        for (int64_t t = 0; t < n_tok; t++) r->ids[s * n_tok + t] = ids ? ids[t] : some_id(r, s * 31 + t);
    qb_span span = {r->n_seq, n_tok, 0, &r->kv, 0};
    qb_status st = qb_model_prefill(r->m, &r->ws, r->x, r->ids, &span, r->logits);
    return st == QB_OK ? choose(r) : st;
}

static qb_status decode(bench_run *r, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        qb_span span = {r->n_seq, 1, first + i, &r->kv, 0};
        qb_status st = qb_model_next(r->m, &r->ws, r->x, r->next, &span, r->logits);
        if (st == QB_OK) st = choose(r);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

/* ---- samples ---- */

/* What one row times: a prompt of n_tok tokens, or n_tok tokens one after another behind `depth`. */
typedef struct {
    bench_run *r;
    bool prompt;
    int64_t n_tok, depth;
    int64_t runs;  /* within one sample */
    int64_t timed; /* runs in all samples */
    qb_stretch stretch;
} timed_op;

static qb_status run_once(timed_op *t) {
    if (t->prompt) return prefill(t->r, NULL, t->n_tok);
    for (int64_t s = 0; s < t->r->n_seq; s++) t->r->next[s] = some_id(t->r, s);
    return decode(t->r, t->depth, t->n_tok);
}

static qb_status run_timed(timed_op *t, int64_t runs, double *seconds) {
    qb_device *dev = t->r->dev;
    qb_status st = dev->backend->timer_start(dev);
    for (int64_t i = 0; st == QB_OK && i < runs; i++) st = run_once(t);
    return st == QB_OK ? dev->backend->timer_stop(dev, seconds) : st;
}

static double tokens_of(const timed_op *t) {
    return (double)(t->n_tok * t->r->n_seq);
}

static qb_status take_sample(void *ctx, qb_sample *out) {
    timed_op *t = ctx;
    double seconds;
    qb_stretch_begin(&t->stretch);
    int64_t start = qb_now_ns();
    qb_status st = run_timed(t, t->runs, &seconds);
    out->seconds = (double)(qb_now_ns() - start) * 1e-9;
    if (st != QB_OK) return st;
    out->disturbed = qb_stretch_end(&t->stretch, out->seconds);
    out->value = tokens_of(t) * (double)t->runs / seconds;
    t->timed += t->runs;
    return QB_OK;
}

static qb_sampling_rule rule_of(const qb_speed_config *c) {
    return (qb_sampling_rule){c->precision / 100, c->budget_s, c->repeat, 3};
}

/* Runs that do not count, the last of which tell how many make a sample: as long as was asked for, and so
   long that the samples that a row can hold fill its budget. */
static qb_status warm_up(timed_op *t) {
    const qb_speed_config *c = t->r->config;
    double wanted = c->sample_ms * 1e-3, seconds = 0;
    if (!c->repeat && wanted > 0) wanted = fmax(wanted, c->budget_s / QB_SAMPLES_MAX);
    qb_status st = QB_OK;
    t->runs = 1;
    for (int64_t i = 0; st == QB_OK && i < c->warmup; i++) st = run_timed(t, 1, &seconds);
    if (seconds > 4 * wanted) return st; /* however cold it was, one is long enough */
    for (int64_t runs = 1; st == QB_OK && wanted > 0; runs *= 2) {
        st = run_timed(t, runs, &seconds);
        if (!(seconds < wanted / 2)) { /* a clock that stood still must not make it endless: 2^20 runs */
            t->runs = (int64_t)fmax(1, ceil((double)runs * wanted / seconds));
            return st;
        }
        if (runs >= 1 << 20) return st;
    }
    return st;
}

/* The row's samples, with what the sensors saw meanwhile. */
static qb_status sample_row(timed_op *t, qb_sampling *sampling, qb_measure *row) {
    qb_watch watch;
    qb_sampling_rule rule = rule_of(t->r->config);
    qb_status st = warm_up(t);
    if (st != QB_OK) return st;
    qb_stretch_open(&t->stretch, t->r->dev);
    qb_watch_begin(&watch, t->r->dev);
    st = qb_sampling_run(&rule, take_sample, t, sampling);
    if (st != QB_OK) return st;
    qb_watch_end(&watch, tokens_of(t) * (double)t->timed, row->extra);
    qb_json_put_int(row->extra, "runs_per_sample", t->runs);
    qb_sampling_put(sampling, &rule, row);
    return QB_OK;
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

/* What was reached beside the device's ceiling. A share above 1 is no speed record: it says that the ceiling
   is of something else, and the row tells of what. `reused_bytes`: read anew in each step; 0 for products,
   which are of whole numbers or not. */
static void put_share(const qb_device *dev, double reached, double ceiling, double reused_bytes, bool whole,
                      qb_measure *row) {
    qb_json_put_real(row->extra, "ceiling", ceiling);
    qb_json_put_real(row->extra, "share_of_ceiling", reached / ceiling);
    if (!(reached > ceiling)) return;
    char bytes[32], why[200];
    double cache = (double)sysconf(_SC_LEVEL3_CACHE_SIZE);
    bool fits = !dev->backend->separate_memory && cache > 0 && reused_bytes <= cache;
    qb_format_bytes(reused_bytes, bytes);
    if (reused_bytes > 0 && (fits || reused_bytes < 64e6))
        snprintf(why, sizeof why, "the %s read for each token stay in caches, and the ceiling is of memory",
                 bytes);
    else if (whole)
        snprintf(why, sizeof why, "the products are of whole numbers, and the ceiling is of float32 ones");
    else
        snprintf(why, sizeof why,
                 "the ceiling was measured while the device was slower: other work ran then, or its clock "
                 "was lower");
    qb_json_put_text(row->extra, "share_reason", why);
}

static bool in_whole_numbers(const qb_speed_config *c) {
    return c->activations && strcmp(c->activations, qb_activations_name(QB_ACTIVATIONS_F32)) != 0;
}

static double causal_flops(const qb_topology *t, double tokens) {
    return tokens * (2.0 * (double)qb_topology_active_params(t) + tokens * (double)t->context_flops);
}

/* What the device can do, beside every figure of what was reached; and what lay in host memory. */
static void put_ceilings(const qb_model *m, const qb_ceilings *c, qb_measure *row) {
    if (qb_model_host_blocks(m) > 0) {
        qb_json_put_int(row->extra, "host_blocks", qb_model_host_blocks(m));
        qb_json_put_int(row->extra, "bus_bytes_per_pass", qb_model_host_bytes(m));
    }
    qb_json_put_real(row->extra, "read_ceiling_bytes_per_s", c->read_bytes_per_s);
    qb_json_put_real(row->extra, "gemm_ceiling_flop_per_s", c->gemm_flop_per_s);
}

static qb_status measure_prefill(qb_model *m, qb_device *dev, const qb_speed_config *config, int64_t n_tok,
                                 int64_t n_seq, const qb_ceilings *ceilings, qb_measures *out) {
    bench_run r;
    qb_measure *rate, *ttft;
    qb_sampling sampling = {0};
    qb_status st;
    QB_TRY(st, run_create(&r, m, dev, config, n_seq, n_tok));
    QB_TRY(st, qb_measures_add(out, "prefill", &rate));
    snprintf(rate->protocol, sizeof rate->protocol, "pp%lld b%lld", (long long)n_tok, (long long)n_seq);
    timed_op op = {.r = &r, .prompt = true, .n_tok = n_tok};
    QB_TRY(st, sample_row(&op, &sampling, rate));
    double flops = causal_flops(&m->topology, (double)n_tok) / (double)n_tok * rate->value;
    qb_json_put_real(rate->extra, "flop_per_s", flops);
    put_share(dev, flops, ceilings->gemm_flop_per_s, 0, in_whole_numbers(config), rate);
    put_ceilings(m, ceilings, rate);
    if (n_seq == 1) {
        qb_sampling_rule rule = rule_of(config);
        qb_sampling inverse = sampling;
        for (int i = 0; i < inverse.n; i++) inverse.values[i] = (double)n_tok / inverse.values[i];
        QB_TRY(st, qb_measures_add(out, "time_to_first_token", &ttft));
        snprintf(ttft->protocol, sizeof ttft->protocol, "pp%lld b1", (long long)n_tok);
        qb_sampling_put(&inverse, &rule, ttft);
        put_ceilings(m, ceilings, ttft);
    }
out:
    run_free(&r);
    return st;
}

static qb_status measure_decode(qb_model *m, qb_device *dev, const qb_speed_config *config, int64_t n_tok,
                                int64_t depth, int64_t n_seq, const qb_ceilings *ceilings, qb_measures *out) {
    bench_run r;
    qb_measure *row;
    qb_sampling sampling = {0};
    qb_status st;
    QB_TRY(st, run_create(&r, m, dev, config, n_seq, depth + n_tok));
    QB_TRY(st, qb_measures_add(out, "decode", &row));
    /* The cache up to `depth` is filled once: decoding overwrites only what lies behind it. */
    if (depth > 0) QB_TRY(st, prefill(&r, NULL, depth));
    snprintf(row->protocol, sizeof row->protocol, "tg%lld@d%lld b%lld", (long long)n_tok, (long long)depth,
             (long long)n_seq);
    timed_op op = {.r = &r, .n_tok = n_tok, .depth = depth};
    QB_TRY(st, sample_row(&op, &sampling, row));
    /* Bytes of an average step: all weights once, and each sequence's cache at its mean length. */
    int64_t weights = qb_model_decode_bytes(m, 0, r.kv_dtype);
    double kv = (double)(qb_model_decode_bytes(m, 1, r.kv_dtype) - weights) *
                ((double)depth + (double)(n_tok + 1) / 2);
    double bytes_per_s = ((double)weights + kv * (double)n_seq) * row->value / (double)n_seq;
    qb_json_put_real(row->extra, "bytes_per_token", ((double)weights + kv * (double)n_seq) / (double)n_seq);
    qb_json_put_real(row->extra, "bytes_per_s", bytes_per_s);
    put_share(dev, bytes_per_s, ceilings->read_bytes_per_s, (double)weights, false, row);
    put_ceilings(m, ceilings, row);
    qb_json_put_text(row->extra, "kv_dtype", config->kv);
out:
    run_free(&r);
    return st;
}

/* Whole prompts: prefill and `prompt_tokens` generated tokens, one sample a prompt. */
static qb_status measure_latency(qb_model *m, qb_device *dev, const qb_speed_config *config,
                                 const qb_windows *prompts, const qb_ceilings *ceilings, qb_measures *out) {
    bench_run r = {.m = m, .dev = dev};
    qb_watch watch = {0};
    qb_measure *row;
    qb_status st;
    int64_t used = 0, tokens = 0, shortened = 0, room = m->config.max_positions - config->prompt_tokens;
    if (room < 1)
        return qb_fail(QB_ERR_USAGE,
                       "--prompt-tokens %lld leaves no room for a prompt in the model's %lld positions",
                       (long long)config->prompt_tokens, (long long)m->config.max_positions);
    int64_t longest = prompts->max_length < room ? prompts->max_length : room;
    QB_TRY(st, run_create(&r, m, dev, config, 1, longest + config->prompt_tokens));
    QB_TRY(st, qb_measures_add(out, "latency", &row));
    for (int64_t i = -1; i < prompts->count && row->n_samples < QB_SAMPLES_MAX; i++) {
        const qb_window *p = &prompts->windows[i < 0 ? 0 : i]; /* the first one also warms up */
        int64_t n = p->length < longest ? p->length : longest;
        double seconds;
        if (i == 0) qb_watch_begin(&watch, dev);
        QB_TRY(st, dev->backend->timer_start(dev));
        QB_TRY(st, prefill(&r, prompts->ids + p->offset, n));
        QB_TRY(st, decode(&r, n, config->prompt_tokens - 1));
        QB_TRY(st, dev->backend->timer_stop(dev, &seconds));
        if (i < 0) continue;
        row->samples[row->n_samples++] = seconds;
        used++;
        tokens += n;
        shortened += n < p->length;
    }
    qb_watch_end(&watch, (double)(used * config->prompt_tokens), row->extra);
    snprintf(row->protocol, sizeof row->protocol, "prompts+tg%lld", (long long)config->prompt_tokens);
    summarize_prompts(row);
    put_ceilings(m, ceilings, row);
    qb_json_put_int(row->extra, "prompts", used);
    qb_json_put_int(row->extra, "prompt_tokens_total", tokens);
    qb_json_put_int(row->extra, "prompts_shortened", shortened);
    if (shortened)
        qb_warn("%lld of %lld prompts were cut to the %lld tokens that fit the model's context",
                (long long)shortened, (long long)used, (long long)longest);
out:
    run_free(&r);
    return st;
}

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

qb_status qb_speed(qb_model *m, qb_device *dev, const qb_speed_config *asked, const qb_windows *prompts,
                   const qb_ceilings *ceilings, qb_measures *out) {
    if (!m->resident) return qb_fail(QB_ERR_INTERNAL, "speed needs resident weights");
    qb_ceilings own;
    qb_activation_use use;
    qb_speed_config in_force = *asked;
    const qb_speed_config *config = &in_force;
    size_t first = out->count;
    qb_status st = qb_activations_use(m, dev, asked->activations, &use);
    if (st != QB_OK) return st;
    in_force.activations = qb_activations_name(use.mode);
    if (!ceilings) QB_TRY(st, dev->backend->ceilings(dev, &own));
    if (!ceilings) ceilings = &own;
    int total = config->batch.n * (config->prefill.n + config->decode.n * config->depth.n), done = 0;
    qb_progress progress;
    qb_progress_begin(&progress, total, "speed");
    for (int b = 0; b < config->batch.n; b++) {
        int64_t n_seq = config->batch.values[b];
        for (int p = 0; p < config->prefill.n; p++) {
            if (config->prefill.values[p] > 0)
                QB_TRY(st, measure_prefill(m, dev, config, config->prefill.values[p], n_seq, ceilings, out));
            qb_progress_update(&progress, ++done);
        }
        for (int d = 0; d < config->depth.n; d++)
            for (int g = 0; g < config->decode.n; g++) {
                if (config->decode.values[g] > 0)
                    QB_TRY(st, measure_decode(m, dev, config, config->decode.values[g],
                                              config->depth.values[d], n_seq, ceilings, out));
                qb_progress_update(&progress, ++done);
            }
    }
    qb_progress_end(&progress);
    if (prompts && prompts->count > 0) QB_TRY(st, measure_latency(m, dev, config, prompts, ceilings, out));
out:
    if (st != QB_OK) drop_unfinished(out);
    for (size_t i = first; i < out->count; i++) qb_activations_put(&use, out->rows[i].extra);
    qb_status back = qb_activations_use(m, dev, NULL, &use);
    if (st == QB_OK) st = back;
    return qb_model_explain(m, st);
}

qb_status qb_determinism(qb_model *m, qb_device *dev, qb_measures *out) {
    static const qb_speed_config config = {.kv = "f32"};
    int64_t n = m->config.max_positions < 64 ? m->config.max_positions : 64;
    int64_t bytes = n * m->config.vocab * (int64_t)sizeof(float);
    bench_run r;
    float *logits = NULL, *host = NULL;
    qb_measure *row;
    char hex[QB_SHA256_HEX];
    bool finite;
    qb_status st;
    QB_TRY(st, run_create(&r, m, dev, &config, 1, n));
    QB_TRY(st, dev->backend->alloc(dev, QB_MEMORY_ACTIVATIONS, bytes, &logits));
    QB_TRY(st, qb_alloc((size_t)bytes, 1, &host));
    for (int64_t i = 0; i < n; i++) r.ids[i] = some_id(&r, i);
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
    run_free(&r);
    return st;
}
