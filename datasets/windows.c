#include "datasets/windows.h"

#include "base/memory.h"
#include "base/rng.h"
#include "datasets/datasets.h"
#include "datasets/draw.h"

#include <inttypes.h>
#include <stdio.h>

/* SHA-256 of the ids as little-endian int32, whatever this machine's order. */
static qb_status hash_ids(const int32_t *ids, int64_t n, char hex[QB_SHA256_HEX]) {
    enum { STEP = 1024 };
    qb_hash *hash;
    qb_status st = qb_hash_begin(&hash);
    if (st != QB_OK) return st;
    for (int64_t i = 0; i < n;) {
        uint8_t bytes[STEP * 4];
        size_t used = 0;
        for (; i < n && used < sizeof bytes; i++)
            for (int shift = 0; shift < 32; shift += 8) bytes[used++] = (uint8_t)((uint32_t)ids[i] >> shift);
        qb_hash_add(hash, bytes, used);
    }
    qb_hash_end(hash, hex);
    return QB_OK;
}

qb_status qb_windows_take(qb_ids *ids, int64_t total_tokens, const char *protocol, qb_windows *out) {
    *out = (qb_windows){.ids = ids->ids, .n_ids = (int64_t)ids->count, .total_tokens = total_tokens};
    *ids = (qb_ids){0};
    snprintf(out->protocol, sizeof out->protocol, "%s", protocol);
    return hash_ids(out->ids, out->n_ids, out->sha256);
}

qb_status qb_windows_for_calibration(qb_ids *ids, int64_t seqlen, int64_t total_tokens, const char *dataset,
                                     qb_windows *out) {
    qb_status st;
    QB_TRY(st, qb_windows_take(ids, total_tokens, "calibration", out));
    snprintf(out->dataset, sizeof out->dataset, "%s", dataset);
    int64_t n = out->n_ids / seqlen;
    QB_TRY(st, qb_alloc((size_t)n, sizeof *out->windows, &out->windows));
    for (; out->count < n; out->count++)
        out->windows[out->count] = (qb_window){
            .offset = out->count * seqlen, .length = (int32_t)seqlen, .score_begin = 1, .score_end = 1};
    out->max_length = (int32_t)seqlen;
out:
    if (st != QB_OK) qb_windows_free(out);
    return st;
}

qb_status qb_random_windows(int64_t vocab, int64_t n_samples, int64_t seqlen, uint64_t seed,
                            qb_windows *out) {
    *out = (qb_windows){0};
    qb_ids ids = {0};
    qb_draw draw = {.n_samples = n_samples, .seqlen = seqlen, .seed = seed};
    qb_status st = qb_draw_check(&draw);
    if (st != QB_OK) return st;
    if (vocab < 1 || vocab > INT32_MAX)
        return qb_fail(QB_ERR_USAGE, "cannot draw ids from a vocabulary of %" PRId64 " tokens", vocab);
    size_t n = (size_t)(n_samples * seqlen);
    st = qb_grow(&ids.ids, &ids.capacity, n, sizeof *ids.ids);
    if (st != QB_OK) return st;
    qb_pyrandom random;
    qb_pyrandom_seed(&random, seed);
    for (; ids.count < n; ids.count++)
        ids.ids[ids.count] = (int32_t)qb_pyrandom_randint(&random, 0, vocab - 1);
    return qb_windows_for_calibration(&ids, seqlen, (int64_t)n, "random", out);
}
