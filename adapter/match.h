/* PEFT's rules for names: which modules an adapter is for, and which rank and alpha each has. Patterns are
   Python's regular expressions, given to PCRE2, which reads them alike; one that takes too long is an error.
   Sources: peft 0.21, tuners/tuners_utils.py (check_target_module_exists), utils/other.py (get_pattern_key).
 */
#pragma once

#include "adapter/config.h"

/* Whether the config gives module `path` ("model.layers.0.self_attn.q_proj") a LoRA of its own, by its name.
   "all-linear" is true of every name. */
qb_status qb_adapter_targets(const qb_adapter_config *c, const char *path, bool *out) QB_NODISCARD;
bool qb_adapter_targets_all_linear(const qb_adapter_config *c);
/* Whether parameter `path` ("model.layers.0.mlp.experts.down_proj") is one of target_parameters. */
bool qb_adapter_targets_parameter(const qb_adapter_config *c, const char *path);
/* Whether the module, or one that it is a part of, is saved whole. */
bool qb_adapter_saves(const qb_adapter_config *c, const char *path);
/* Rank and scale (alpha / r, or alpha / sqrt(r)) of a module or parameter. */
qb_status qb_adapter_rank(const qb_adapter_config *c, const char *path, int64_t *rank,
                          double *scale) QB_NODISCARD;
