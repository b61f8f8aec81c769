/* The embedding and the head, which may be one table or two, and of another size than the base's. */
#include "adapter/plan.h"
#include "base/log.h"

#include <inttypes.h>
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

qb_status qb_merge_settle_tables(qb_merge_plan *p) {
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
