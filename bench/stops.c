#include "bench/stops.h"

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/gguf/gguf.h"

#include <string.h>

enum { CONFIG_BYTES_MAX = 64 << 20 };

static void add(qb_stops *s, double id) {
    if (!(id >= 0 && id < INT32_MAX) || s->n == QB_STOPS_MAX) return;
    for (size_t i = 0; i < s->n; i++)
        if (s->ids[i] == (int32_t)id) return;
    s->ids[s->n++] = (int32_t)id;
}

static void add_all(qb_stops *s, const qb_json *j) {
    if (qb_json_is_number(j)) add(s, qb_json_number(j));
    if (!qb_json_is_array(j)) return;
    for (const qb_json *c = qb_json_first(j); c; c = qb_json_next(c)) add(s, qb_json_number(c));
}

static qb_status add_file(qb_stops *s, const char *dir, const char *name) {
    char *path = qb_path_join(dir, name);
    qb_json *json = NULL;
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    bool there;
    qb_status st = qb_path_look(path, &there);
    if (st == QB_OK && there) st = qb_json_read(path, CONFIG_BYTES_MAX, &json);
    add_all(s, qb_json_get(json, "eos_token_id"));
    add_all(s, qb_json_get(qb_json_get(json, "text_config"), "eos_token_id"));
    qb_json_free(json);
    qb_free(path);
    return st;
}

static qb_status add_gguf(qb_stops *s, const qb_gguf *g) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < sizeof keys / sizeof keys[0]; i++) {
        int64_t id = -1;
        st = qb_gguf_int(g, keys[i], false, -1, UINT32_MAX, &id);
        add(s, (double)id);
    }
    return st;
}

qb_status qb_stops_read(const qb_model *m, const qb_tokenizer *t, qb_stops *out) {
    const qb_gguf *gguf = qb_checkpoint_gguf(m->checkpoint);
    *out = (qb_stops){0};
    add(out, qb_tokenizer_eos(t));
    if (gguf) return add_gguf(out, gguf);
    qb_status st = add_file(out, m->path, "config.json");
    return st == QB_OK ? add_file(out, m->path, "generation_config.json") : st;
}
