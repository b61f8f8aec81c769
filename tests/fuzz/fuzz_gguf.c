/* Any bytes as a GGUF file: what is accepted lies inside the file, aligned, apart and sized as its types say,
   and its metadata, config, names, blocks and tokenizer can be read. */
#include "bench/gguf_tokenizer.h"
#include "checkpoint/gguf/gguf_model.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void require(int holds) {
    if (!holds) abort();
}

/* Refusals are one line. */
static void require_sentence(qb_status st) {
    if (st != QB_OK) require(qb_error_text()[0] && !strchr(qb_error_text(), '\n'));
}

static void read_values(const qb_gguf *g) {
    for (size_t i = 0; i < g->n_values; i++) {
        const qb_gguf_value *v = &g->values[i];
        qb_gguf_string *strings;
        size_t n;
        int64_t whole;
        double real;
        bool flag;
        const char *text;
        require(qb_gguf_find(g, v->key) == v);
        require_sentence(qb_gguf_int(g, v->key, true, -10, 10, &whole));
        require_sentence(qb_gguf_real(g, v->key, true, -10, 10, &real));
        require_sentence(qb_gguf_bool(g, v->key, true, &flag));
        require_sentence(qb_gguf_text(g, v->key, true, &text));
        qb_status st = qb_gguf_strings(g, v->key, true, &strings, &n);
        require_sentence(st);
        volatile char sum = 0;
        for (size_t k = 0; st == QB_OK && k < n; k++)
            for (size_t b = 0; b < strings[k].n; b++) sum = (char)(sum ^ strings[k].bytes[b]);
        qb_free(strings);
    }
}

static void read_tensor(const qb_gguf_tensor *t, const uint8_t *data, size_t size) {
    require(t->n_dims >= 0 && t->n_dims <= QB_MAX_DIMS && t->bytes >= 0);
    require(t->data >= data && (size_t)(t->data - data) <= size);
    require((size_t)t->bytes <= size - (size_t)(t->data - data));
    if (t->n_dims != 2 || t->shape[0] < 1 || t->shape[1] < 1) return;
    int64_t n = t->shape[0] * t->shape[1];
    require(t->bytes == n / t->type->block_columns * t->type->block_bytes);
    qb_qweight q;
    float *values;
    qb_status st = qb_ggml_read(
        NULL, &(qb_ggml_matrix){.type = t->type, .blocks = t->data, .rows = t->shape[0], .cols = t->shape[1]},
        &q);
    require_sentence(st);
    if (st == QB_OK && qb_alloc((size_t)n, sizeof *values, &values) == QB_OK) {
        for (int64_t i = 0; i < n; i++) require(q.codes[i] < 1 << q.bits);
        qb_qweight_dequantize(&q, values);
        qb_free(values);
    }
    qb_qweight_free(&q);
}

static void read_model(const qb_gguf *g) {
    const qb_gguf_architecture *a;
    qb_json *config = NULL;
    qb_status st = qb_gguf_architecture_of(g, &a);
    require_sentence(st);
    if (st != QB_OK) return;
    require_sentence(qb_gguf_config(g, a, &config));
    qb_json_free(config);
    for (size_t i = 0; i < g->n_tensors; i++) {
        char name[QB_TENSOR_NAME_MAX];
        require_sentence(qb_gguf_tensor_name(g, a, g->tensors[i].name, name));
    }
}

static void read_tokenizer(const qb_gguf *g) {
    static const char text[] = "the  <s>a\xE2\x96\x81\xC3 b\n";
    qb_tokenizer *t;
    qb_ids ids = {0};
    qb_str back = {0};
    qb_status st = qb_gguf_tokenizer(g, &t);
    require_sentence(st);
    if (st != QB_OK) return;
    st = qb_tokenizer_encode(t, text, sizeof text - 1, true, &ids);
    require_sentence(st);
    for (size_t i = 0; st == QB_OK && i < ids.count; i++)
        require(ids.ids[i] >= 0 && ids.ids[i] < qb_tokenizer_vocab_size(t));
    if (st == QB_OK) require_sentence(qb_tokenizer_decode(t, ids.ids, ids.count, &back));
    qb_ids_free(&ids);
    qb_str_free(&back);
    qb_tokenizer_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_arena arena = {0};
    qb_gguf g;
    qb_status st = qb_gguf_parse(data, size, "fuzz", &arena, &g);
    require_sentence(st);
    if (st == QB_OK) {
        read_values(&g);
        for (size_t i = 0; i < g.n_tensors; i++) read_tensor(&g.tensors[i], data, size);
        read_model(&g);
        read_tokenizer(&g);
    } else {
        require(g.values == NULL && g.tensors == NULL);
    }
    qb_gguf_free(&g);
    qb_arena_free(&arena);
    return 0;
}
