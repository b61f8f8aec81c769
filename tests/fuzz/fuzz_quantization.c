/* Any bytes as what says how a checkpoint is quantized: config.json's
   quantization_config, and bitsandbytes' quant_state. */
#include "base/log.h"
#include "checkpoint/layout.h"
#include "checkpoint/layouts/quant_state.h"
#include "checkpoint/state.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void require(int holds) {
    if (!holds) abort();
}

static void check_config(const uint8_t *data, size_t size) {
    qb_checkpoint ck = {.dir = "fuzz"};
    if (qb_json_parse((const char *)data, size, "fuzz", &ck.config) != QB_OK) return;
    const qb_quantization *q = &ck.quantization;
    if (qb_quantization_read(&ck) == QB_OK && q->method[0]) {
        require(qb_layout_find(q->layout) != NULL);
        require(q->bits >= 2 && q->bits <= 8 && q->bits != 7);
        require(q->group_size == -1 || q->group_size > 0);
    }
    require(strchr(qb_error_text(), '\n') == NULL);
    qb_module_rules_free(&ck.rules);
    qb_json_free(ck.config);
    qb_arena_free(&ck.arena);
}

static void check_state(const uint8_t *data, size_t size) {
    qb_quant_state s, back;
    qb_str text = {0};
    if (qb_quant_state_read(data, size, "fuzz", &s) == QB_OK) {
        require(qb_bnb_block_size_ok(s.block_size) && s.shape[0] > 0 && s.shape[1] > 0);
        /* What we write of it says the same. */
        qb_quant_state_write(&s, &text);
        require(qb_str_status(&text) == QB_OK);
        require(qb_quant_state_read(text.text, text.length, "again", &back) == QB_OK);
        require(back.codebook == s.codebook && back.block_size == s.block_size && back.dtype == s.dtype &&
                back.shape[0] == s.shape[0] && back.shape[1] == s.shape[1] && back.nested == s.nested &&
                back.nested_offset == s.nested_offset);
    }
    qb_str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_log_set_level(QB_LOG_QUIET);
    check_config(data, size);
    check_state(data, size);
    return 0;
}
