#include "base/hash.h"

#include "base/file.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* qb_hash is libcrypto's digest context under our own name; it is never defined. */

static EVP_MD_CTX *context_of(qb_hash *hash) {
    return (EVP_MD_CTX *)(void *)hash;
}

static qb_status begin(const EVP_MD *kind, const char *name, qb_hash **out) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    *out = (qb_hash *)(void *)ctx;
    if (!ctx || EVP_DigestInit_ex(ctx, kind, NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        *out = NULL;
        return qb_fail(QB_ERR_INTERNAL, "libcrypto offers no %s", name);
    }
    return QB_OK;
}

qb_status qb_hash_begin(qb_hash **out) {
    return begin(EVP_sha256(), "SHA-256", out);
}

qb_status qb_hash_begin_blob(int64_t bytes, qb_hash **out) {
    char head[40];
    int n = snprintf(head, sizeof head, "blob %" PRId64, bytes);
    qb_status st = begin(EVP_sha1(), "SHA-1", out);
    if (st == QB_OK) qb_hash_add(*out, head, (size_t)n + 1);
    return st;
}

void qb_hash_add(qb_hash *hash, const void *bytes, size_t n) {
    EVP_DigestUpdate(context_of(hash), bytes, n);
}

void qb_hash_end(qb_hash *hash, char hex[QB_SHA256_HEX]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    memset(digest, 0, sizeof digest);
    EVP_DigestFinal_ex(context_of(hash), digest, &n);
    EVP_MD_CTX_free(context_of(hash));
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n && i < 32; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * (size_t)n] = 0;
}

qb_status qb_hash_bytes(const void *bytes, size_t n, char hex[QB_SHA256_HEX]) {
    qb_hash *hash;
    qb_status st = qb_hash_begin(&hash);
    if (st != QB_OK) return st;
    qb_hash_add(hash, bytes, n);
    qb_hash_end(hash, hex);
    return QB_OK;
}

/* Pages that were hashed go at once: they would count into the peak memory that is measured of a process. */
qb_status qb_hash_file(const char *path, char hex[QB_SHA256_HEX]) {
    enum { PIECE = 1 << 18 };
    qb_map map;
    qb_hash *hash;
    qb_status st = qb_map_open(path, &map);
    if (st != QB_OK) return st;
    st = qb_hash_begin(&hash);
    if (st == QB_OK) {
        const uint8_t *bytes = map.bytes;
        for (size_t at = 0; at < map.size; at += PIECE) {
            size_t n = map.size - at < PIECE ? map.size - at : PIECE;
            qb_hash_add(hash, bytes + at, n);
            qb_map_release(bytes + at, n);
        }
        qb_hash_end(hash, hex);
    }
    qb_map_close(&map);
    return st;
}
