#include "adapter/plan.h"

#include "adapter/match.h"
#include "adapter/places.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *qb_merge_adapter_dir(const qb_merge_plan *p) {
    return qb_checkpoint_dir(p->adapter->checkpoint);
}

/* ---- edits ---- */

qb_status qb_merge_add(qb_merge_plan *p, const char *tensor, const qb_edit *edit) {
    qb_status st = qb_grow(&p->edits, &p->capacity, p->count + 1, sizeof *p->edits);
    if (st != QB_OK) return st;
    p->edits[p->count] = *edit;
    st = qb_arena_strdup(&p->names, tensor, &p->edits[p->count].tensor);
    if (st == QB_OK) p->count++;
    return st;
}

qb_status qb_merge_expect(const qb_merge_plan *p, const qb_part *part, int64_t rows, int64_t cols,
                          const char *why) {
    char found[128];
    const qb_tensor *t = part->tensor;
    bool fits = cols ? t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols
                     : t->n_dims == 1 && t->shape[0] == rows;
    if (fits) return QB_OK;
    char wanted[64];
    if (cols)
        snprintf(wanted, sizeof wanted, "[%" PRId64 ", %" PRId64 "]", rows, cols);
    else
        snprintf(wanted, sizeof wanted, "[%" PRId64 "]", rows);
    return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected %s (%s), found %s%s", qb_merge_adapter_dir(p),
                   t->name, wanted, why, qb_part_shape(part, found),
                   strstr(why, "base") ? ": is this the base that the adapter was made for?" : "");
}

static int compare(const void *x, const void *y) {
    const qb_edit *a = x, *b = y;
    int order = strcmp(a->tensor, b->tensor);
    if (order == 0) order = (a->expert > b->expert) - (a->expert < b->expert);
    return order ? order : (int)a->kind - (int)b->kind;
}

const qb_edit *qb_merge_edits(const qb_merge_plan *p, const char *tensor, int64_t expert, size_t *n) {
    size_t low = 0, high = p->count;
    qb_edit key = {.tensor = tensor, .expert = expert, .kind = QB_EDIT_WHOLE};
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(&p->edits[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *n = 0;
    while (low + *n < p->count && !strcmp(p->edits[low + *n].tensor, tensor) &&
           p->edits[low + *n].expert == expert)
        ++*n;
    return *n ? &p->edits[low] : NULL;
}

static qb_status no_module(const qb_merge_plan *p, const qb_part *part) {
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: tensor %.200s is for %.200s, which the base %s does not have: is this the base that the "
        "adapter was made for (%.100s)?",
        qb_merge_adapter_dir(p), part->tensor->name, part->path, p->model->name,
        p->adapter->config.base ? p->adapter->config.base : "it does not say which");
}

/* ---- LoRA ---- */

qb_status qb_merge_missing(const qb_merge_plan *p, const char *path, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: %.200s has no %s: is the file complete?", qb_merge_adapter_dir(p),
                   path, what);
}

static bool is_module(const char *path, const char *tensor) {
    size_t n = strlen(path);
    return !strncmp(path, tensor, n) && !strcmp(tensor + n, ".weight");
}

/* The name by which rank and alpha are looked up, and whether the config names the module at all. */
static qb_status check_targeted(const qb_merge_plan *p, const qb_part *part, char key[QB_NAME_BYTES + 8]) {
    const qb_adapter_config *c = &p->adapter->config;
    char parameter[QB_NAME_BYTES + 8];
    bool targeted;
    snprintf(key, QB_NAME_BYTES, "%.190s", part->path);
    snprintf(parameter, sizeof parameter, "%.190s.weight", part->path);
    qb_status st = qb_adapter_targets(c, part->path, &targeted);
    if (st == QB_OK && !targeted && c->keeps_tie && is_module(part->path, p->head))
        st = qb_adapter_targets(c, p->model->topology.embed, &targeted);
    if (st != QB_OK || targeted) return st;
    if (qb_adapter_targets_parameter(c, parameter)) {
        memcpy(key, parameter, sizeof parameter);
        return QB_OK;
    }
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: tensor %.200s is there, but adapter_config.json does not name its module (target_modules, "
        "exclude_modules, layers_to_transform): files of two adapters?",
        qb_merge_adapter_dir(p), part->tensor->name);
}

static qb_status check_rank(const qb_merge_plan *p, const qb_part *a, int64_t found, int64_t expected) {
    char shape[128];
    if (found == expected) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: tensor %.200s is %s: a rank of %" PRId64 ", but adapter_config.json says %" PRId64
                   " (r, rank_pattern)",
                   qb_merge_adapter_dir(p), a->tensor->name, qb_part_shape(a, shape), found, expected);
}

static qb_status plan_bias(qb_merge_plan *p, const qb_part_group *g, const qb_merge_place *w, double scale) {
    char name[QB_NAME_BYTES + 8];
    if (!g->b_bias)
        return p->adapter->config.lora_bias && g->a
                   ? qb_merge_missing(p, g->path, "lora_B.bias (lora_bias is true)")
                   : QB_OK;
    snprintf(name, sizeof name, "%.*s.bias", (int)(strlen(w->tensor) - 7), w->tensor);
    const qb_tensor *t = qb_checkpoint_find(p->model->checkpoint, name);
    if (!t)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s adds to %.200s, but the base has no such bias",
                       qb_merge_adapter_dir(p), g->b_bias->tensor->name, name);
    qb_status st = qb_merge_expect(p, g->b_bias, t->shape[0], 0, "the base's bias");
    return st == QB_OK
               ? qb_merge_add(p, name, &(qb_edit){.kind = QB_EDIT_BIAS, .a = g->b_bias, .scale = scale})
               : st;
}

static qb_status plan_lora(qb_merge_plan *p, const qb_part_group *g) {
    char key[QB_NAME_BYTES + 8];
    qb_merge_place w;
    bool taken = false, embed = g->embed_a || g->embed_b;
    const qb_part *a = embed ? g->embed_a : g->a, *b = embed ? g->embed_b : g->b;
    if (!a || !b) return qb_merge_missing(p, g->path, a ? "lora_B" : "lora_A");
    if (a->tensor->n_dims != 2 || b->tensor->n_dims != 2)
        return qb_merge_expect(p, a->tensor->n_dims != 2 ? a : b, 1, 1, "a matrix");
    qb_status st = embed ? QB_OK : qb_merge_plan_experts(p, g, &taken);
    if (st != QB_OK || taken) return st;
    qb_edit e = {.kind = QB_EDIT_LORA, .a = a, .b = b, .magnitude = g->magnitude, .n_experts = 1};
    if (g->depth > 0 || !qb_merge_place_of(p, g->path, &w) || !w.cols) return no_module(p, a);
    QB_TRY(st, check_targeted(p, a, key));
    QB_TRY(st, qb_adapter_rank(&p->adapter->config, key, &e.rank, &e.scale));
    QB_TRY(st, check_rank(p, a, a->tensor->shape[0], e.rank));
    e.turned = embed || w.turned;
    int64_t out = e.turned ? w.cols : w.rows, in = e.turned ? w.rows : w.cols;
    QB_TRY(st, qb_merge_expect(p, a, e.rank, in, "its rank and the base's inputs"));
    QB_TRY(st, qb_merge_expect(p, b, out, e.rank, "the base's outputs and its rank"));
    if (g->magnitude)
        QB_TRY(st, qb_merge_expect(p, g->magnitude, out, 0, "one magnitude an output of the base"));
    if (p->adapter->config.dora != (g->magnitude != NULL)) {
        st = p->adapter->config.dora
                 ? qb_merge_missing(p, g->path, "lora_magnitude_vector (use_dora is true)")
                 : qb_fail(QB_ERR_FORMAT,
                           "%s: tensor %.200s is of DoRA, but adapter_config.json does not say use_dora",
                           qb_merge_adapter_dir(p), g->magnitude->tensor->name);
        goto out;
    }
    QB_TRY(st, qb_merge_add(p, w.tensor, &e));
    st = plan_bias(p, g, &w, e.scale);
out:
    return st;
}

/* ---- token rows ---- */

static bool ends_in(const char *path, const char *name) {
    size_t n = strlen(path), m = strlen(name);
    return n >= m && !strcmp(path + n - m, name) && (n == m || path[n - m - 1] == '.');
}

static qb_status plan_tokens(qb_merge_plan *p, const qb_part_group *g) {
    const qb_json *list = p->adapter->config.token_indices;
    qb_merge_place w;
    if (qb_json_is_object(list)) {
        const qb_json *j = qb_json_first(list);
        while (j && !ends_in(g->path, qb_json_key(j))) j = qb_json_next(j);
        list = j;
    }
    if (!list)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: trainable_token_indices names no rows for it",
                       qb_merge_adapter_dir(p), g->tokens->tensor->name);
    if (!qb_merge_place_of(p, g->path, &w) || w.turned || !w.cols) return no_module(p, g->tokens);
    qb_status st = qb_merge_expect(p, g->tokens, qb_json_count(list), w.cols,
                                   "the rows that trainable_token_indices lists, of the base's width");
    for (const qb_json *j = qb_json_first(list); st == QB_OK && j; j = qb_json_next(j))
        if (qb_json_number(j) >= (double)w.rows)
            st = qb_fail(QB_ERR_FORMAT, "%s: trainable_token_indices names token %.0f, but %s has %" PRId64,
                         p->adapter->config.where, qb_json_number(j), w.tensor, w.rows);
    if (st != QB_OK) return st;
    return qb_merge_add(
        p, w.tensor, &(qb_edit){.kind = QB_EDIT_ROWS, .a = g->tokens, .tokens = list, .follows_tie = true});
}

/* ---- whole tensors ---- */

static qb_status check_saved(const qb_merge_plan *p, const qb_part *part, bool is_table) {
    const qb_adapter_config *c = &p->adapter->config;
    bool bias = strlen(part->path) > 5 && ends_in(part->path, "bias");
    if (qb_adapter_saves(c, part->path) || (bias && c->bias != QB_ADAPTER_BIAS_NONE) || is_table)
        return QB_OK;
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: tensor %.200s is there, but adapter_config.json does not say so (modules_to_save, bias): "
        "files of two adapters?",
        qb_merge_adapter_dir(p), part->tensor->name);
}

static qb_status plan_whole(qb_merge_plan *p, const qb_part *part) {
    qb_merge_place w;
    if (!qb_merge_tensor_of(p, part->path, &w)) return no_module(p, part);
    bool is_table = !strcmp(w.tensor, p->embed) || !strcmp(w.tensor, p->head);
    qb_status st = check_saved(p, part, is_table);
    if (st != QB_OK) return st;
    const qb_tensor *t = part->tensor;
    if (is_table && !w.turned && t->n_dims == 2 && t->shape[1] == w.cols && t->shape[0] != w.rows)
        p->vocab = t->shape[0]; /* tables.c asks whether all of the vocabulary is there */
    else
        st = qb_merge_expect(p, part, w.rows, w.cols, "the base's tensor");
    bool follows = part->wrapped || !qb_adapter_saves(&p->adapter->config, part->path);
    return st == QB_OK ? qb_merge_add(p, w.tensor,
                                      &(qb_edit){.kind = QB_EDIT_WHOLE, .a = part, .follows_tie = follows})
                       : st;
}

/* ---- groups ---- */

static void put_into(qb_part_group *g, const qb_part *part) {
    const qb_part **places[] = {[QB_PART_WHOLE] = NULL,
                                [QB_PART_A] = &g->a,
                                [QB_PART_B] = &g->b,
                                [QB_PART_B_BIAS] = &g->b_bias,
                                [QB_PART_EMBED_A] = &g->embed_a,
                                [QB_PART_EMBED_B] = &g->embed_b,
                                [QB_PART_MAGNITUDE] = &g->magnitude,
                                [QB_PART_TOKENS] = &g->tokens};
    *places[part->kind] = part;
}

static qb_status plan_group(qb_merge_plan *p, const qb_part_group *g) {
    qb_status st = QB_OK;
    if (g->tokens) st = plan_tokens(p, g);
    if (st == QB_OK && (g->a || g->b || g->b_bias || g->embed_a || g->embed_b || g->magnitude))
        st = plan_lora(p, g);
    return st;
}

static qb_status plan_parts(qb_merge_plan *p) {
    const qb_adapter *a = p->adapter;
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < a->count;) {
        if (a->parts[i].kind == QB_PART_WHOLE) {
            st = plan_whole(p, &a->parts[i++]);
            continue;
        }
        qb_part_group g = {.path = a->parts[i].path, .depth = a->parts[i].depth};
        for (; i < a->count && a->parts[i].kind != QB_PART_WHOLE && a->parts[i].depth == g.depth &&
               !strcmp(a->parts[i].path, g.path);
             i++)
            put_into(&g, &a->parts[i]);
        st = plan_group(p, &g);
    }
    return st;
}

/* ---- the whole ---- */

qb_status qb_merge_plan_make(const qb_model *m, const qb_adapter *a, qb_merge_plan *out) {
    const qb_topology *t = &m->topology;
    qb_status st;
    *out = (qb_merge_plan){.model = m, .adapter = a};
    snprintf(out->embed, sizeof out->embed, "%s.weight", t->embed);
    qb_linear_name(&t->leave.linears[t->head], t->n_layers, out->head);
    strcat(out->head, ".weight");
    QB_TRY(st, plan_parts(out));
    QB_TRY(st, qb_merge_check_complete(out));
    QB_TRY(st, qb_merge_settle_tables(out));
    if (out->count) qsort(out->edits, out->count, sizeof *out->edits, compare);
out:
    return st;
}

void qb_merge_plan_free(qb_merge_plan *p) {
    qb_free(p->edits);
    qb_arena_free(&p->names);
    *p = (qb_merge_plan){0};
}
