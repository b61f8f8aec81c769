#include "bench/run/identity.h"

#include "base/log.h"
#include "base/memory.h"
#include "bench/machine/machine.h"
#include "bench/run/child.h"
#include "bench/run/remembered.h"

#include <string.h>

static qb_status hash_weights(void *ctx, qb_json **result) {
    const qb_model *m = ctx;
    char hex[QB_SHA256_HEX];
    qb_status st = qb_checkpoint_sha256(m->checkpoint, hex);
    if (st != QB_OK) return st;
    *result = qb_json_object();
    qb_json_put_text(*result, "sha256", hex);
    return QB_OK;
}

qb_status qb_identity_of(const qb_model *m, char hex[QB_SHA256_HEX]) {
    bool synthetic = qb_checkpoint_is_synthetic(m->checkpoint), found = false;
    if (!synthetic) {
        qb_status st = qb_identity_recall(m->path, hex, &found);
        if (st != QB_OK || found) return st;
    }
    qb_child_end end;
    qb_status st = qb_child_run("hashing the weights", hash_weights, (void *)(uintptr_t)m, &end);
    const char *text = qb_json_string(qb_json_get(end.result, "sha256"));
    if (st == QB_OK && (!text || strlen(text) != QB_SHA256_HEX - 1))
        st = qb_fail(QB_ERR_INTERNAL, "the weights of %s have no hash", m->name);
    if (st == QB_OK) memcpy(hex, text, QB_SHA256_HEX);
    qb_json_free(end.result);
    if (st == QB_OK && !synthetic && qb_identity_remember(m->path, hex) != QB_OK)
        qb_debug("the hash of the weights is not remembered: %s", qb_error_text());
    return st;
}

qb_status qb_identity_of_run(const char *model_sha256, const qb_quant_method *method,
                             const qb_quant_config *config, const qb_windows *calibration, const char *format,
                             const qb_device *dev, char hex[QB_SHA256_HEX]) {
    static const char *const facts[] = {"simd", "blas", "name", "device", "compute_capability"};
    char program[QB_SHA256_HEX], *text = NULL;
    qb_json *j = qb_json_object(), *options = qb_json_object();
    qb_json *describe = dev->backend->describe((qb_device *)(uintptr_t)dev);
    qb_status st;
    qb_options_to_json(method->options, config, options);
    qb_json_put_text(j, "model", model_sha256);
    qb_json_put_text(j, "method", method->name);
    qb_json_put(j, "options", options);
    qb_json_put_text(j, "calibration", calibration && calibration->count ? calibration->sha256 : NULL);
    qb_json_put_text(j, "format", format);
    qb_json_put_text(j, "backend", dev->backend->name);
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        const qb_json *fact = qb_json_get(describe, facts[i]);
        if (fact) qb_json_put(j, facts[i], qb_json_copy(fact));
    }
    QB_TRY(st, qb_program_sha256(program));
    qb_json_put_text(j, "program", program);
    QB_TRY(st, qb_json_print(j, false, &text));
    st = qb_hash_bytes(text, strlen(text), hex);
out:
    qb_json_free(j);
    qb_json_free(describe);
    qb_free(text);
    return st;
}
