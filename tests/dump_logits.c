/* The logits of a model for given token ids, for comparison with other programs: a program, not a test.
   dump_logits MODEL IDS OUT: IDS holds one sequence of token ids as text, OUT becomes float32 [tokens, V]. */
#include "base/file.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "model/decoder.h"

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS_MAX = 4096 };

static void check(qb_status st) {
    if (st == QB_OK) return;
    fprintf(stderr, "%s: %s\n", qb_status_text(st), qb_error_text());
    exit(1);
}

static int64_t read_ids(const char *path, int32_t *ids) {
    char *text, *end;
    size_t size;
    int64_t n = 0;
    check(qb_file_read(path, 1 << 20, &text, &size));
    for (char *p = text; n < TOKENS_MAX; p = end) {
        long id = strtol(p, &end, 10);
        if (end == p) break;
        ids[n++] = (int32_t)id;
    }
    qb_free(text);
    return n;
}

int main(int argc, char **argv) {
    static int32_t ids[TOKENS_MAX];
    if (argc != 4) {
        fprintf(stderr, "usage: dump_logits MODEL IDS OUT\n");
        return 2;
    }
    qb_device *dev;
    qb_model *m;
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits, *host;
    int64_t n = read_ids(argv[2], ids);
    check(n > 0 ? QB_OK : qb_fail(QB_ERR_USAGE, "%s holds no token ids", argv[2]));
    check(qb_backend_find("cpu")->open(&(qb_device_options){0}, &dev));
    check(qb_model_open(argv[1], &m));
    check(qb_model_load(m, dev, n, true));
    check(qb_workspace_create(m, n, &ws));
    check(qb_kv_create(m, QB_DTYPE_F32, m->config.n_layers, 1, n, &kv));
    int64_t hidden = n * m->config.hidden * 4, size = n * m->config.vocab * 4;
    check(dev->backend->alloc(dev, QB_MEMORY_ACTIVATIONS, hidden, &x));
    check(dev->backend->alloc(dev, QB_MEMORY_ACTIVATIONS, size, &logits));
    check(qb_alloc((size_t)size, 1, &host));
    qb_span s = {.n_seq = 1, .n_tok = n, .first = 0, .kv = &kv, .kv_layer = 0};
    check(qb_model_forward(m, &ws, x, ids, &s));
    check(qb_model_head(m, &ws, logits, x, n));
    check(dev->backend->download(dev, host, logits, size));
    check(qb_file_write_atomic(argv[3], host, (size_t)size));
    qb_free(host);
    dev->backend->free(dev, x);
    dev->backend->free(dev, logits);
    qb_kv_free(m, &kv);
    qb_workspace_free(m, &ws);
    qb_model_close(m);
    dev->backend->close(dev);
    return 0;
}
