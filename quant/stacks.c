#include "quant/stacks.h"

#include "base/memory.h"
#include "model/load.h"
#include "model/owners.h"
#include "quant/target.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool qb_stacks_own(const qb_module *module) {
    return module->linear && module->linear->stack;
}

static bool is_apart(const qb_linear *l) {
    return l->stack && l->stored == QB_STORED_ROWS;
}

bool qb_stacks_own_tensor(const qb_model *m, const char *tensor) {
    const qb_owner *o = qb_owners_find(m->owners, tensor);
    if (!o || !o->linear || !o->linear->stack) return false;
    return o->kind == QB_OWNER_LINEAR || is_apart(o->linear);
}

/* The first expert's linear, or its first part, stands for all, which follow it: all experts' first parts,
   then their second. */
static bool begins(const qb_linear *l) {
    return l->stack && l->expert == 0 && l->part == 0;
}

static void name_of(const qb_linear *l, int64_t layer, const char *suffix, char out[QB_NAME_BYTES + 8]) {
    qb_linear one = *l;
    one.name = l->stack->name;
    qb_linear_name(&one, layer, out);
    strcat(out, suffix);
}

static int64_t parts_of(const qb_linear *l) {
    return l->parts ? l->parts : 1;
}

static int64_t all_rows(const qb_linear *l) {
    return l->rows * parts_of(l);
}

static bool turned(const qb_linear *l) {
    return l->stack->stored == QB_STORED_STACKED_COLUMNS;
}

typedef struct {
    const qb_model *m;
    qb_dtype as;
    qb_writer *w;
    const qb_stacks_change *change;
    qb_conversion *report;
} writing;

static qb_status plan_one(const writing *s, const qb_linear *l, int64_t layer) {
    char name[QB_NAME_BYTES + 8];
    int64_t n = s->m->config.n_experts;
    name_of(l, layer, l->stack->suffix, name);
    qb_status st =
        qb_writer_plan(s->w, name, s->as, 3,
                       (int64_t[]){n, turned(l) ? l->cols : all_rows(l), turned(l) ? all_rows(l) : l->cols});
    if (st != QB_OK || !l->bias || !is_apart(l)) return st;
    name_of(l, layer, l->stack->bias, name);
    return qb_writer_plan(s->w, name, s->as, 2, (int64_t[]){n, all_rows(l)});
}

static qb_status each(const writing *s, qb_status (*f)(const writing *s, const qb_linear *l, int64_t layer)) {
    const qb_topology *t = &s->m->topology;
    qb_status st = QB_OK;
    for (int64_t layer = 0; layer < t->n_layers; layer++)
        for (size_t i = 0; st == QB_OK && i < t->layers[layer].n_linears; i++)
            if (begins(&t->layers[layer].linears[i])) st = f(s, &t->layers[layer].linears[i], layer);
    return st;
}

qb_status qb_stacks_plan(const qb_model *m, qb_dtype as, qb_writer *w) {
    return each(&(writing){.m = m, .as = as, .w = w}, plan_one);
}

/* ---- writing ---- */

/* Into the columns of a matrix that has `all` of them. */
static void turn_into(const float *values, int64_t rows, int64_t cols, float *out, int64_t all) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) out[c * all + r] = values[r * cols + c];
}

/* One expert's matrix, or a part of its rows, as the stack has it, into `out`, where the matrix begins. */
static qb_status read_matrix(const writing *s, const qb_linear *l, int64_t layer, float *values, float *out,
                             bool *packed) {
    const qb_model *m = s->m;
    char module[QB_NAME_BYTES];
    qb_weight w;
    int64_t n = l->rows * l->cols;
    float *to = turned(l) ? values : out + l->part * n;
    qb_linear_name(l, layer, module);
    qb_status st = qb_linear_read(m, l, layer, &w);
    if (st != QB_OK) return st;
    *packed = w.packed != NULL;
    if (w.packed)
        qb_qweight_dequantize(w.packed, to);
    else
        st = qb_to_f32(w.dtype, w.dense, n, to);
    for (int64_t i = 0; st == QB_OK && i < n; i++)
        if (!isfinite(to[i]))
            st = qb_fail(QB_ERR_NUMERIC, "%s: an element is %g: the checkpoint is damaged", module,
                         (double)to[i]);
    if (st == QB_OK && s->change)
        st = s->change->change(s->change->ctx, module, l->expert, l->rows, l->cols, to);
    if (st == QB_OK && turned(l)) turn_into(values, l->rows, l->cols, out + l->part * l->rows, all_rows(l));
    qb_linear_unread(m, l, layer, &w);
    return st;
}

static qb_status put_biases(const writing *s, const qb_linear *l, int64_t layer) {
    char name[QB_NAME_BYTES + 8];
    int64_t n = s->m->config.n_experts;
    float *all = NULL, *one = NULL;
    qb_status st = qb_alloc((size_t)(n * all_rows(l)), sizeof *all, &all);
    for (int64_t i = 0; st == QB_OK && i < n * parts_of(l); i++) {
        qb_linear_bias_name(&l[i], layer, name);
        st = qb_checkpoint_read_f32(s->m->checkpoint, name, l->rows, 0, &one);
        float *to = all + l[i].expert * all_rows(l) + l[i].part * l->rows;
        if (st == QB_OK) memcpy(to, one, (size_t)l->rows * sizeof *all);
        qb_free(one);
        one = NULL;
    }
    name_of(l, layer, l->stack->bias, name);
    if (st == QB_OK) st = qb_target_put_as(s->w, name, all, n * all_rows(l), s->as, NULL);
    qb_free(all);
    return st;
}

static qb_status put_each(const writing *s, const qb_linear *l, int64_t layer) {
    char name[QB_NAME_BYTES + 8];
    int64_t n = s->m->config.n_experts, size = all_rows(l) * l->cols;
    float *all = NULL, *values = NULL;
    bool packed = false;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)(n * size), sizeof *all, &all));
    QB_TRY(st, qb_alloc((size_t)(l->rows * l->cols), sizeof *values, &values));
    for (int64_t i = 0; i < n * parts_of(l); i++)
        QB_TRY(st, read_matrix(s, &l[i], layer, values, all + l[i].expert * size, &packed));
    name_of(l, layer, l->stack->suffix, name);
    QB_TRY(st, qb_target_put_as(s->w, name, all, n * size, s->as,
                                packed || s->change ? &s->report->rounded : NULL));
    s->report->modules += n * parts_of(l);
    s->report->weights += n * size;
    if (l->bias && is_apart(l)) st = put_biases(s, l, layer);
out:
    qb_free(all);
    qb_free(values);
    return st;
}

qb_status qb_stacks_put(const qb_model *m, qb_dtype as, qb_writer *w, const qb_stacks_change *change,
                        qb_conversion *report) {
    return each(&(writing){m, as, w, change, report}, put_each);
}
