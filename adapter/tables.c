/* The embedding and the head, which may be one table or two, and of another size than the base's. */
#include "adapter/plan.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

/* ---- a vocabulary of another size ---- */

/* The edits of a table are one: its new rows, all of them. */
static bool is_replaced(const qb_merge_plan *p, const char *table) {
    bool found = false;
    for (size_t i = 0; i < p->count; i++) {
        const qb_edit *e = &p->edits[i];
        if (!is_of(e, table)) continue;
        if (e->kind != QB_EDIT_WHOLE || e->a->tensor->shape[0] != p->vocab) return false;
        found = true;
    }
    return found;
}

static qb_status not_resized(const qb_merge_plan *p, const char *what) {
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%s: the vocabulary was resized before training to %" PRId64
                   " rows, the base's has %" PRId64 ", and %s: resize the base alike "
                   "(resize_token_embeddings, save_pretrained) and merge onto that",
                   qb_merge_adapter_dir(p), p->vocab, p->model->topology.vocab, what);
}

/* A table of new size is taken from the adapter whole: rows that it lacks would be made up. */
static qb_status check_vocabulary(const qb_merge_plan *p) {
    const qb_checkpoint *ck = p->model->checkpoint;
    const char *const tables[] = {p->embed, p->head};
    char bias[QB_NAME_BYTES + 8];
    bool one = p->model->topology.tied_head && !p->unties;
    for (int i = 0; i < 2; i++) {
        if (i == 1 && one) continue;
        if (!is_replaced(p, tables[i]))
            return not_resized(p, i ? "the adapter does not hold the whole head for it"
                                    : "the adapter does not hold the whole embedding for it");
        if (!(i == 1 && p->unties) && !qb_checkpoint_find(ck, tables[i]))
            return not_resized(p, "the base has its table in another form than a tensor of floats");
    }
    snprintf(bias, sizeof bias, "%.*s.bias", (int)(strlen(p->head) - 7), p->head);
    return qb_checkpoint_find(ck, bias) ? not_resized(p, "the head has a bias, of the old size") : QB_OK;
}

qb_status qb_merge_settle_tables(qb_merge_plan *p) {
    qb_status st = settle_tie(p);
    return st == QB_OK && p->vocab ? check_vocabulary(p) : st;
}
