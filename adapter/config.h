/* What adapter_config.json of a PEFT LoRA adapter says: every key that changes the computation is read or
   refused by name. Source: peft 0.21, tuners/lora/config.py. */
#pragma once

#include "base/json.h"

typedef enum { QB_ADAPTER_BIAS_NONE, QB_ADAPTER_BIAS_ALL, QB_ADAPTER_BIAS_LORA_ONLY } qb_adapter_bias;

/* Points into the document, which must outlive it. Lists and patterns that are null or empty are NULL. */
typedef struct qb_adapter_config {
    const char *where; /* heads errors */
    const char *base;  /* base_model_name_or_path, or NULL */
    const char *init;  /* an initialisation that changed the base ("pissa"), or NULL */
    int64_t rank;
    double alpha;
    bool rslora, dora, lora_bias;
    bool keeps_tie; /* a tied head is given the embedding's update, and has tensors for it */
    qb_adapter_bias bias;
    const qb_json *rank_pattern, *alpha_pattern;     /* objects */
    const qb_json *target_modules, *exclude_modules; /* a list of names or a regular expression */
    const qb_json *modules_to_save, *target_parameters;
    const qb_json *layers_to_transform, *layers_pattern;
    const qb_json *token_indices; /* a list, or an object of lists by module */
} qb_adapter_config;

/* Checks types, ranges and names. `residual_base`: the caller vouches that the base is the one that an
   initialisation such as PiSSA left behind; otherwise those are refused. */
qb_status qb_adapter_config_parse(const qb_json *json, const char *where, bool residual_base,
                                  qb_adapter_config *out) QB_NODISCARD;
