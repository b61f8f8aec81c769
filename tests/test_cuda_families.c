/* Every family's golden model through the CUDA backend: a prompt at once and tokens after it, by the captured
   step where the backend has one, against the cpu backend, which tests/test_families.c holds against the
   references. */
#include "tests/cuda_support.h"

#include "base/json.h"
#include "model/decoder.h"

#include <math.h>

#define GOLDEN QB_SOURCE_DIR "/tests/golden/families"
enum { PROMPT = 12, AFTER = 3, TOKENS = PROMPT + AFTER, VOCAB_MAX = 512 };

/* Activations are float16 in products; what a router makes of that may differ where two experts lie close. */
static const double tolerance = 2e-3;

static float cpu_logits[(AFTER + 1) * VOCAB_MAX], cuda_logits[(AFTER + 1) * VOCAB_MAX];

/* Logits behind the prompt and behind each token after it; QB_ERR_UNSUPPORTED when the backend lacks a step.
 */
static qb_status run(const qb_backend *backend, const char *dir, const int32_t *ids, float *out,
                     int64_t *vocab, bool *captured) {
    qb_model *m;
    qb_device *dev;
    qb_workspace ws = {0};
    qb_kv kv = {0};
    float *x = NULL, *logits = NULL;
    qb_status opened = qb_model_open(dir, &m);
    if (opened == QB_ERR_UNSUPPORTED) return opened; /* no family of the program yet: said by test_families */
    assert_ok(opened);
    *vocab = m->config.vocab;
    assert_true(*vocab <= VOCAB_MAX);
    assert_ok(backend->open(&(qb_device_options){.threads = 1}, &dev));
    qb_status st = qb_model_load(m, dev, 64, true);
    if (st == QB_OK) {
        assert_ok(qb_workspace_create(m, PROMPT, &ws));
        assert_ok(qb_kv_create(m, QB_DTYPE_F32, m->config.n_layers, 1, TOKENS, &kv));
        assert_ok(backend->alloc(dev, QB_MEMORY_ACTIVATIONS, PROMPT * m->config.hidden * 4, &x));
        assert_ok(backend->alloc(dev, QB_MEMORY_ACTIVATIONS, *vocab * 4, &logits));
        for (int64_t i = 0; i <= AFTER; i++) {
            qb_span s = {.n_seq = 1, .n_tok = i ? 1 : PROMPT, .first = i ? PROMPT + i - 1 : 0, .kv = &kv};
            assert_ok(qb_model_next(m, &ws, x, ids + s.first, &s, logits));
            assert_ok(backend->download(dev, out + i * *vocab, logits, *vocab * 4));
        }
        *captured = backend->decode &&
                    backend->decode(dev, &m->decoder, &kv, ids + TOKENS - 1, 1, TOKENS - 1, logits) == QB_OK;
    }
    if (st == QB_OK) {
        backend->free(dev, x);
        backend->free(dev, logits);
        qb_kv_free(m, &kv);
        qb_workspace_free(m, &ws);
    }
    qb_model_close(m);
    if (backend == cuda)
        cuda_close_device(dev);
    else
        backend->close(dev);
    return st;
}

static void test_cuda_families__equal_the_cpu(void **state) {
    (void)state;
    qb_json *manifest;
    int32_t ids[TOKENS];
    int n = 0, refused = 0, plain = 0, bad = 0, unknown = 0;
    assert_ok(qb_json_read(GOLDEN "/manifest.json", 1 << 20, &manifest));
    const qb_json *list = qb_json_get(manifest, "ids");
    for (const qb_json *j = qb_json_first(list); j && n < TOKENS; j = qb_json_next(j))
        ids[n++] = (int32_t)qb_json_number(j);
    n = 0;
    for (const qb_json *row = qb_json_first(qb_json_get(manifest, "cases")); row;
         row = qb_json_next(row), n++) {
        const char *name = qb_json_string(qb_json_get(row, "name"));
        char dir[512];
        int64_t vocab;
        bool captured = false;
        double worst = 0, largest = 0;
        snprintf(dir, sizeof dir, "%s/%s", GOLDEN, name);
        if (run(&qb_backend_cpu, dir, ids, cpu_logits, &vocab, &captured) != QB_OK) {
            unknown++;
            continue;
        }
        qb_status st = run(cuda, dir, ids, cuda_logits, &vocab, &captured);
        if (st == QB_ERR_UNSUPPORTED) {
            print_message("refused by name: %s: %s\n", name, qb_error_text());
            refused++;
            continue;
        }
        assert_int_equal(st, QB_OK);
        for (int64_t i = 0; i < (AFTER + 1) * vocab; i++) {
            worst = fmax(worst, fabs((double)cuda_logits[i] - (double)cpu_logits[i]));
            largest = fmax(largest, fabs((double)cpu_logits[i]));
        }
        plain += !captured;
        bool wrong = !(worst <= tolerance * largest);
        bad += wrong;
        print_message("%s%s: off by %.1e of the largest logit%s\n", wrong ? "WRONG " : "", name,
                      worst / largest, captured ? "" : ", by the plain ops");
    }
    print_message("%d models, %d of families not known, %d refused by name, %d decoded by the plain ops\n", n,
                  unknown, refused, plain);
    qb_json_free(manifest);
    assert_true(n > 90);
    assert_int_equal(bad, 0);
    assert_int_equal(refused, 0);
    assert_int_equal(plain, 0); /* all decode by the captured step */
    assert_true(unknown < 20);
}

static int run_all(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_families__equal_the_cpu)};
    return cmocka_run_group_tests_name("cuda families", tests, NULL, NULL);
}

int main(void) {
    return cuda_run(run_all);
}
