#include "bench/run/merged.h"

#include "adapter/merge.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/machine/machine.h"
#include "bench/run/child.h"
#include "bench/run/identity.h"
#include "bench/session.h"

#include <string.h>

typedef struct {
    const qb_merged_request *request;
    const char *base, *adapter; /* paths */
    qb_merged *out;
} job;

/* The adapter's weights and what adapter_config.json says, whatever the file's layout. */
static qb_status hash_adapter(const qb_adapter *a, char hex[QB_SHA256_HEX]) {
    char weights[QB_SHA256_HEX], *text = NULL;
    qb_str all = {0};
    qb_status st;
    QB_TRY(st, qb_checkpoint_sha256(a->checkpoint, weights));
    QB_TRY(st, qb_json_print(qb_checkpoint_config(a->checkpoint), false, &text));
    qb_str_printf(&all, "%s %s", weights, text);
    QB_TRY(st, qb_str_status(&all));
    st = qb_hash_bytes(all.text, all.length, hex);
out:
    qb_free(text);
    qb_str_free(&all);
    return st;
}

static qb_status identify(const job *j) {
    qb_model *m = NULL;
    qb_adapter a = {0};
    qb_status st;
    QB_TRY(st, qb_adapter_open(j->adapter, false, &a));
    QB_TRY(st, qb_model_open(j->base, &m));
    QB_TRY(st, qb_identity_of(m, j->out->base_sha256));
    st = hash_adapter(&a, j->out->adapter_sha256);
out:
    qb_adapter_close(&a);
    qb_model_close(m);
    return st;
}

static qb_status find_place(const job *j, qb_cache_place *place) {
    qb_json *options = qb_json_object();
    qb_json_put_text(options, "method", "merge");
    qb_json_put_text(options, "adapter", j->out->adapter_sha256);
    qb_status st = qb_cache_find(&(qb_cache_key){j->out->base_sha256, options, NULL, NULL, NULL}, place);
    qb_json_free(options);
    return st;
}

static qb_status make(void *ctx, qb_json **result) {
    const job *j = ctx;
    qb_model *m = NULL;
    qb_adapter a = {0};
    qb_threads *threads = NULL;
    qb_merge_report report;
    qb_tokenizer_files tokenizer = {0};
    qb_status st;
    (void)result;
    QB_TRY(st, qb_adapter_open(j->adapter, false, &a));
    QB_TRY(st, qb_model_open(j->base, &m));
    QB_TRY(st, qb_session_tokenizer_files(m, &tokenizer));
    QB_TRY(st, qb_threads_create((int)j->request->threads, &threads));
    qb_quant_target target = {.dir = j->out->supply.dir,
                              .replace = true,
                              .source_sha256 = j->out->base_sha256,
                              .program = qb_program_version(),
                              .files = tokenizer.files,
                              .n_files = tokenizer.n};
    st = qb_merge_model(m, &a, QB_DTYPE_COUNT, threads, &target, &report);
out:
    qb_threads_free(threads);
    qb_tokenizer_files_free(&tokenizer);
    qb_adapter_close(&a);
    qb_model_close(m);
    return st;
}

static qb_status provide(job *j) {
    qb_cache_place place = {0};
    qb_child_end end = {0};
    qb_status st;
    QB_TRY(st, identify(j));
    QB_TRY(st, find_place(j, &place));
    QB_TRY(st, qb_supply_open_place(&place, j->request->cache, NULL, &j->out->supply));
    if (j->out->supply.cached) return QB_OK;
    QB_TRY(st, qb_child_run("the merging process", make, j, &end));
    st = qb_supply_made(&j->out->supply);
out:
    qb_json_free(end.result);
    return st;
}

qb_status qb_merged_open(const qb_merged_request *request, qb_merged *out) {
    char *base = NULL, *adapter = NULL;
    *out = (qb_merged){.supply.own.lock_fd = -1};
    qb_status st;
    QB_TRY(st, qb_session_spec(request->base, false, &base));
    QB_TRY(st, qb_session_find(request->adapter, &adapter));
    st = provide(&(job){request, base, adapter, out});
out:
    qb_free(base);
    qb_free(adapter);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s with %s", request->base, request->adapter);
}

void qb_merged_close(qb_merged *m) {
    qb_supply_close(&m->supply);
    *m = (qb_merged){.supply.own.lock_fd = -1};
}
