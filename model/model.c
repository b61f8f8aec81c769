#include "model/model.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "hub/cache.h"
#include "model/load.h"
#include "model/owners.h"
#include "model/stacks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static qb_status add_spec(qb_tensor_spec *specs, size_t *n, const char *name, int64_t rows, int64_t cols) {
    qb_tensor_spec *s = &specs[(*n)++];
    if (strlen(name) >= sizeof s->name) return qb_fail(QB_ERR_INTERNAL, "tensor name %s is too long", name);
    memcpy(s->name, name, strlen(name) + 1);
    s->n_dims = cols ? 2 : 1;
    s->shape[0] = rows;
    s->shape[1] = cols;
    /* 1/sqrt(fan in) keeps activations of a random network near unit size in every block. */
    s->stddev = cols ? 1.0f / sqrtf((float)cols) : 1.0f;
    return QB_OK;
}

/* Of all experts in one tensor: [experts, a, b], and their biases. */
static qb_status add_stacked(const qb_linear *w, int64_t layer, int64_t experts, qb_tensor_spec *specs,
                             size_t *n) {
    char name[QB_NAME_BYTES];
    bool rows = w->stored == QB_STORED_STACKED_ROWS;
    qb_linear_name(w, layer, name);
    qb_tensor_spec *s = &specs[*n];
    qb_status st = add_spec(specs, n, name, rows ? w->rows : w->cols, rows ? w->cols : w->rows);
    if (st != QB_OK) return st;
    s->n_dims = 3;
    s->shape[2] = s->shape[1];
    s->shape[1] = s->shape[0];
    s->shape[0] = experts;
    s->stddev = 1.0f / sqrtf((float)w->cols);
    qb_linear_bias_name(w, layer, name);
    return w->bias ? add_spec(specs, n, name, experts, w->rows) : QB_OK;
}

static size_t most_specs(const qb_list *l) {
    size_t n = 2 * l->n_linears;
    for (size_t i = 0; i < l->n_vectors; i++) n += (size_t)l->vectors[i].parts;
    return n;
}

static qb_status list_specs(const qb_list *l, int64_t layer, int skip, int64_t experts, qb_tensor_spec *specs,
                            size_t *n) {
    char name[QB_NAME_BYTES + 8];
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < l->n_vectors; i++) {
        const qb_vector *v = &l->vectors[i];
        for (int64_t part = 0; st == QB_OK && v->source == QB_VECTOR_TENSOR && part < v->parts; part++) {
            qb_vector_name(v, layer, part, name);
            st = add_spec(specs, n, name, v->rows / v->parts, v->cols);
        }
    }
    for (size_t i = 0; st == QB_OK && i < l->n_linears; i++) {
        const qb_linear *w = &l->linears[i];
        if ((int)i == skip) continue;
        bool rows = w->stored == QB_STORED_ROWS;
        if (!rows && w->stored != QB_STORED_COLUMNS) {
            if (w->expert == 0) st = add_stacked(w, layer, experts, specs, n);
            continue;
        }
        qb_linear_name(w, layer, name);
        strcat(name, ".weight");
        st = add_spec(specs, n, name, rows ? w->rows : w->cols, rows ? w->cols : w->rows);
        qb_linear_bias_name(w, layer, name);
        if (st == QB_OK && w->bias) st = add_spec(specs, n, name, w->rows, 0);
    }
    return st;
}

qb_status qb_model_tensor_specs(const qb_topology *t, qb_tensor_spec **specs, size_t *n) {
    char name[QB_NAME_BYTES];
    size_t most = 1 + most_specs(&t->enter) + most_specs(&t->leave);
    qb_status st;
    *n = 0;
    *specs = NULL;
    for (int64_t l = 0; l < t->n_layers; l++) most += most_specs(&t->layers[l]);
    QB_TRY(st, qb_alloc_zero(most, sizeof **specs, specs));
    snprintf(name, sizeof name, "%s.weight", t->embed);
    QB_TRY(st, add_spec(*specs, n, name, t->vocab, t->embed_width));
    QB_TRY(st, list_specs(&t->enter, -1, -1, t->experts, *specs, n));
    for (int64_t l = 0; l < t->n_layers; l++)
        QB_TRY(st, list_specs(&t->layers[l], l, -1, t->experts, *specs, n));
    QB_TRY(st, list_specs(&t->leave, t->n_layers, t->tied_head ? t->head : -1, t->experts, *specs, n));
out:
    if (st != QB_OK) {
        qb_free(*specs);
        *specs = NULL;
    }
    return st;
}

static qb_status open_synthetic(const char *name, qb_model *m) {
    const qb_known_model *known = qb_known_model_find(name);
    qb_json *json = NULL;
    qb_tensor_spec *specs = NULL;
    size_t n = 0;
    bool is_dir = false;
    qb_status st = known ? QB_OK : qb_path_look_dir(name, &is_dir);
    if (st != QB_OK) return st;
    if (known) {
        QB_TRY(st, qb_json_parse(known->config_json, strlen(known->config_json), known->name, &json));
    } else if (is_dir) {
        char *path = qb_path_join(name, "config.json");
        st = path ? qb_json_read(path, 1 << 20, &json) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(path);
        if (st != QB_OK) goto out;
    } else {
        return qb_fail(QB_ERR_NOT_FOUND,
                       "synthetic:%s is neither a known shape (see `bench list models`) nor a directory with "
                       "a config.json",
                       name);
    }
    QB_TRY(st, qb_config_parse(json, name, &m->config));
    QB_TRY(st, qb_topology_build(&m->config, &m->topology));
    QB_TRY(st, qb_model_tensor_specs(&m->topology, &specs, &n));
    QB_TRY(st, qb_checkpoint_synthetic(json, specs, n, 0, &m->checkpoint));
    snprintf(m->name, sizeof m->name, "%s-synthetic", known ? known->name : qb_path_base(name));
out:
    qb_free(specs);
    qb_json_free(json);
    return st;
}

/* "a/b/" and "." name a directory too: the result wants a real base name. */
static void set_name(qb_model *m, const char *dir) {
    char *real = realpath(dir, NULL);
    snprintf(m->path, sizeof m->path, "%s", real ? real : dir);
    if (!qb_hub_name_of(m->path, m->name, sizeof m->name))
        snprintf(m->name, sizeof m->name, "%s", qb_path_base(m->path));
    free(real);
}

/* The path is where the files lie, which for a folder of the hub's cache is a snapshot. */
static qb_status adopt_names(qb_model *m) {
    const qb_topology *t = &m->topology;
    const qb_list *first = &t->layers[0];
    char *real = realpath(qb_checkpoint_dir(m->checkpoint), NULL), head[QB_NAME_BYTES];
    if (real) snprintf(m->path, sizeof m->path, "%s", real);
    free(real);
    qb_linear_name(&t->leave.linears[t->head], t->n_layers, head);
    return qb_checkpoint_adopt_names(m->checkpoint, t->embed,
                                     first->n_linears ? first->linears[0].prefix : "", head, t->tied_head);
}

static qb_status open_files(const char *spec, qb_model *m) {
    set_name(m, spec);
    qb_status st;
    QB_TRY(st, qb_checkpoint_open(spec, &m->checkpoint));
    const char *where = qb_checkpoint_config_source(m->checkpoint);
    QB_TRY(st, qb_config_parse(qb_checkpoint_config(m->checkpoint), where, &m->config));
    QB_TRY(st, qb_topology_build(&m->config, &m->topology));
    QB_TRY(st, adopt_names(m));
    QB_TRY(st, qb_model_take_stacks_apart(m));
    QB_TRY(st, qb_head_resolve(m));
out:
    return st;
}

/* For the results that are measured of it. */
static void keep_warning(void *ctx, const char *text) {
    qb_model *m = ctx;
    if (!m->warnings) m->warnings = qb_json_array();
    qb_json_push_text(m->warnings, text);
}

qb_status qb_model_open(const char *spec, qb_model **out) {
    *out = NULL;
    qb_model *m;
    qb_status st = qb_alloc_zero(1, sizeof *m, &m);
    if (st != QB_OK) return st;
    qb_log_copy(keep_warning, m);
    if (!strncmp(spec, "synthetic:", 10)) {
        snprintf(m->path, sizeof m->path, "%s", spec);
        st = open_synthetic(spec + 10, m);
    } else {
        st = open_files(spec, m);
    }
    if (st == QB_OK) st = qb_owners_build(&m->topology, &m->owners);
    if (st == QB_OK) st = qb_owners_check(m, qb_checkpoint_config_source(m->checkpoint));
    qb_log_copy(NULL, NULL);
    if (st != QB_OK)
        qb_model_close(m);
    else
        *out = m;
    return st;
}

qb_status qb_model_explain(qb_model *m, qb_status st) {
    if (st != QB_ERR_NUMERIC) return st;
    char fault[512];
    qb_status found = QB_OK;
    snprintf(fault, sizeof fault, "%s", qb_error_text());
    for (size_t i = 0; found == QB_OK && i < qb_checkpoint_count(m->checkpoint); i++)
        found = qb_checkpoint_check_finite(m->checkpoint, qb_checkpoint_at(m->checkpoint, i));
    if (found == QB_ERR_NUMERIC) return qb_fail_prefix(st, "%s", fault);
    return qb_fail(st, "%s; every weight is finite, so an activation overflows", fault);
}

void qb_model_close(qb_model *m) {
    if (!m) return;
    qb_model_unload(m);
    qb_owners_free(m->owners);
    qb_topology_free(&m->topology);
    qb_checkpoint_close(m->checkpoint);
    qb_json_free(m->warnings);
    qb_free(m);
}
