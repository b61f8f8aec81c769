/* config.json: whatever parses has shapes that arithmetic can trust. */
#include "base/json.h"
#include "model/config.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_json *json = NULL;
    qb_config c;
    if (qb_json_parse((const char *)data, size, "config.json", &json) == QB_OK &&
        qb_config_parse(json, "config.json", &c) == QB_OK) {
        if (c.n_heads % c.n_kv_heads || c.head_dim < 1 || qb_config_linear_params(&c) <= 0 ||
            qb_config_params(&c) < qb_config_linear_params(&c))
            abort();
    }
    qb_json_free(json);
    return 0;
}
