/* Reading config.json through a family's keys, so that what nobody read is known afterwards. */
#pragma once

#include "base/json.h"

enum { QB_KEYS_READ_MAX = 160 };
typedef struct qb_keys {
    const qb_json *json;
    const char *where; /* heads errors */
    qb_status st;      /* the first failure; later calls keep their values */
    const char *read[QB_KEYS_READ_MAX];
    int n_read;
} qb_keys;

/* names: the spellings of one key, '|' between, the preferred first. Absent or null keeps *value unless
   `required`. Spellings that disagree are warned of; the first counts. */
void qb_key_int(qb_keys *k, const char *names, bool required, int64_t min, int64_t max, int64_t *value);
void qb_key_real(qb_keys *k, const char *names, bool required, double min, double max, double *value);
void qb_key_float(qb_keys *k, const char *names, bool required, double min, double max, float *value);
void qb_key_bool(qb_keys *k, const char *names, bool *value);
void qb_key_text(qb_keys *k, const char *names, bool required, const char **value);
/* A text or truth value of which only one is computed: others are refused. */
void qb_key_only_text(qb_keys *k, const char *names, const char *only);
void qb_key_only_bool(qb_keys *k, const char *names, bool only);
/* The value itself, whatever it is; NULL when absent or null. Counts as read. */
const qb_json *qb_key_any(qb_keys *k, const char *names);
void qb_keys_mark(qb_keys *k, const char *names); /* read elsewhere, or known to change nothing here */
bool qb_key_was_read(const qb_keys *k, const char *key);
/* An error of the caller's, if none came before. */
void qb_keys_fail(qb_keys *k, qb_status code, const char *fmt, ...) QB_PRINTF(3, 4);

/* Accounts for every key of the object. Keys that change what some family computes (keys_that_compute.def)
   and that were not read are refused by name unless their value is the one that changes nothing. Keys that
   were neither read nor are known to change nothing (inert_keys.def) are warned of; null and what is empty
   say nothing. */
qb_status qb_keys_account(const qb_keys *k) QB_NODISCARD;
/* The same for a wrapper around the text's part `text`: nothing of it is refused, for the text's class does
   not read it, and keys that repeat what stands in the part are passed over. */
void qb_keys_account_wrapper(const qb_keys *k, const qb_json *text);
