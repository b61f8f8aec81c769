#include "adapter/config.h"

#include <stdio.h>
#include <string.h>

enum { RANK_MAX = 1 << 16 };

/* Absent, null, false, or empty: a feature that is not used. */
static bool is_off(const qb_json *j) {
    if (qb_json_is_null(j)) return true;
    if (qb_json_is_object(j) || qb_json_is_array(j)) return qb_json_count(j) == 0;
    return !qb_json_is_string(j) && !qb_json_is_number(j) && !qb_json_true(j);
}

static const qb_json *used(const qb_json *object, const char *key) {
    const qb_json *j = qb_json_get(object, key);
    return is_off(j) ? NULL : j;
}

/* ---- keys ---- */

/* Read below. */
static const char *const read_keys[] = {"peft_type",
                                        "r",
                                        "lora_alpha",
                                        "use_rslora",
                                        "use_dora",
                                        "lora_bias",
                                        "bias",
                                        "rank_pattern",
                                        "alpha_pattern",
                                        "target_modules",
                                        "exclude_modules",
                                        "layers_to_transform",
                                        "layers_pattern",
                                        "modules_to_save",
                                        "trainable_token_indices",
                                        "target_parameters",
                                        "init_lora_weights",
                                        "ensure_weight_tying",
                                        "base_model_name_or_path"};

/* Of training, of loading, or of an initialisation that init_lora_weights names. fan_in_fan_out says how the
   base's weight lies, which the base says itself (PEFT corrects it by the module's class). Whether a tied
   head gets the embedding's update, the tensors say: PEFT writes it for both. VeLoRA changes the backward
   pass alone. */
static const char *const harmless_keys[] = {
    "task_type",      "auto_mapping",  "peft_version",      "revision",
    "inference_mode", "lora_dropout",  "runtime_config",    "megatron_core",
    "loftq_config",   "eva_config",    "corda_config",      "lora_ga_config",
    "velora_config",  "merge_weights", "qalora_group_size", "fan_in_fan_out"};

static const struct {
    const char *key, *why;
} refused_keys[] = {
    {"alora_invocation_tokens",
     "an activated LoRA works from its invocation tokens on only: no weights are the same everywhere"},
    {"arrow_config", "a router chooses among adapters for every token: there are no merged weights"},
    {"layer_replication", "the adapter belongs to a model with copied layers; write that model out first"},
    {"use_qalora", "QA-LoRA's pooled inputs are not implemented"},
    {"use_bdlora", "block-diagonal factors are not implemented"},
    {"kasa_config", "KaSA truncates the base by its singular values, which is not implemented"},
    {"monteclora_config", "Monte Carlo LoRA is not implemented"},
    {"megatron_config", "Megatron's parallel layers are not implemented"},
};

static bool is_among(const char *key, const char *const *keys, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(key, keys[i])) return true;
    return false;
}

static qb_status check_key(const qb_json *j, const char *where) {
    const char *key = qb_json_key(j);
    if (is_off(j) || is_among(key, read_keys, sizeof read_keys / sizeof *read_keys) ||
        is_among(key, harmless_keys, sizeof harmless_keys / sizeof *harmless_keys))
        return QB_OK;
    for (size_t i = 0; i < sizeof refused_keys / sizeof *refused_keys; i++)
        if (!strcmp(key, refused_keys[i].key))
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: %s is set: %s", where, key, refused_keys[i].why);
    return qb_fail(
        QB_ERR_UNSUPPORTED,
        "%s: the key %.80s is not known, and it may change what the adapter computes: merge it with "
        "the PEFT that wrote it (merge_and_unload)",
        where, key);
}

/* ---- values ---- */

static qb_status wrong(const char *where, const char *key, const char *wanted) {
    return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" must be %s", where, key, wanted);
}

static qb_status check_texts(const qb_json *list, const char *where, const char *key) {
    for (const qb_json *j = qb_json_first(list); j; j = qb_json_next(j))
        if (!qb_json_is_string(j)) return wrong(where, key, "a list of names");
    return QB_OK;
}

static qb_status read_texts(const qb_json *json, const char *where, const char *key, bool or_text,
                            const qb_json **out) {
    const qb_json *j = *out = used(json, key);
    if (!j || (or_text && qb_json_is_string(j))) return QB_OK;
    if (!qb_json_is_array(j))
        return wrong(where, key, or_text ? "a list of names or a pattern" : "a list of names");
    return check_texts(j, where, key);
}

static bool is_whole(const qb_json *j, double least, double most) {
    double v = qb_json_number(j);
    return v >= least && v <= most && v == (double)(int64_t)v;
}

static qb_status read_pattern(const qb_json *json, const char *where, const char *key, bool whole,
                              const qb_json **out) {
    const qb_json *j = *out = used(json, key);
    if (!j) return QB_OK;
    if (!qb_json_is_object(j)) return wrong(where, key, "an object of numbers by module");
    for (const qb_json *e = qb_json_first(j); e; e = qb_json_next(e)) {
        double v = qb_json_number(e);
        if (whole ? !is_whole(e, 1, RANK_MAX) : !(v >= -1e9 && v <= 1e9))
            return qb_fail(QB_ERR_FORMAT, "%s: \"%s\": %.80s: expected a %s", where, key, qb_json_key(e),
                           whole ? "rank of 1 to 65536" : "number");
    }
    return QB_OK;
}

static qb_status check_indices(const qb_json *list, const char *where, const char *key) {
    if (!qb_json_is_array(list)) return wrong(where, key, "a list of whole numbers");
    for (const qb_json *j = qb_json_first(list); j; j = qb_json_next(j))
        if (!is_whole(j, 0, INT32_MAX)) return wrong(where, key, "a list of whole numbers");
    return QB_OK;
}

static qb_status read_tokens(const qb_json *json, const char *where, qb_adapter_config *out) {
    static const char key[] = "trainable_token_indices";
    const qb_json *j = out->token_indices = used(json, key);
    if (!j || qb_json_is_array(j)) return j ? check_indices(j, where, key) : QB_OK;
    if (!qb_json_is_object(j)) return wrong(where, key, "a list of token ids, or lists by module");
    qb_status st = QB_OK;
    for (const qb_json *e = qb_json_first(j); st == QB_OK && e; e = qb_json_next(e))
        st = check_indices(e, where, key);
    return st;
}

static qb_status read_layers(const qb_json *json, const char *where, qb_adapter_config *out) {
    static const char key[] = "layers_to_transform";
    const qb_json *j = qb_json_get(json, key);
    out->layers_to_transform = qb_json_is_number(j) ? j : used(json, key);
    if (qb_json_is_number(j))
        return is_whole(j, 0, INT32_MAX) ? QB_OK : wrong(where, key, "a layer's number");
    return out->layers_to_transform ? check_indices(j, where, key) : QB_OK;
}

static qb_status read_bias(const qb_json *json, const char *where, qb_adapter_config *out) {
    static const char *const names[] = {"none", "all", "lora_only"};
    const char *bias = "none";
    qb_status st = qb_json_text(json, "bias", where, false, &bias);
    if (st != QB_OK) return st;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(bias, names[i])) {
            out->bias = (qb_adapter_bias)i;
            return QB_OK;
        }
    return wrong(where, "bias", "none, all or lora_only");
}

/* PiSSA, OLoRA, CorDA and LoRA-GA take their first B A out of the base, LoftQ quantizes it: the adapter is of
   what they left (peft tuners/lora/layer.py, *_init). The others begin beside the base as it is. */
static qb_status read_init(const qb_json *json, const char *where, bool residual_base,
                           qb_adapter_config *out) {
    static const char *const beside[] = {"gaussian", "eva", "orthogonal", "mica"};
    static const char *const inside[] = {"pissa", "olora", "corda", "lora_ga", "loftq"};
    const qb_json *j = qb_json_get(json, "init_lora_weights");
    const char *name = qb_json_string(j);
    if (!name) {
        bool flag = false;
        return qb_json_is_null(j) ? QB_OK : qb_json_bool(json, "init_lora_weights", where, true, &flag);
    }
    if (is_among(name, beside, sizeof beside / sizeof *beside)) return QB_OK;
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        if (!strcmp(name, inside[i]) || (i == 0 && !strncmp(name, "pissa_niter_", 12))) out->init = inside[i];
    if (!out->init)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: init_lora_weights \"%.80s\" is not known", where, name);
    if (residual_base) return QB_OK;
    return qb_fail(
        QB_ERR_UNSUPPORTED,
        "%s: init_lora_weights is \"%.80s\", which changed the base before training: give the base that "
        "was saved with this adapter and --residual-base, or save the adapter anew as a plain LoRA "
        "(peft's save_pretrained with path_initial_model_for_weight_conversion)",
        where, name);
}

static qb_status check_type(const qb_json *json, const char *where) {
    const char *type = NULL;
    qb_status st = qb_json_text(json, "peft_type", where, true, &type);
    if (st != QB_OK || !strcmp(type, "LORA")) return st;
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%s: the adapter is of the type %.40s; LORA is merged here: merge this one with PEFT "
                   "(merge_and_unload), where its type allows it",
                   where, type);
}

qb_status qb_adapter_config_parse(const qb_json *json, const char *where, bool residual_base,
                                  qb_adapter_config *out) {
    *out = (qb_adapter_config){.where = where, .rank = 8, .alpha = 8};
    qb_status st;
    QB_TRY(st, check_type(json, where));
    for (const qb_json *j = qb_json_first(json); j; j = qb_json_next(j)) QB_TRY(st, check_key(j, where));
    QB_TRY(st, qb_json_text(json, "base_model_name_or_path", where, false, &out->base));
    QB_TRY(st, qb_json_int(json, "r", where, false, 1, RANK_MAX, &out->rank));
    QB_TRY(st, qb_json_real(json, "lora_alpha", where, false, -1e9, 1e9, &out->alpha));
    QB_TRY(st, qb_json_bool(json, "use_rslora", where, false, &out->rslora));
    QB_TRY(st, qb_json_bool(json, "use_dora", where, false, &out->dora));
    QB_TRY(st, qb_json_bool(json, "lora_bias", where, false, &out->lora_bias));
    QB_TRY(st, qb_json_bool(json, "ensure_weight_tying", where, false, &out->keeps_tie));
    QB_TRY(st, read_bias(json, where, out));
    QB_TRY(st, read_pattern(json, where, "rank_pattern", true, &out->rank_pattern));
    QB_TRY(st, read_pattern(json, where, "alpha_pattern", false, &out->alpha_pattern));
    QB_TRY(st, read_texts(json, where, "target_modules", true, &out->target_modules));
    QB_TRY(st, read_texts(json, where, "exclude_modules", true, &out->exclude_modules));
    QB_TRY(st, read_texts(json, where, "modules_to_save", false, &out->modules_to_save));
    QB_TRY(st, read_texts(json, where, "target_parameters", false, &out->target_parameters));
    QB_TRY(st, read_texts(json, where, "layers_pattern", true, &out->layers_pattern));
    QB_TRY(st, read_layers(json, where, out));
    QB_TRY(st, read_tokens(json, where, out));
    st = read_init(json, where, residual_base, out);
out:
    return st;
}
