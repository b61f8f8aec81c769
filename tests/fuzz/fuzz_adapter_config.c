/* adapter_config.json: whatever is accepted has ranks and scales that arithmetic can trust, for any name;
   what is refused, its patterns too, is refused in one line. */
#include "adapter/match.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void check_refusal(void) {
    if (!*qb_error_text() || strchr(qb_error_text(), '\n')) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"model.layers.0.self_attn.q_proj", "transformer.h.11.attn.c_attn",
                                        "lm_head", "model.layers.3.mlp.experts.7.gate_proj"};
    qb_json *json = NULL;
    qb_adapter_config c;
    if (qb_json_parse((const char *)data, size, "adapter_config.json", &json) != QB_OK) return 0;
    if (qb_adapter_config_parse(json, "adapter_config.json", size % 2, &c) != QB_OK) {
        check_refusal();
        qb_json_free(json);
        return 0;
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        bool targeted;
        int64_t rank;
        double scale;
        if (qb_adapter_targets(&c, paths[i], &targeted) != QB_OK) check_refusal();
        if (qb_adapter_rank(&c, paths[i], &rank, &scale) != QB_OK)
            check_refusal();
        else if (rank < 1 || rank > 65536 || !(scale >= -1e9 && scale <= 1e9))
            abort();
        (void)qb_adapter_saves(&c, paths[i]);
        (void)qb_adapter_targets_parameter(&c, paths[i]);
    }
    qb_json_free(json);
    return 0;
}
