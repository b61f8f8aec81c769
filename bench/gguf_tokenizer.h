/* The tokenizer inside a GGUF file. */
#pragma once

#include "checkpoint/gguf/gguf.h"
#include "tokenizer/tokenizer.h"

qb_status qb_gguf_tokenizer(const qb_gguf *g, qb_tokenizer **out) QB_NODISCARD;
