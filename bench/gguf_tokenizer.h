/* The tokenizer inside a GGUF file. */
#pragma once

#include "checkpoint/gguf/gguf.h"
#include "tokenizer/tokenizer.h"

qb_status qb_gguf_tokenizer(const qb_gguf *g, qb_tokenizer **out) QB_NODISCARD;
/* As tokenizer.json and tokenizer_config.json, appended; QB_ERR_UNSUPPORTED for kinds that are not written
 * so. */
qb_status qb_gguf_tokenizer_json(const qb_gguf *g, qb_str *json, qb_str *config) QB_NODISCARD;
