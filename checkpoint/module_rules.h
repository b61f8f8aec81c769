/* Options of single modules in a quantized checkpoint: GPTQModel's "dynamic" (regular expressions) and
   auto-round's "extra_config" (names). Private to checkpoint/. */
#pragma once

#include "checkpoint/checkpoint.h"

typedef struct qb_module_rules {
    struct qb_module_rule *rows; /* the first that fits counts */
    size_t n, capacity;
} qb_module_rules;

/* Adds the members of "dynamic": "-:REGEX" skips modules, "+:REGEX" and "REGEX" give them bits, group_size,
   sym and desc_act; expressions are matched from the beginning of a module's name, as Python's re.match does.
 */
qb_status qb_module_rules_add_dynamic(qb_module_rules *rules, const qb_json *dynamic,
                                      const char *where) QB_NODISCARD;
/* The members of "extra_config": a module's whole name and its options. */
qb_status qb_module_rules_add_names(qb_module_rules *rules, const qb_json *names,
                                    const char *where) QB_NODISCARD;
/* Whether the rules leave that module dense. */
bool qb_module_rules_skip(const qb_module_rules *rules, const char *module);
/* Changes `how` to what holds for that module. */
void qb_module_rules_apply(const qb_module_rules *rules, const char *module, qb_quantization *how);
void qb_module_rules_free(qb_module_rules *rules);
