#include "eval/eval.h"
#include "eval/watch.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

qb_status qb_measure_init(qb_measure *row, const char *metric) {
    const qb_metric *m = qb_metric_find(metric);
    if (!m) return qb_fail(QB_ERR_INTERNAL, "metric %s is not in base/metrics.def", metric);
    *row = (qb_measure){
        .higher_is_better = m->higher_is_better, .value = (double)NAN, .stderr_value = (double)NAN};
    snprintf(row->name, sizeof row->name, "%s", m->name);
    snprintf(row->unit, sizeof row->unit, "%s", m->unit);
    row->extra = qb_json_object();
    return row->extra ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

qb_status qb_measures_add(qb_measures *m, const char *metric, qb_measure **row) {
    *row = NULL;
    qb_status st = qb_grow(&m->rows, &m->capacity, m->count + 1, sizeof *m->rows);
    if (st == QB_OK) st = qb_measure_init(&m->rows[m->count], metric);
    if (st == QB_OK) *row = &m->rows[m->count++];
    return st;
}

void qb_measure_free(qb_measure *row) {
    if (!row) return;
    qb_json_free(row->extra);
    row->extra = NULL;
}

void qb_measures_free(qb_measures *m) {
    if (!m) return;
    for (size_t i = 0; i < m->count; i++) qb_measure_free(&m->rows[i]);
    qb_free(m->rows);
    *m = (qb_measures){0};
}

int64_t qb_peak_rss_bytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}

static qb_status add_value(qb_measures *out, const char *metric, double value) {
    qb_measure *row;
    qb_status st = qb_measures_add(out, metric, &row);
    if (st != QB_OK) return st;
    row->value = value;
    row->n = 1;
    return QB_OK;
}

static const char *const kind_names[QB_MEMORY_COUNT] = {"weights", "kv", "activations", "workspace"};

static void put_kinds(const int64_t bytes[QB_MEMORY_COUNT], const char *suffix, qb_json *extra) {
    char key[48];
    for (int k = 0; k < QB_MEMORY_COUNT; k++) {
        snprintf(key, sizeof key, "%s%s", kind_names[k], suffix);
        qb_json_put_int(extra, key, bytes[k]);
    }
}

/* A device with memory of its own: what the allocator gave beside what the driver sees; the rest
   is the context's, with its code and libraries. */
static qb_status add_device_memory(qb_device *dev, const qb_memory *memory, qb_measures *out) {
    if (!dev->backend->separate_memory) return QB_OK;
    qb_status st = add_value(out, "device_memory_bytes", (double)memory->total_peak_bytes);
    if (st != QB_OK) return st;
    qb_json *extra = out->rows[out->count - 1].extra;
    int64_t now = 0, process = qb_watch_process_bytes(dev);
    for (int k = 0; k < QB_MEMORY_COUNT; k++) now += memory->now_bytes[k];
    put_kinds(memory->now_bytes, "_now_bytes", extra);
    put_kinds(memory->peak_bytes, "_bytes", extra);
    if (process >= 0) {
        qb_json_put_int(extra, "driver_process_bytes", process);
        qb_json_put_int(extra, "context_bytes", process - now);
    } else {
        qb_json_put_null(extra, "driver_process_bytes");
    }
    return QB_OK;
}

/* Not of random weights, which are made. Dense ones of a file are read where they lie, when they are first
   used; packed ones are laid out here. */
static void put_load(const qb_model *m, qb_json *extra) {
    if (m->load_seconds <= 0 || qb_checkpoint_is_synthetic(m->checkpoint)) return;
    qb_json_put_real(extra, "load_seconds", m->load_seconds);
    qb_json_put_real(extra, "load_bytes_per_s",
                     (double)qb_checkpoint_tensor_bytes(m->checkpoint) / m->load_seconds);
}

qb_status qb_memory_measures(qb_model *m, qb_device *dev, qb_measures *out) {
    const qb_topology *t = &m->topology;
    qb_status st;
    QB_TRY(st, add_value(out, "checkpoint_bytes", (double)qb_checkpoint_tensor_bytes(m->checkpoint)));
    QB_TRY(st, add_value(out, "bits_per_weight", qb_model_bits_per_weight(m)));
    QB_TRY(st, add_value(out, "resident_weight_bytes", (double)qb_model_weight_bytes(m)));
    put_load(m, out->rows[out->count - 1].extra);
    QB_TRY(st, add_value(out, "kv_bytes_per_token", (double)qb_kv_bytes(t, QB_DTYPE_F16, t->n_layers, 1, 1)));
    QB_TRY(st, add_value(out, "peak_rss_bytes", (double)qb_peak_rss_bytes()));
    qb_memory memory;
    dev->backend->memory(dev, &memory);
    if (!dev->backend->separate_memory)
        put_kinds(memory.peak_bytes, "_bytes", out->rows[out->count - 1].extra);
    QB_TRY(st, add_device_memory(dev, &memory, out));
out:
    return st;
}
