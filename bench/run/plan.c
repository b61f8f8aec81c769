#include "bench/run/plan.h"

#include "base/memory.h"
#include "base/threads.h"
#include "eval/divergence.h"
#include "kernels/cpu/cpu.h"
#include "model/decoder.h"

/* Shares of the ceilings that whole models reach in practice; an estimate of minutes needs no better. */
static const double gemm_share = 0.7, read_share = 0.7;

double qb_plan_seconds(double flops, double bytes, const qb_ceilings *ceilings) {
    double seconds = 0;
    if (ceilings->gemm_flop_per_s > 0) seconds += flops / (gemm_share * ceilings->gemm_flop_per_s);
    if (ceilings->read_bytes_per_s > 0) seconds += bytes / (read_share * ceilings->read_bytes_per_s);
    return seconds;
}

/* Operations and bytes of the speed rows, warm-ups included. */
static void speed_work(const qb_model *m, const qb_speed_config *c, double weight_bytes, double *flops,
                       double *bytes) {
    /* A quiet machine needs about ten samples for a median that is known to 2 %. */
    double samples = c->repeat > 0 ? (double)c->repeat : 10;
    double per_token = 2.0 * (double)qb_topology_params(&m->topology), runs = samples + (double)c->warmup;
    for (int b = 0; b < c->batch.n; b++) {
        double batch = (double)c->batch.values[b];
        for (int p = 0; p < c->prefill.n; p++)
            *flops += runs * batch * (double)c->prefill.values[p] * per_token;
        for (int d = 0; d < c->depth.n; d++)
            for (int g = 0; g < c->decode.n; g++) {
                *flops += batch * (double)c->depth.values[d] * per_token;
                *bytes += runs * (double)c->decode.values[g] * weight_bytes;
            }
    }
}

int64_t qb_plan_speed_bytes(const qb_model *m, const qb_backend *backend, const qb_speed_config *c) {
    int64_t context = 0, batch = 1, rows = 0;
    for (int p = 0; p < c->prefill.n; p++)
        context = c->prefill.values[p] > context ? c->prefill.values[p] : context;
    for (int d = 0; d < c->depth.n; d++)
        for (int g = 0; g < c->decode.n; g++) {
            int64_t sum = c->depth.values[d] + c->decode.values[g];
            context = sum > context ? sum : context;
        }
    for (int b = 0; b < c->batch.n; b++) {
        int64_t n = c->batch.values[b], piece = n * qb_prefill_piece(backend, n, context);
        batch = n > batch ? n : batch;
        rows = piece > rows ? piece : rows;
    }
    const qb_topology *t = &m->topology;
    const int64_t laid = backend->separate_memory
                             ? 0
                             : qb_cpu_forward_bytes(qb_cores_available(), qb_topology_widest(t), rows,
                                                    context, t->key_dim, t->value_dim);
    return laid + qb_kv_bytes(t, QB_DTYPE_F16, m->config.n_layers, batch, context) +
           qb_workspace_bytes(t, rows) + rows * m->config.hidden * (int64_t)sizeof(float);
}

/* A child begins with what this process holds: program, libraries, the texts. Hence qb_resident_bytes beside
   what the model and the work take, in both peaks. */
qb_status qb_case_plan_make(const qb_subject *s, const qb_variant *v, const qb_suite *suite, bool cached,
                            const qb_backend *backend, const qb_ceilings *ceilings, qb_case_plan *out) {
    *out = (qb_case_plan){.cached = cached};
    int64_t dense = qb_checkpoint_tensor_bytes(s->model->checkpoint);
    out->checkpoint_bytes = dense;
    if (v->method) {
        qb_quant_plan q;
        qb_status st = qb_quant_plan_make(s->model, v->method, &v->config, &q);
        if (st != QB_OK) return st;
        out->checkpoint_bytes = q.checkpoint_bytes;
        if (!cached) {
            out->written_bytes = q.checkpoint_bytes;
            out->quantize_peak_bytes = qb_resident_bytes() + q.peak_bytes;
            out->quantize_s = qb_plan_seconds(q.flops, (double)(dense + q.checkpoint_bytes), ceilings);
        }
    }
    double flops = 0, bytes = (double)out->checkpoint_bytes;
    int64_t work = 0;
    for (size_t i = 0; i < s->n_scorings; i++) {
        qb_perplexity_plan p;
        if (s->scorings[i].skipped[0]) continue;
        int64_t budget = (int64_t)(suite->config.memory_gb * 1e9);
        /* A divergence is measured after the perplexity, from a model of the same shapes. */
        bool from_base = v->method && qb_suite_measures(suite, "divergence");
        qb_status st = from_base
                           ? qb_divergence_plan_make(s->model, s->model, &s->scorings[i].windows, budget, &p)
                           : qb_perplexity_plan_make(s->model, &s->scorings[i].windows, budget, &p);
        if (st != QB_OK) return st;
        /* The plan is of the unquantized model; what it needs beside the weights is the same for all. */
        int64_t beside = p.layer_major ? p.peak_bytes : p.peak_bytes - dense;
        out->layer_major = out->layer_major || p.layer_major;
        if (beside > work) work = beside;
        flops += p.flops;
    }
    if (qb_suite_measures(suite, "speed")) {
        speed_work(s->model, &suite->speed, (double)out->checkpoint_bytes, &flops, &bytes);
        int64_t speed = qb_plan_speed_bytes(s->model, backend, &suite->speed);
        if (speed > work) work = speed;
    }
    out->measure_peak_bytes = qb_resident_bytes() + work + (out->layer_major ? 0 : out->checkpoint_bytes);
    out->measure_s = qb_plan_seconds(flops, bytes, ceilings);
    return QB_OK;
}
