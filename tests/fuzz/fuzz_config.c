/* config.json: whatever parses has shapes that arithmetic can trust, and a list of steps. */
#include "base/json.h"
#include "model/topology.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_json *json = NULL;
    qb_topology t;
    static qb_config c;
    if (qb_json_parse((const char *)data, size, "config.json", &json) == QB_OK &&
        qb_config_parse(json, "config.json", &c) == QB_OK && c.n_layers <= 64 &&
        qb_topology_build(&c, &t) == QB_OK) {
        if (c.n_heads % c.n_kv_heads || c.head_dim < 1 || qb_topology_linear_params(&t) <= 0 ||
            qb_topology_params(&t) < qb_topology_linear_params(&t))
            abort();
        qb_topology_free(&t);
    }
    qb_json_free(json);
    return 0;
}
