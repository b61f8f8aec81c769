/* quantization_config as compressed-tensors writes it: config_groups, each with its targets and the scheme of
   its weights. Source: compressed-tensors quantization/quant_config.py, quant_args.py. */
#include "checkpoint/quantization.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    int64_t bits, group_size;
    bool symmetric, desc_act;
} scheme;

static qb_status read_strategy(const qb_json *weights, const char *where, scheme *s) {
    const char *strategy = NULL;
    qb_status st;
    QB_TRY(st, qb_json_text(weights, "strategy", where, false, &strategy));
    QB_TRY(st, qb_json_int(weights, "group_size", where, false, -1, INT32_MAX, &s->group_size));
    if (!strategy) strategy = s->group_size > 0 ? "group" : "channel";
    if (!strcmp(strategy, "channel"))
        s->group_size = -1;
    else if (strcmp(strategy, "group") != 0)
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s: strategy \"%.40s\" is not supported (supported: group, channel)", where, strategy);
    else if (s->group_size < 1)
        st = qb_fail(QB_ERR_FORMAT, "%s: \"group_size\" must be positive with strategy group", where);
out:
    return st;
}

/* "group" (once "dynamic") stores columns in the order of their groups; "weight" (once "static") and null
   leave them as they are. */
static qb_status read_order(const qb_json *weights, const char *where, scheme *s) {
    const qb_json *order = qb_json_get(weights, "actorder");
    const char *text = qb_json_string(order);
    if (text && (!strcmp(text, "group") || !strcmp(text, "dynamic")))
        s->desc_act = true;
    else if (text ? strcmp(text, "weight") != 0 && strcmp(text, "static") != 0 : qb_json_true(order))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: actorder \"%.40s\" is not supported", where,
                       text ? text : "true");
    return QB_OK;
}

static qb_status read_scheme(const qb_json *group, const char *where, scheme *s) {
    const qb_json *weights = qb_json_get(group, "weights");
    const char *type = "int";
    qb_status st;
    *s = (scheme){.group_size = -1, .symmetric = true};
    if (!qb_json_is_object(weights))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a group without \"weights\" is not supported", where);
    if (!qb_json_is_null(qb_json_get(group, "input_activations")) ||
        !qb_json_is_null(qb_json_get(group, "output_activations")))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: quantized activations are not supported (only weights are: W4A16, W8A16)", where);
    QB_TRY(st, qb_json_text(weights, "type", where, false, &type));
    QB_TRY(st, qb_json_int(weights, "num_bits", where, true, 1, 64, &s->bits));
    QB_TRY(st, qb_json_bool(weights, "symmetric", where, false, &s->symmetric));
    if (strcmp(type, "int") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: weights of type \"%.40s\" are not supported (supported: int)",
                       where, type);
    if (s->bits < 2 || s->bits > 8 || s->bits == 7)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: num_bits %d is not supported (supported: 2 to 6, 8)", where,
                       (int)s->bits);
    QB_TRY(st, read_strategy(weights, where, s));
    QB_TRY(st, read_order(weights, where, s));
out:
    return st;
}

/* Members that change what the model computes, none of which is done here. */
static qb_status refuse_extras(const qb_json *json, const char *where) {
    static const char *const members[] = {"transform_config", "moe_sparsity_config"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const qb_json *j = qb_json_get(json, members[i]);
        if (!qb_json_is_null(j) && !(qb_json_is_object(j) && !qb_json_first(j)))
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: \"%s\" is not supported", where, members[i]);
    }
    const char *sparse = NULL;
    qb_status st = qb_json_text(qb_json_get(json, "sparsity_config"), "format", where, false, &sparse);
    if (st == QB_OK && sparse && strcmp(sparse, "dense") != 0)
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: sparsity_config of format \"%.40s\" is not supported", where,
                     sparse);
    return st;
}

static qb_status check_format(const qb_json *json, const char *where) {
    const char *format = "dense";
    qb_status st = qb_json_text(json, "format", where, false, &format);
    if (st == QB_OK && strcmp(format, "pack-quantized") != 0)
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: format \"%.40s\" is not supported (supported: pack-quantized)",
                     where, format);
    return st;
}

static bool is_float_quantized(const qb_json *json) {
    const char *format = qb_json_string(qb_json_get(json, "format"));
    return format && !strcmp(format, "float-quantized");
}

qb_status qb_quantization_read_compressed(const qb_json *json, const char *where, qb_quantization *out) {
    const qb_json *groups = qb_json_get(json, "config_groups");
    scheme first = {0};
    bool any = false;
    qb_status st;
    if (is_float_quantized(json)) { /* dense tensors of F8_E4M3, with scales: checkpoint/widen.c */
        out->method[0] = 0;
        bool rounds = false;
        for (const qb_json *j = qb_json_first(groups); j; j = qb_json_next(j))
            rounds = rounds || !qb_json_is_null(qb_json_get(j, "input_activations")) ||
                     !qb_json_is_null(qb_json_get(j, "output_activations"));
        if (rounds) qb_warn("%s: \"input_activations\" is not applied: activations are floats here", where);
        return refuse_extras(json, where);
    }
    QB_TRY(st, check_format(json, where));
    QB_TRY(st, refuse_extras(json, where));
    for (const qb_json *j = qb_json_first(groups); j; j = qb_json_next(j)) {
        scheme s;
        if (!qb_json_is_null(qb_json_get(j, "format"))) QB_TRY(st, check_format(j, where));
        QB_TRY(st, read_scheme(j, where, &s));
        if (any && (s.bits != first.bits || s.group_size != first.group_size ||
                    s.symmetric != first.symmetric || s.desc_act != first.desc_act))
            return qb_fail(QB_ERR_UNSUPPORTED,
                           "%s: config_groups with weights of several schemes are not supported", where);
        first = s;
        any = true;
    }
    if (!any) return qb_fail(QB_ERR_FORMAT, "%s: \"config_groups\" names no group", where);
    out->bits = (int)first.bits;
    out->group_size = first.group_size;
    out->symmetric = first.symmetric;
    out->desc_act = first.desc_act;
    snprintf(out->layout, sizeof out->layout, "compressed-tensors");
out:
    return st;
}
