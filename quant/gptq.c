/* GPTQ (Frantar et al. 2022, arXiv:2210.17323, algorithm 1), with the choices of the paper's own code:
   docs/methods.md 1 to 11. Given U, rows are independent: each tile of rows runs through all columns by
   itself, so a weight takes one parallel loop and the result does not depend on how many threads share it. */
#include "base/log.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "quant/affine.h"
#include "quant/hessian.h"
#include "quant/on_device.h"
#include "quant/output_error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Rows of a tile: many, for what is laid out of U serves all of them; fewer where a weight has few, so that
   many threads find work. */
enum { TILE_PANELS_MOST = 8, TILE_PANELS_LEAST = 2, TILES_WANTED = 32 };

typedef struct {
    const qb_quant_job *job;
    const qb_grid_ops *ops;
    qb_grid_rule rule;
    qb_qweight *q;
    int64_t group;  /* columns; the whole row when there is one group */
    bool one_group; /* group size -1: the grid is found before dead columns are cleared, as the paper's code
                       does */
    bool static_groups;
    int64_t block; /* columns of a lazy-update block */
    int panels;    /* of a tile */
    int64_t tile_rows;
    qb_updates *updates;
    float *scratch;
    size_t share; /* floats a worker has of it */
} gptq_run;

/* One worker's memory. */
typedef struct {
    float *w;      /* [tile_rows][cols] in quantization order, dead columns 0; compensated as blocks finish */
    float *group;  /* [group][QB_LANES] */
    float *panel;  /* [block][QB_LANES] the working copy of a block */
    float *errors; /* [block][tile_rows], negated */
    float *scale,
        *zero;      /* [panels][n_groups or 1][QB_LANES]: static grids of all groups, else the present one */
    uint8_t *codes; /* [QB_LANES] */
} tile_memory;

static int64_t grids_kept(const gptq_run *run) {
    return run->static_groups ? run->q->n_groups : 1;
}

static size_t tile_share(const gptq_run *run) {
    int64_t cols = run->q->cols, rows = run->tile_rows;
    return (size_t)(rows * cols + QB_LANES * run->group + QB_LANES * run->block + rows * run->block +
                    2 * rows * grids_kept(run) + QB_LANES);
}

static tile_memory tile_memory_of(const gptq_run *run, int worker) {
    tile_memory m;
    int64_t cols = run->q->cols;
    m.w = run->scratch + (size_t)worker * run->share;
    m.group = m.w + run->tile_rows * cols;
    m.panel = m.group + QB_LANES * run->group;
    m.errors = m.panel + QB_LANES * run->block;
    m.scale = m.errors + run->tile_rows * run->block;
    m.zero = m.scale + run->tile_rows * grids_kept(run);
    m.codes = (uint8_t *)(m.zero + run->tile_rows * grids_kept(run));
    return m;
}

static int64_t rows_in_panel(int64_t n_rows, int panel) {
    int64_t left = n_rows - panel * QB_LANES;
    return left < 0 ? 0 : left < QB_LANES ? left : QB_LANES;
}

static void find_grid(const gptq_run *run, tile_memory *m, const float *rows, int64_t row0, int64_t n_rows,
                      int64_t first, int64_t group, float *scale, float *zero) {
    int64_t cols = run->q->cols, n = cols - first < run->group ? cols - first : run->group;
    qb_grid_load(m->group, rows + first, cols, n_rows, n);
    run->ops->find(&run->rule, m->group, n, scale, zero);
    qb_affine_put_grid(run->q, row0, n_rows, group, scale, zero);
}

/* Brings the tile's rows in, dead columns cleared, and finds the grids that are fixed before the loop. */
static void load_tile(const gptq_run *run, tile_memory *m, int64_t row0, int64_t n_rows) {
    const qb_hessian *h = run->job->hessian;
    int64_t cols = run->q->cols;
    const float *source = run->job->weight + row0 * cols;
    memcpy(m->w, source, (size_t)(n_rows * cols) * sizeof *m->w);
    if (n_rows < run->tile_rows)
        memset(m->w + n_rows * cols, 0, (size_t)((run->tile_rows - n_rows) * cols) * sizeof *m->w);
    if (h->n_dead > 0)
        for (int64_t r = 0; r < n_rows; r++)
            for (int64_t k = 0; k < cols; k++)
                if (h->dead[k]) m->w[r * cols + k] = 0.0F;
    if (run->one_group || run->static_groups)
        for (int p = 0; p < run->panels; p++) {
            const float *from = run->one_group ? source : m->w;
            for (int64_t g = 0; g < run->q->n_groups; g++) {
                int64_t at = (p * grids_kept(run) + (run->static_groups ? g : 0)) * QB_LANES;
                find_grid(run, m, from + p * QB_LANES * cols, row0 + p * QB_LANES, rows_in_panel(n_rows, p),
                          g * run->group, g, m->scale + at, m->zero + at);
            }
        }
    if (h->perm)
        for (int64_t r = 0; r < n_rows; r++) {
            const uint8_t *dead = h->dead;
            float *to = m->w + r * cols;
            const float *row = source + r * cols;
            for (int64_t k = 0; k < cols; k++) to[k] = dead[h->perm[k]] ? 0.0F : row[h->perm[k]];
        }
}

/* Columns [i1, i1 + n) of one panel. Grids at group starts come from the tile, which lacks the compensation
   of the present block: the paper's code reads the global matrix there, and results are compared with its
   results. */
static void run_block(const gptq_run *run, tile_memory *m, int p, int64_t row0, int64_t n_rows, int64_t i1,
                      int64_t n) {
    const qb_hessian *h = run->job->hessian;
    int64_t cols = run->q->cols, kept = grids_kept(run);
    int maxq = (1 << run->rule.bits) - 1;
    const float *rows = m->w + p * QB_LANES * cols;
    float *scale = m->scale + p * kept * QB_LANES, *zero = m->zero + p * kept * QB_LANES;
    qb_grid_load(m->panel, rows + i1, cols, QB_LANES, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t place = i1 + i, column = h->perm ? h->perm[place] : place, grid = 0;
        if (run->static_groups)
            grid = column / run->group;
        else if (!run->one_group && place % run->group == 0)
            find_grid(run, m, rows, row0, n_rows, place, place / run->group, scale, zero);
        float error[QB_LANES];
        run->ops->step(m->panel + i * QB_LANES, n - i, h->u + place * cols + place, scale + grid * QB_LANES,
                       zero + grid * QB_LANES, maxq, m->codes, error);
        qb_affine_put_column(run->q, row0, n_rows, column, m->codes);
        float *to = m->errors + i * run->tile_rows + p * QB_LANES;
        for (int r = 0; r < QB_LANES; r++) to[r] = -error[r];
    }
}

static void gptq_tile(void *ctx, int64_t begin, int64_t end, int worker) {
    const gptq_run *run = ctx;
    tile_memory m = tile_memory_of(run, worker);
    int64_t cols = run->q->cols, n_rows = end - begin;
    load_tile(run, &m, begin, n_rows);
    for (int64_t i1 = 0; i1 < cols; i1 += run->block) {
        int64_t n = cols - i1 < run->block ? cols - i1 : run->block, rest = cols - i1 - n;
        for (int p = 0; p < run->panels; p++) {
            int64_t in_panel = rows_in_panel(n_rows, p);
            if (in_panel > 0) run_block(run, &m, p, begin + p * QB_LANES, in_panel, i1, n);
        }
        if (rest > 0)
            qb_updates_add(run->updates, worker, i1 / run->block, m.errors, run->tile_rows, n_rows,
                           m.w + i1 + n, cols);
    }
}

/* Act-order without static groups stores groups in the order in which columns were taken. */
static void put_group_index(const qb_hessian *h, qb_qweight *q) {
    for (int64_t i = 0; i < q->cols; i++) q->g_idx[h->perm[i]] = (int32_t)(i / q->group_size);
}

static qb_status run_gptq(const qb_quant_job *job, qb_qweight *q) {
    const qb_quant_config *c = job->config;
    gptq_run run = {
        .job = job,
        .ops = qb_grid_ops_best(),
        .rule = qb_affine_rule(c),
        .q = q,
        .group = q->group_size,
        .one_group = c->group_size == -1,
        .static_groups = c->static_groups && c->group_size != -1,
        .block = c->block_columns < q->cols ? c->block_columns : q->cols,
    };
    run.panels = TILE_PANELS_MOST;
    while (run.panels > TILE_PANELS_LEAST && q->rows < (int64_t)TILES_WANTED * run.panels * QB_LANES)
        run.panels /= 2;
    run.tile_rows = run.panels * QB_LANES;
    run.share = (tile_share(&run) + 15) / 16 * 16; /* a cache line: workers share none */
    qb_status st;
    QB_TRY(st,
           qb_alloc((size_t)qb_threads_count(job->threads) * run.share, sizeof *run.scratch, &run.scratch));
    QB_TRY(st,
           qb_updates_create(job->threads, job->hessian->u, q->cols, run.block, run.tile_rows, &run.updates));
    qb_parallel_for(job->threads, q->rows, run.tile_rows, gptq_tile, &run);
    if (q->g_idx) put_group_index(job->hessian, q);
out:
    qb_updates_free(run.updates);
    qb_free(run.scratch);
    return st;
}

/* Rounding to nearest instead, with the reason for the report. */
static qb_status fall_back(const qb_quant_job *job, const char *reason, qb_qweight *q,
                           qb_module_report *report) {
    report->fallback = "rtn";
    snprintf(report->reason, sizeof report->reason, "%s", reason);
    qb_free(q->g_idx);
    q->g_idx = NULL;
    qb_status st = qb_affine_round(job, q, job->hessian ? NULL : report);
    return st == QB_OK && job->hessian ? qb_output_error(job, q, report) : st;
}

static qb_status describe(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                          const qb_quant_config *config, qb_qweight *out) {
    if (config->block_columns < 1)
        return qb_fail(QB_ERR_USAGE, "block columns must be positive, found %lld",
                       (long long)config->block_columns);
    if (!(config->damp_percent >= 0 && config->damp_percent <= 10))
        return qb_fail(QB_ERR_USAGE, "damp percent must lie in [0, 10], found %g", config->damp_percent);
    return qb_affine_describe(module, rows, cols, source_dtype, config, out);
}

static qb_status quantize(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    *out = (qb_qweight){0};
    const qb_quant_config *c = job->config;
    qb_hessian *h = job->hessian;
    qb_qweight shape = {0};
    qb_status st;
    QB_TRY(st, describe(job->module, job->rows, job->cols, job->source_dtype, c, &shape));
    QB_TRY(st, qb_weight_check_finite(job));
    if (!h || h->n != job->cols) {
        st = qb_fail(QB_ERR_INTERNAL, "%s: no Hessian of %lld inputs", job->module, (long long)job->cols);
        goto out;
    }
    QB_TRY(st, qb_hessian_factor(job->threads, c->damp_percent, c->act_order, h));
    bool index = c->act_order && !c->static_groups && c->group_size != -1;
    QB_TRY(st, qb_qweight_alloc_affine(job->rows, job->cols, shape.bits, shape.group_size, index, out));
    out->symmetric = shape.symmetric;
    out->source_dtype = shape.source_dtype;
    report->damp_percent = h->damp_percent;
    report->dead_columns = h->n_dead;
    report->retries = h->retries;
    if (h->failed) {
        QB_TRY(st, fall_back(job, h->reason, out, report));
    } else {
        QB_TRY(st, run_gptq(job, out));
        QB_TRY(st, qb_output_error(job, out, report));
        if (!isfinite(report->error))
            QB_TRY(st, fall_back(job, "the scales of the compensated weights overflow float16", out, report));
    }
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

/* An expert's linear of whose inputs too little is known. */
static qb_status round_unseen(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    *out = (qb_qweight){0};
    qb_qweight shape = {0};
    char reason[sizeof report->reason];
    qb_status st;
    QB_TRY(st, describe(job->module, job->rows, job->cols, job->source_dtype, job->config, &shape));
    QB_TRY(st, qb_qweight_alloc_affine(job->rows, job->cols, shape.bits, shape.group_size, false, out));
    out->symmetric = shape.symmetric;
    out->source_dtype = shape.source_dtype;
    report->dead_columns = job->hessian ? job->hessian->n_dead : job->cols;
    snprintf(reason, sizeof reason,
             "the expert saw %lld calibration tokens, at least %d are needed; more samples may help",
             (long long)report->calibration_tokens, QB_EXPERT_TOKENS_MIN);
    QB_TRY(st, fall_back(job, reason, out, report));
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

/* Rounded by the processor: the errors are measured by the Hessian where there is any. */
static qb_status unseen_expert(const qb_site_job *job) {
    qb_hessian own = {0}, *h = job->hessian;
    qb_status st = QB_OK;
    if (job->tokens == 0) {
        if (job->sum) qb_hessian_sum_free(job->dev, job->sum);
        h = NULL;
    } else if (!h) {
        st = qb_hessian_finish(job->dev, job->sum, job->linears[0].module, &own);
        h = &own;
    }
    if (st == QB_OK) st = qb_site_each(job, h, QB_SITE_WIDENED, round_unseen);
    qb_hessian_free(&own);
    return st;
}

static qb_status on_host(const qb_site_job *job) {
    qb_hessian own = {0}, *h = job->hessian;
    qb_status st = QB_OK;
    if (!h) {
        st = qb_hessian_finish(job->dev, job->sum, job->linears[0].module, &own);
        h = &own;
    }
    if (st == QB_OK) st = qb_site_each(job, h, QB_SITE_WIDENED, quantize);
    qb_hessian_free(&own);
    return st;
}

/* The device does it all where the sum lies, if it has a kernel for these options. */
static qb_status site(const qb_site_job *job) {
    if (job->expert && job->tokens < QB_EXPERT_TOKENS_MIN) return unseen_expert(job);
    if (job->sum && job->dev->backend->gptq && !*job->host_only) {
        qb_status st = qb_gptq_on_device(job);
        if (st != QB_ERR_UNSUPPORTED || !job->sum->dev_h) return st;
        qb_warn("%s; the processor takes its place", qb_error_text());
        *job->host_only = true;
    }
    return on_host(job);
}

static void label(const qb_quant_config *config, qb_str *out) {
    qb_affine_label(config, out);
    if (config->act_order) qb_str_text(out, "-act");
    if (config->static_groups) qb_str_text(out, "-static");
    if (!config->true_sequential) qb_str_text(out, "-noseq");
    qb_affine_label_search(config, out);
}

#define FIELD(member) offsetof(qb_quant_config, member)
static const qb_option options[] = {
    QB_AFFINE_OPTIONS,
    {"act-order", 0, QB_OPTION_BOOL, FIELD(act_order), "false", 0, 0, NULL, NULL,
     "take the columns by descending Hessian diagonal (desc_act)"},
    {"static-groups", 0, QB_OPTION_BOOL, FIELD(static_groups), "false", 0, 0, NULL, NULL,
     "find all groups' grids before the loop, so that act-order needs no index at inference"},
    {"true-sequential", 0, QB_OPTION_BOOL, FIELD(true_sequential), "true", 0, 0, NULL, NULL,
     "calibrate each linear of a block behind the quantized ones before it"},
    {"damp-percent", 0, QB_OPTION_REAL, FIELD(damp_percent), "0.01", 0, 10, NULL, "FRACTION",
     "of the Hessian's mean diagonal, added to its diagonal"},
    {"block-columns", 0, QB_OPTION_INT, FIELD(block_columns), "128", 1, 4096, NULL, "COLUMNS",
     "columns whose compensation of the rest is done at once"},
    {"calibration", 0, QB_OPTION_TEXT, FIELD(calibration), "c4", 0, 0, NULL, "DATASET",
     "dataset, or text file, that the calibration windows come from"},
    {"special-tokens", 0, QB_OPTION_CHOICE, FIELD(special_tokens), "file", 0, 0, "file|text|legacy", "RULE",
     "how a calibration text that spells special tokens such as <unk> is read: as the tokenizer's file says, "
     "as "
     "plain text, or as the slow SentencePiece tokenizers did"},
    {"samples", 0, QB_OPTION_INT, FIELD(samples), "128", 1, 1 << 20, NULL, "N", "calibration windows"},
    {"seqlen", 0, QB_OPTION_INT, FIELD(seqlen), "2048", 1, 1 << 20, NULL, "TOKENS",
     "tokens of a calibration window"},
    {"seed", 0, QB_OPTION_INT, FIELD(seed), "0", 0, 9007199254740991.0, NULL, "N",
     "of the calibration windows' choice, as Python's random.seed"},
    {0},
};

extern const qb_quant_method qb_method_gptq;
const qb_quant_method qb_method_gptq = {
    .name = "gptq",
    .summary = "error-compensating rounding on affine groups, calibrated by the inputs' Hessian",
    .source = "Frantar et al. 2022, arXiv:2210.17323; github.com/IST-DASLab/gptq",
    .needs = QB_NEEDS_HESSIAN,
    .options = options,
    .describe = describe,
    .site = site,
    .label = label,
};
