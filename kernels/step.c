/* Names of steps and activations, what makes attributes a step at all, and what is computed on hosts alone.
 */
#include "kernels/step.h"

#include <math.h>

const char *qb_step_name(qb_step_kind kind) {
    static const char *const names[QB_STEP_COUNT] = {
        [QB_STEP_NORM] = "norm",
        [QB_STEP_LINEAR] = "linear",
        [QB_STEP_SPLIT] = "split",
        [QB_STEP_JOIN] = "join",
        [QB_STEP_ROPE] = "rope",
        [QB_STEP_CACHE] = "cache",
        [QB_STEP_ATTEND] = "attend",
        [QB_STEP_ACTIVATE] = "activate",
        [QB_STEP_ADD] = "add",
        [QB_STEP_SCALE] = "scale",
        [QB_STEP_CLAMP] = "clamp",
        [QB_STEP_SOFTCAP] = "softcap",
        [QB_STEP_GATE_ROWS] = "gate_rows",
        [QB_STEP_POSITION] = "position",
        [QB_STEP_TEMPERATURE] = "temperature",
        [QB_STEP_ROUTE] = "route",
        [QB_STEP_GATHER] = "gather",
        [QB_STEP_SCATTER] = "scatter",
        [QB_STEP_CONCAT] = "concat",
        [QB_STEP_CONV] = "conv",
        [QB_STEP_DELTA] = "delta",
        [QB_STEP_XIELU] = "xielu",
    };
    return (unsigned)kind < QB_STEP_COUNT ? names[kind] : "unknown";
}

const char *qb_activation_name(qb_activation kind) {
    static const char *const names[QB_ACTIVATION_COUNT] = {
        [QB_ACTIVATION_SILU] = "silu",           [QB_ACTIVATION_GELU] = "gelu",
        [QB_ACTIVATION_GELU_TANH] = "gelu_tanh", [QB_ACTIVATION_RELU] = "relu",
        [QB_ACTIVATION_RELU2] = "relu2",         [QB_ACTIVATION_QUICK_GELU] = "quick_gelu",
        [QB_ACTIVATION_SIGMOID] = "sigmoid",     [QB_ACTIVATION_SWIGLU_OSS] = "swiglu_oss",
    };
    return (unsigned)kind < QB_ACTIVATION_COUNT ? names[kind] : "unknown";
}

float qb_temperature_factor(const qb_temperature_attr *a, int64_t position) {
    double steps = floor(((double)position + (double)a->shift) / (double)a->floor_scale);
    return (float)(1.0 + (double)a->beta * log1p(steps));
}

/* ---- what a step's attributes must be ---- */

static qb_status refuse(const qb_step *s, const char *what, double found) {
    return qb_fail(QB_ERR_UNSUPPORTED, "%s step: %s, found %g", qb_step_name(s->kind), what, found);
}

static qb_status check_norm(const qb_step *s) {
    const qb_norm_attr *a = &s->u.norm;
    if (a->kind != QB_NORM_RMS && a->kind != QB_NORM_LAYER)
        return refuse(s, "expected an rms or a layer norm", a->kind);
    if (a->dim < 1) return refuse(s, "expected a width of at least 1", (double)a->dim);
    if (s->vector >= 0 && a->weight_rows < 1)
        return refuse(s, "expected at least 1 row of weights", (double)a->weight_rows);
    if (!(a->eps >= 0.0f)) return refuse(s, "expected an epsilon of at least 0", (double)a->eps);
    return QB_OK;
}

static qb_status check_split(const qb_step *s) {
    const qb_split_attr *a = &s->u.split;
    if (a->groups < 1) return refuse(s, "expected at least 1 group", (double)a->groups);
    if (a->width[0] < 1 || a->width[1] < 1 || a->width[2] < 0)
        return refuse(s, "expected two or three parts of at least 1 element",
                      (double)(a->width[0] < 1   ? a->width[0]
                               : a->width[1] < 1 ? a->width[1]
                                                 : a->width[2]));
    return QB_OK;
}

static qb_status check_join(const qb_step *s) {
    const qb_join_attr *a = &s->u.join;
    if (a->heads < 1 || a->width < 1 || a->shared < 1)
        return refuse(s, "expected heads, widths and shared elements of at least 1",
                      (double)(a->heads < 1   ? a->heads
                               : a->width < 1 ? a->width
                                              : a->shared));
    return QB_OK;
}

static qb_status check_rope(const qb_step *s) {
    const qb_rope_attr *a = &s->u.rope;
    if (a->kind != QB_ROPE_HALF && a->kind != QB_ROPE_INTERLEAVED)
        return refuse(s, "expected pairs of halves or of neighbours", a->kind);
    if (a->width < 2 || a->width % 2 != 0)
        return refuse(s, "expected an even number of turning elements", (double)a->width);
    if (a->heads < 1 || a->offset < 0 || a->offset + a->width > a->head_dim)
        return refuse(s, "expected the turning elements to lie within the head", (double)a->head_dim);
    if (a->table < 0) return refuse(s, "expected a table", a->table);
    return QB_OK;
}

static qb_status check_attend(const qb_step *s) {
    const qb_attend_attr *a = &s->u.attend;
    if (a->kv_heads < 1 || a->heads < 1 || a->heads % a->kv_heads != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "attend step: %lld query heads over %lld key heads; expected a multiple",
                       (long long)a->heads, (long long)a->kv_heads);
    if (a->head_dim < 1 || a->value_dim < 1)
        return refuse(s, "expected heads of at least 1 element",
                      (double)(a->head_dim < 1 ? a->head_dim : a->value_dim));
    if (a->window < 0) return refuse(s, "expected a window of at least 0", (double)a->window);
    if (a->chunk < 0) return refuse(s, "expected a chunk of at least 0", (double)a->chunk);
    if (!(a->softcap >= 0.0f)) return refuse(s, "expected a softcap of at least 0", (double)a->softcap);
    if ((unsigned)a->alibi > QB_ALIBI_BF16) return refuse(s, "expected a known ALiBi form", a->alibi);
    if ((a->alibi != QB_ALIBI_NONE) != (s->vector >= 0))
        return refuse(s, "expected slopes with ALiBi and none without", s->vector);
    return QB_OK;
}

static qb_status check_activate(const qb_step *s) {
    const qb_activate_attr *a = &s->u.activate;
    if ((unsigned)a->kind >= QB_ACTIVATION_COUNT) return refuse(s, "expected a known activation", a->kind);
    if ((unsigned)a->glu > QB_GLU_INTERLEAVED) return refuse(s, "expected a known gating", a->glu);
    if (a->kind == QB_ACTIVATION_SWIGLU_OSS && a->glu == QB_GLU_NONE)
        return refuse(s, "swiglu_oss expects a gate and an up projection", a->glu);
    if (a->kind == QB_ACTIVATION_SWIGLU_OSS && !(a->limit > 0.0f))
        return refuse(s, "swiglu_oss expects a limit above 0", (double)a->limit);
    return QB_OK;
}

static qb_status check_route(const qb_step *s) {
    const qb_route_attr *a = &s->u.route;
    if ((unsigned)a->kind > QB_ROUTER_SPARSEMIXER) return refuse(s, "expected a known router", a->kind);
    if (a->experts < 1 || a->top_k < 1 || a->top_k > a->experts)
        return qb_fail(QB_ERR_UNSUPPORTED, "route step: %lld of %lld experts; expected 1 to all of them",
                       (long long)a->top_k, (long long)a->experts);
    if (a->scale == 0.0f || !isfinite(a->scale))
        return refuse(s, "expected a scale other than 0", (double)a->scale);
    if (a->kind == QB_ROUTER_SPARSEMIXER && (a->top_k != 2 || a->groups != 0))
        return refuse(s, "sparsemixer expects 2 experts a token, without groups", (double)a->top_k);
    if (a->groups < 0 || (a->groups > 0 && a->experts % a->groups != 0))
        return refuse(s, "expected groups that divide the experts", (double)a->groups);
    if (a->groups > 0 && (a->keep_groups < 1 || a->keep_groups > a->groups ||
                          a->keep_groups * (a->experts / a->groups) < a->top_k))
        return refuse(s, "expected kept groups with room for the chosen experts", (double)a->keep_groups);
    return QB_OK;
}

static qb_status check_temperature(const qb_step *s) {
    if (!(s->u.temperature.floor_scale > 0.0f))
        return refuse(s, "expected a floor scale above 0", (double)s->u.temperature.floor_scale);
    return QB_OK;
}

static qb_status check_conv(const qb_step *s) {
    const qb_conv_attr *a = &s->u.conv;
    if (a->taps < 2 || a->taps > 64) return refuse(s, "expected 2 to 64 taps", (double)a->taps);
    if (a->width < 1 || a->state < 0) return refuse(s, "expected a width of at least 1", (double)a->width);
    return QB_OK;
}

static qb_status check_delta(const qb_step *s) {
    const qb_delta_attr *a = &s->u.delta;
    if (a->key_heads < 1 || a->value_heads < 1 || a->value_heads % a->key_heads != 0)
        return refuse(s, "expected value heads in a multiple of the key heads", (double)a->value_heads);
    if (a->key_dim < 1 || a->value_dim < 1 || a->state < 0)
        return refuse(s, "expected heads of at least 1 element", (double)a->key_dim);
    return QB_OK;
}

qb_status qb_step_check(const qb_step *s) {
    switch (s->kind) {
    case QB_STEP_NORM:
        return check_norm(s);
    case QB_STEP_SPLIT:
        return check_split(s);
    case QB_STEP_JOIN:
        return check_join(s);
    case QB_STEP_ROPE:
        return check_rope(s);
    case QB_STEP_ATTEND:
        return check_attend(s);
    case QB_STEP_ACTIVATE:
        return check_activate(s);
    case QB_STEP_CLAMP:
    case QB_STEP_SOFTCAP:
        if (!(s->u.value > 0.0f)) return refuse(s, "expected a value above 0", (double)s->u.value);
        return QB_OK;
    case QB_STEP_ROUTE:
        return check_route(s);
    case QB_STEP_TEMPERATURE:
        return check_temperature(s);
    case QB_STEP_CONV:
        return check_conv(s);
    case QB_STEP_DELTA:
        return check_delta(s);
    case QB_STEP_XIELU:
        if (s->vector < 0) return refuse(s, "expected its four numbers", s->vector);
        return QB_OK;
    case QB_STEP_CONCAT:
    case QB_STEP_LINEAR:
    case QB_STEP_CACHE:
    case QB_STEP_ADD:
    case QB_STEP_SCALE:
    case QB_STEP_GATE_ROWS:
    case QB_STEP_POSITION:
    case QB_STEP_GATHER:
    case QB_STEP_SCATTER:
        return QB_OK;
    case QB_STEP_COUNT:
        break;
    }
    return qb_fail(QB_ERR_UNSUPPORTED, "step kind %d; expected one of 0 to %d", (int)s->kind,
                   QB_STEP_COUNT - 1);
}
