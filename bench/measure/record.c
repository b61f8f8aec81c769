#include "bench/measure/record.h"

#include "base/clock.h"
#include "base/memory.h"
#include "bench/machine/machine.h"
#include "results/results.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the device ---- */

qb_status qb_device_facts_take(qb_device *dev, bool measure, qb_device_facts *out) {
    *out = (qb_device_facts){.measured = measure};
    if (getloadavg(&out->load_average, 1) != 1) out->load_average = (double)NAN;
    qb_status st = measure ? dev->backend->ceilings(dev, &out->ceilings) : QB_OK;
    if (st != QB_OK) return st;
    out->describe = dev->backend->describe(dev); /* with what was measured of its parts */
    return out->describe ? QB_OK : qb_fail(QB_ERR_MEMORY, "out of memory");
}

void qb_device_facts_free(qb_device_facts *f) {
    qb_json_free(f->describe);
    *f = (qb_device_facts){0};
}

qb_json *qb_device_facts_json(const qb_device_facts *f) {
    qb_json *j = qb_json_object();
    qb_json_put(j, "describe", qb_json_copy(f->describe));
    qb_json_put_real(j, "load_average", f->load_average);
    if (f->measured) qb_ceilings_write(&f->ceilings, "", j);
    return j;
}

qb_status qb_device_facts_parse(const qb_json *json, qb_device_facts *out) {
    *out = (qb_device_facts){.describe = qb_json_copy(qb_json_get(json, "describe"))};
    out->load_average = qb_json_number(qb_json_get(json, "load_average"));
    out->ceilings = qb_ceilings_read(json, "");
    out->measured = out->ceilings.read_bytes_per_s > 0;
    return out->describe ? QB_OK : qb_fail(QB_ERR_INTERNAL, "the probe told nothing of the device");
}

/* ---- context ---- */

static int command_argc;
static char **command_argv;

void qb_record_command(int argc, char **argv) {
    command_argc = argc;
    command_argv = argv;
}

void qb_record_command_text(qb_str *out) {
    qb_str_text(out, "bench");
    for (int i = 1; i < command_argc; i++) {
        const char *word = command_argv[i];
        bool plain = *word && !word[strcspn(word, " \t\n\"'\\$`*?[]{}()<>|&;#~!")];
        qb_str_text(out, plain ? " " : " '");
        for (const char *p = word; *p; p++)
            if (*p == '\'')
                qb_str_text(out, "'\\''");
            else
                qb_str_append(out, p, 1);
        if (!plain) qb_str_text(out, "'");
    }
}

qb_json *qb_record_device(const char *id, const char *backend, const qb_device_facts *facts) {
    qb_json *m = qb_json_object(), *host = qb_machine_json();
    qb_json_put_text(m, "id", id);
    qb_json_put_text(m, "backend", backend);
    for (const qb_json *j = qb_json_first(host); j; j = qb_json_next(j))
        qb_json_put(m, qb_json_key(j), qb_json_copy(j));
    qb_json_free(host);
    for (const qb_json *j = qb_json_first(facts->describe); j; j = qb_json_next(j)) {
        bool own_memory = !strcmp(qb_json_key(j), "memory_bytes");
        qb_json_put(m, own_memory ? "device_memory_bytes" : qb_json_key(j), qb_json_copy(j));
    }
    qb_json_put_real(m, "load_average", facts->load_average);
    if (facts->measured) {
        qb_json *c = qb_json_object();
        qb_ceilings_write(&facts->ceilings, "", c);
        qb_json_put(m, "ceilings", c);
    } else {
        qb_json_put_null(m, "ceilings");
    }
    return m;
}

qb_json *qb_record_context(const char *suite, qb_json *devices, qb_json *data) {
    qb_json *c = qb_json_object();
    char now[32];
    qb_now_rfc3339(now);
    qb_json_put(c, "program", qb_program_json());
    qb_json_put_text(c, "created", now);
    qb_json_put_text(c, "suite", suite);
    qb_json *command = qb_json_array();
    for (int i = 0; i < command_argc; i++) qb_json_push_text(command, command_argv[i]);
    qb_json_put(c, "command", command);
    qb_json_put(c, "devices", devices ? devices : qb_json_array());
    qb_json_put(c, "data", data ? data : qb_json_array());
    return c;
}

/* ---- cases ---- */

/* The element type of most bytes among the matrices, in lower case; "" when there is none. */
static void dense_type(const qb_model *m, char out[16]) {
    int64_t sums[QB_DTYPE_COUNT + 1] = {0}, most = 0;
    out[0] = 0;
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
        int64_t *sum = &sums[t->dtype];
        if (t->n_dims < 2 || (*sum += t->bytes) <= most) continue;
        most = *sum;
        const char *name = qb_checkpoint_dtype_name(m->checkpoint, t);
        size_t n = 0;
        for (; name[n] && n + 1 < 16; n++) out[n] = (char)tolower((unsigned char)name[n]);
        out[n] = 0;
    }
}

void qb_record_found_label(const qb_model *m, char out[96]) {
    const qb_quantization *q = qb_checkpoint_quantization(m->checkpoint);
    char type[16];
    dense_type(m, type);
    snprintf(out, 96, "%s", (q && q->method[0]) || !type[0] ? "as-is" : type);
}

qb_json *qb_record_model(const qb_model *m, const char *sha256) {
    const qb_quantization *q = qb_checkpoint_quantization(m->checkpoint);
    bool quantized = q && q->method[0];
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "name", m->name);
    qb_json_put_text(j, "path", m->path);
    qb_json_put_text(j, "sha256", sha256 && *sha256 ? sha256 : NULL);
    qb_json_put_text(j, "architecture", m->config.architecture);
    char type[16];
    dense_type(m, type);
    qb_json_put_text(j, "dtype", quantized || !type[0] ? NULL : type);
    qb_json_put_int(j, "n_layers", m->config.n_layers);
    qb_json_put_int(j, "n_params", qb_topology_params(&m->topology));
    qb_json_put_int(j, "n_quantized_params", quantized ? qb_topology_linear_params(&m->topology) : 0);
    qb_json_put_int(j, "checkpoint_bytes", qb_checkpoint_tensor_bytes(m->checkpoint));
    qb_json_put_real(j, "bits_per_weight", qb_model_bits_per_weight(m));
    return j;
}

qb_json *qb_record_found_method(const qb_model *m) {
    const qb_quantization *q = qb_checkpoint_quantization(m->checkpoint);
    qb_json *j = qb_json_object();
    bool quantized = q && q->method[0];
    bool codebook = quantized && q->codebook[0], int8 = quantized && !strcmp(q->layout, "bnb8");
    qb_json_put_text(j, "method", !quantized ? "none" : codebook ? q->codebook : int8 ? "int8" : q->method);
    if (!quantized) return j;
    qb_json_put_text(j, "layout", q->layout);
    qb_json_put_int(j, "bits", q->bits);
    if (codebook) {
        qb_json_put_bool(j, "double_quant", q->double_quant);
    } else {
        qb_json_put_int(j, "group_size", q->group_size);
        qb_json_put_bool(j, "sym", q->symmetric);
        qb_json_put_bool(j, "act_order", q->desc_act);
    }
    return j;
}

qb_json *qb_record_case(const qb_case_record *r) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "id", r->id);
    qb_json_put_text(j, "status", r->status);
    qb_json_put_text(j, "device", r->device);
    qb_json_put_text(j, "error", r->error);
    qb_json_put_text(j, "started", r->started);
    qb_json_put_real(j, "seconds", r->seconds);
    if (r->rounds > 0) {
        qb_json *rounds = qb_json_object();
        qb_json_put_int(rounds, "done", r->rounds_done);
        qb_json_put_int(rounds, "of", r->rounds);
        qb_json_put(j, "rounds", rounds);
    }
    if (r->display) qb_json_put(j, "display", r->display);
    qb_json_put(j, "config", r->config ? r->config : qb_json_object());
    if (r->model)
        qb_json_put(j, "model", r->model);
    else
        qb_json_put_null(j, "model");
    if (r->quantization)
        qb_json_put(j, "quantization", r->quantization);
    else
        qb_json_put_null(j, "quantization");
    qb_json_put(j, "metrics", r->metrics ? r->metrics : qb_json_array());
    if (qb_json_first(r->warnings)) qb_json_put(j, "warnings", qb_json_copy(r->warnings));
    return j;
}

/* The report calls a module's place "module" and its rate by the whole word; the result's schema is shorter.
 */
static qb_json *modules_json(const qb_json *modules) {
    qb_json *array = qb_json_array();
    for (const qb_json *m = qb_json_first(modules); m; m = qb_json_next(m)) {
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "name", qb_json_string(qb_json_get(m, "module")));
        for (const qb_json *e = qb_json_first(m); e; e = qb_json_next(e))
            if (strcmp(qb_json_key(e), "module") != 0) qb_json_put(j, qb_json_key(e), qb_json_copy(e));
        qb_json_push(array, j);
    }
    return array;
}

qb_json *qb_record_quantization(const char *method, const qb_json *report, bool cached) {
    static const struct {
        const char *key, *from;
    } members[] = {{"seconds", "seconds"},
                   {"params_per_s", "params_per_second"},
                   {"peak_rss_bytes", "peak_rss_bytes"},
                   {"checkpoint_bytes", "checkpoint_bytes"},
                   {"bits_per_weight", "bits_per_weight"}};
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "method", method);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const qb_json *value = qb_json_get(report, members[i].from);
        if (value)
            qb_json_put(j, members[i].key, qb_json_copy(value));
        else
            qb_json_put_null(j, members[i].key);
    }
    qb_json_put_bool(j, "cached", cached);
    qb_json_put(j, "modules", modules_json(qb_json_get(report, "modules")));
    return j;
}
