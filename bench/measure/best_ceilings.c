#include "bench/measure/best_ceilings.h"

#include "base/ceilings.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "results/device.h"

enum { FILE_MAX = 1 << 20 };

static double value_of(const qb_json *entry, const char *key) {
    return qb_json_number(qb_json_get(qb_json_get(entry, key), "value"));
}

/* The entry with what is measured now where that is more, dated; whether anything was. */
static qb_json *join(const qb_json *old, const qb_ceilings *now, double load, bool *more) {
    qb_json *entry = qb_json_is_object(old) ? qb_json_copy(old) : qb_json_object();
    char date[32];
    const qb_ceiling *c;
    qb_now_rfc3339(date);
    for (size_t i = 0; (c = qb_ceiling_at(i)); i++) {
        double value = qb_ceiling_of(now, c), best = value_of(old, c->key);
        if (!(value > 0) || best >= value) continue;
        qb_json *one = qb_json_object();
        qb_json_put_real(one, "value", value);
        qb_json_put_text(one, "date", date);
        qb_json_put_real(one, "load_average", load);
        qb_json_put(entry, c->key, one);
        *more = true;
    }
    return entry;
}

/* A file that is not there yet, and one that nobody can read, are empty. */
static qb_json *known_devices(const char *path) {
    qb_json *file = NULL;
    bool there = false;
    if (qb_path_look(path, &there) != QB_OK || !there) return qb_json_object();
    if (qb_json_read(path, FILE_MAX, &file) != QB_OK) qb_warn("%s; it begins anew", qb_error_text());
    const qb_json *devices = qb_json_get(file, "devices");
    qb_json *copy = qb_json_is_object(devices) ? qb_json_copy(devices) : qb_json_object();
    qb_json_free(file);
    return copy;
}

/* Takes devices. */
static qb_status write_devices(qb_json *devices, const char *path) {
    qb_json *file = qb_json_object();
    qb_json_put(file, "devices", devices);
    qb_status st = qb_json_write_atomic(file, path);
    qb_json_free(file);
    return st;
}

void qb_ceilings_remember(qb_json *device) {
    if (!qb_json_is_object(qb_json_get(device, "ceilings"))) return;
    qb_json *ceilings = qb_json_take(device, "ceilings");
    const qb_ceilings now = qb_ceilings_read(ceilings, "");
    char *cache = qb_cache_dir(), *path = qb_path_join(cache, "ceilings.json");
    qb_file_lock lock = {0};
    qb_lock_answer answer = QB_LOCK_UNSURE;
    qb_str key = {0};
    bool more = false;
    qb_device_identity(device, &key);
    qb_status st = cache && path ? qb_make_dirs(cache) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_file_lock_try(path, QB_LOCK_EXCLUSIVE, &lock, &answer);
    if (st == QB_OK) {
        qb_json *devices = known_devices(path);
        qb_json *entry = join(qb_json_get(devices, qb_str_get(&key)), &now,
                              qb_json_number(qb_json_get(device, "load_average")), &more);
        qb_json_put(ceilings, "best", qb_json_copy(entry));
        qb_json_put(devices, qb_str_get(&key), entry);
        /* Who writes now knows as much as we do; the next measurement will tell again. */
        if (more && answer != QB_LOCK_BUSY)
            st = write_devices(devices, path);
        else
            qb_json_free(devices);
    }
    if (st != QB_OK) qb_warn("the best ceilings of this machine are not kept: %s", qb_error_text());
    qb_file_unlock(&lock);
    qb_json_put(device, "ceilings", ceilings);
    qb_str_free(&key);
    qb_free(path);
    qb_free(cache);
}
