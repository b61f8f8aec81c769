#include "adapter/plan.h"

#include "adapter/match.h"
#include "base/log.h"
#include "checkpoint/layout.h"
#include "checkpoint/safetensors.h"
#include "model/owners.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *adapter_dir(const qb_merge_plan *p) {
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
    return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected %s (%s), found %s%s", adapter_dir(p), t->name,
                   wanted, why, qb_part_shape(part, found),
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

/* ---- where a module's weight is ---- */

typedef struct {
    char tensor[QB_NAME_BYTES + 8];
    int64_t rows, cols; /* as the file has it; cols 0: a vector */
    const qb_linear *linear;
    bool turned; /* a linear that lies as [in, out] */
} place;

int64_t qb_merge_layer_of(const qb_model *m, const char *path) {
    const qb_list *l = &m->topology.layers[0];
    const char *pattern = l->n_linears ? l->linears[0].prefix : "", *hole = strstr(pattern, "%d");
    size_t n = hole ? (size_t)(hole - pattern) : 0;
    if (n == 0 || strncmp(path, pattern, n) != 0 || path[n] < '0' || path[n] > '9') return -1;
    long long layer = strtoll(path + n, NULL, 10);
    return layer < m->topology.n_layers ? (int64_t)layer : -1;
}

/* A router's module has other names in some files than in transformers' memory since its fifth version
   ("mlp.gate", "router"): a layer has one. */
static const qb_linear *router_of(const qb_model *m, const char *path, int64_t *layer) {
    const char *last = strrchr(path, '.');
    *layer = qb_merge_layer_of(m, path);
    if (*layer < 0 || !last || (strcmp(last, ".gate") != 0 && strcmp(last, ".router") != 0)) return NULL;
    const qb_list *l = &m->topology.layers[*layer];
    for (size_t i = 0; i < l->n_linears; i++)
        if (!l->linears[i].quantized && l->linears[i].rows == m->topology.experts) return &l->linears[i];
    return NULL;
}

static void of_linear(const qb_linear *l, int64_t layer, place *out) {
    out->linear = l;
    out->turned = l->stored == QB_STORED_COLUMNS;
    out->rows = out->turned ? l->cols : l->rows;
    out->cols = out->turned ? l->rows : l->cols;
    qb_linear_name(l, layer, out->tensor);
    strcat(out->tensor, ".weight");
}

/* The weight of module `path`; false when the base has none. */
static bool find_weight(const qb_merge_plan *p, const char *path, place *out) {
    const qb_model *m = p->model;
    int64_t layer;
    *out = (place){0};
    if (strlen(path) >= QB_NAME_BYTES) return false;
    snprintf(out->tensor, sizeof out->tensor, "%s.weight", path);
    const qb_owner *o = qb_owners_find(m->owners, out->tensor);
    const qb_tensor *t = qb_checkpoint_find(m->checkpoint, out->tensor);
    if (o && o->kind == QB_OWNER_LINEAR && o->linear) {
        of_linear(o->linear, o->layer, out);
        return true;
    }
    if (o && o->kind == QB_OWNER_EMBED) {
        out->rows = m->topology.vocab;
        out->cols = m->topology.embed_width;
        return true;
    }
    if (t && t->n_dims <= 2) {
        out->rows = t->shape[0];
        out->cols = t->n_dims == 2 ? t->shape[1] : 0;
        return true;
    }
    const qb_linear *router = router_of(m, path, &layer);
    if (router) of_linear(router, layer, out);
    return router != NULL;
}

static qb_status no_module(const qb_merge_plan *p, const qb_part *part) {
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: tensor %.200s is for %.200s, which the base %s does not have: is this the base that the "
        "adapter was made for (%.100s)?",
        adapter_dir(p), part->tensor->name, part->path, p->model->name,
        p->adapter->config.base ? p->adapter->config.base : "it does not say which");
}

/* ---- LoRA ---- */

static qb_status missing(const qb_merge_plan *p, const char *path, const char *what) {
    return qb_fail(QB_ERR_FORMAT, "%s: %.200s has no %s: is the file complete?", adapter_dir(p), path, what);
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
        adapter_dir(p), part->tensor->name);
}

static qb_status check_rank(const qb_merge_plan *p, const qb_part *a, int64_t found, int64_t expected) {
    char shape[128];
    if (found == expected) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: tensor %.200s is %s: a rank of %" PRId64 ", but adapter_config.json says %" PRId64
                   " (r, rank_pattern)",
                   adapter_dir(p), a->tensor->name, qb_part_shape(a, shape), found, expected);
}

static qb_status plan_bias(qb_merge_plan *p, const qb_part_group *g, const place *w, double scale) {
    char name[QB_NAME_BYTES + 8];
    if (!g->b_bias)
        return p->adapter->config.lora_bias && g->a ? missing(p, g->path, "lora_B.bias (lora_bias is true)")
                                                    : QB_OK;
    snprintf(name, sizeof name, "%.*s.bias", (int)(strlen(w->tensor) - 7), w->tensor);
    const qb_tensor *t = qb_checkpoint_find(p->model->checkpoint, name);
    if (!t)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s adds to %.200s, but the base has no such bias",
                       adapter_dir(p), g->b_bias->tensor->name, name);
    qb_status st = qb_merge_expect(p, g->b_bias, t->shape[0], 0, "the base's bias");
    return st == QB_OK
               ? qb_merge_add(p, name, &(qb_edit){.kind = QB_EDIT_BIAS, .a = g->b_bias, .scale = scale})
               : st;
}

static qb_status plan_lora(qb_merge_plan *p, const qb_part_group *g) {
    char key[QB_NAME_BYTES + 8];
    place w;
    bool taken = false, embed = g->embed_a || g->embed_b;
    const qb_part *a = embed ? g->embed_a : g->a, *b = embed ? g->embed_b : g->b;
    if (!a || !b) return missing(p, g->path, a ? "lora_B" : "lora_A");
    if (a->tensor->n_dims != 2 || b->tensor->n_dims != 2)
        return qb_merge_expect(p, a->tensor->n_dims != 2 ? a : b, 1, 1, "a matrix");
    qb_status st = embed ? QB_OK : qb_merge_plan_experts(p, g, &taken);
    if (st != QB_OK || taken) return st;
    qb_edit e = {.kind = QB_EDIT_LORA, .a = a, .b = b, .magnitude = g->magnitude, .n_experts = 1};
    if (g->depth > 0 || !find_weight(p, g->path, &w) || !w.cols) return no_module(p, a);
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
                 ? missing(p, g->path, "lora_magnitude_vector (use_dora is true)")
                 : qb_fail(QB_ERR_FORMAT,
                           "%s: tensor %.200s is of DoRA, but adapter_config.json does not say use_dora",
                           adapter_dir(p), g->magnitude->tensor->name);
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
    place w;
    if (qb_json_is_object(list)) {
        const qb_json *j = qb_json_first(list);
        while (j && !ends_in(g->path, qb_json_key(j))) j = qb_json_next(j);
        list = j;
    }
    if (!list)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: trainable_token_indices names no rows for it",
                       adapter_dir(p), g->tokens->tensor->name);
    if (!find_weight(p, g->path, &w) || w.turned || !w.cols) return no_module(p, g->tokens);
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
        adapter_dir(p), part->tensor->name);
}

static qb_status resized(const qb_merge_plan *p, const qb_part *part, const place *w) {
    return qb_fail(
        QB_ERR_UNSUPPORTED,
        "%s: tensor %.200s has %" PRId64 " rows, %s in the base has %" PRId64
        ": the vocabulary was resized before training; resize the base alike (resize_token_embeddings, "
        "save_pretrained) and merge onto that",
        adapter_dir(p), part->tensor->name, part->tensor->shape[0], w->tensor, w->rows);
}

/* The base's tensor of that name, whichever way it is stored. */
static bool find_tensor(const qb_merge_plan *p, const char *name, place *out) {
    size_t n = strlen(name);
    char module[QB_NAME_BYTES];
    if (n > 7 && n - 7 < sizeof module && !strcmp(name + n - 7, ".weight")) {
        snprintf(module, sizeof module, "%.*s", (int)(n - 7), name);
        return find_weight(p, module, out);
    }
    const qb_tensor *t = qb_checkpoint_find(p->model->checkpoint, name);
    if (!t || n >= sizeof out->tensor || t->n_dims > 2) return false;
    *out = (place){.rows = t->shape[0], .cols = t->n_dims == 2 ? t->shape[1] : 0};
    snprintf(out->tensor, sizeof out->tensor, "%s", name);
    return true;
}

static qb_status plan_whole(qb_merge_plan *p, const qb_part *part) {
    place w;
    if (!find_tensor(p, part->path, &w)) return no_module(p, part);
    bool is_table = !strcmp(w.tensor, p->embed) || !strcmp(w.tensor, p->head);
    qb_status st = check_saved(p, part, is_table);
    if (st != QB_OK) return st;
    const qb_tensor *t = part->tensor;
    if (is_table && t->n_dims == 2 && t->shape[1] == w.cols && t->shape[0] != w.rows)
        return resized(p, part, &w);
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

/* ---- what the config names and the file lacks ---- */

static bool has_lora(const qb_merge_plan *p, const char *tensor) {
    for (size_t i = 0; i < p->count; i++)
        if (p->edits[i].kind == QB_EDIT_LORA && !strcmp(p->edits[i].tensor, tensor)) return true;
    return false;
}

static qb_status incomplete(const qb_merge_plan *p, const char *name) {
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: adapter_config.json names %.200s, but there is no tensor for it: is the file complete, and "
        "this the adapter's base?",
        adapter_dir(p), name);
}

/* Routers are modules of other kinds in newer programs, and experts lie in one parameter: their absence says
   nothing. "all-linear" leaves the head out. */
static qb_status check_list(const qb_merge_plan *p, const qb_list *l, int64_t layer, bool in_blocks) {
    const qb_adapter_config *c = &p->adapter->config;
    char name[QB_NAME_BYTES + 8];
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < l->n_linears; i++) {
        bool targeted, asked = in_blocks ? l->linears[i].quantized : !qb_adapter_targets_all_linear(c);
        if (l->linears[i].expert >= 0 || !asked) continue;
        qb_linear_name(&l->linears[i], layer, name);
        st = qb_adapter_targets(c, name, &targeted);
        if (st != QB_OK || !targeted) continue;
        strcat(name, ".weight");
        if (!has_lora(p, name)) st = incomplete(p, name);
    }
    return st;
}

static qb_status check_embedding(const qb_merge_plan *p) {
    bool targeted;
    qb_status st = qb_adapter_targets(&p->adapter->config, p->model->topology.embed, &targeted);
    if (st != QB_OK || !targeted || qb_adapter_targets_all_linear(&p->adapter->config)) return st;
    return has_lora(p, p->embed) ? QB_OK : incomplete(p, p->embed);
}

static qb_status check_parameters(const qb_merge_plan *p) {
    const qb_adapter_config *c = &p->adapter->config;
    if (!c->target_parameters) return QB_OK;
    for (size_t i = 0; i < p->count; i++)
        if (p->edits[i].kind == QB_EDIT_LORA) return QB_OK;
    return missing(p, qb_json_string(qb_json_first(c->target_parameters)), "tensors (target_parameters)");
}

static qb_status check_complete(const qb_merge_plan *p) {
    const qb_topology *t = &p->model->topology;
    qb_status st = QB_OK;
    for (int64_t layer = 0; st == QB_OK && layer < t->n_layers; layer++)
        st = check_list(p, &t->layers[layer], layer, true);
    if (st == QB_OK) st = check_list(p, &t->enter, -1, false);
    if (st == QB_OK) st = check_list(p, &t->leave, t->n_layers, false);
    if (st == QB_OK) st = check_embedding(p);
    if (st == QB_OK) st = check_parameters(p);
    if (st != QB_OK || p->count > 0) return st;
    return qb_fail(QB_ERR_FORMAT, "%s: the adapter changes nothing", adapter_dir(p));
}

/* ---- tied heads ---- */

static bool is_of(const qb_edit *e, const char *tensor) {
    return !strcmp(e->tensor, tensor);
}

/* In PEFT a tied head keeps the base's table while the embedding has a LoRA or a saved copy of its own, and
   the other way round; both get the rows of single tokens. */
static qb_status untie(qb_merge_plan *p) {
    size_t n = p->count;
    bool own_whole = false, own_rows = false;
    qb_status st = QB_OK;
    for (size_t i = 0; i < n; i++) {
        own_whole = own_whole || (is_of(&p->edits[i], p->head) && p->edits[i].kind == QB_EDIT_WHOLE);
        own_rows = own_rows || (is_of(&p->edits[i], p->head) && p->edits[i].kind == QB_EDIT_ROWS);
    }
    for (size_t i = 0; st == QB_OK && i < n; i++) {
        qb_edit e = p->edits[i];
        if (is_of(&e, p->embed) && e.follows_tie && !(e.kind == QB_EDIT_ROWS ? own_rows : own_whole))
            st = qb_merge_add(p, p->head, &e);
    }
    p->unties = true;
    qb_info("%s: the head is tied to the embedding in the base and differs in the adapter: both are written",
            p->model->name);
    return st;
}

static qb_status settle_tie(qb_merge_plan *p) {
    bool differs = false, any = false;
    if (!p->model->topology.tied_head) return QB_OK;
    for (size_t i = 0; i < p->count; i++) {
        const qb_edit *e = &p->edits[i];
        bool head = is_of(e, p->head), embed = is_of(e, p->embed);
        differs = differs || ((head || embed) && !e->follows_tie) || (head && e->kind == QB_EDIT_ROWS);
        any = any || embed || head;
    }
    p->drops_head = any && !differs;
    if (differs) return untie(p);
    /* The head's copy of the base's table is the embedding's. */
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++)
        if (!is_of(&p->edits[i], p->head)) p->edits[kept++] = p->edits[i];
    p->count = kept;
    return QB_OK;
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
    QB_TRY(st, check_complete(out));
    QB_TRY(st, settle_tie(out));
    if (out->count) qsort(out->edits, out->count, sizeof *out->edits, compare);
out:
    return st;
}

void qb_merge_plan_free(qb_merge_plan *p) {
    qb_free(p->edits);
    qb_arena_free(&p->names);
    *p = (qb_merge_plan){0};
}
