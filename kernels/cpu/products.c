/* Products, one or several: each says its loops, loops of several run as one. A thread that has done its rows
   of one matrix takes those of the next without waiting for the others. */
#include "kernels/cpu/products.h"

#include "base/memory.h"
#include "base/whole.h"

#include <string.h>

bool qb_packed_same_room(const qb_matrix *x, const qb_matrix *y) {
    const qb_packed *a = x->packed, *b = y->packed;
    if (a->by_row != b->by_row || a->cols != b->cols || a->kind != b->kind || a->bits != b->bits ||
        a->padded_cols != b->padded_cols || a->n_groups != b->n_groups || !a->zeros != !b->zeros ||
        !a->offsets != !b->offsets || a->wide != b->wide || a->unit != b->unit || !a->source != !b->source)
        return false;
    if (a->by_row) return true;
    return memcmp(a->group_end, b->group_end, (size_t)a->n_groups * sizeof *a->group_end) == 0 &&
           (!a->source || memcmp(a->source, b->source, (size_t)a->padded_cols * sizeof *a->source) == 0);
}

/* ---- several loops as one ---- */

_Static_assert(QB_PRODUCTS_MAX *QB_LOOPS_BEFORE <= QB_LOOPS_MAX, "loops of all products at once");
typedef struct {
    int n;
    qb_loop loop[QB_LOOPS_MAX];
    int64_t bytes;
} joint;

static void join(joint *j, const qb_cpu_loop *l) {
    if (l->loop.n <= 0) return;
    j->loop[j->n++] = l->loop;
    j->bytes += l->loop.n * l->unit_bytes;
}

static void run_joint(cpu_device *d, const joint *j) {
    qb_parallel_loops(j->bytes < QB_ALONE_BYTES ? NULL : d->base.threads, j->loop, j->n);
}

/* ---- products ---- */

/* T: tokens of all passes. */
static const qb_cpu_form *form_of(const cpu_device *d, const qb_matrix *w, int64_t T) {
    if (!w->packed && d->simd->bf16 && T >= qb_cpu_tiles_least(w->dtype)) return &qb_cpu_tiles_form;
    if (!w->packed) return &qb_cpu_dense_form;
    const bool float32 = d->fastest && qb_matrix_float32_is_faster(w, T);
    if (!float32 && w->integer >> d->activations & 1) {
        const bool eight = d->activations == QB_ACTIVATIONS_I8;
        const bool tiles =
            T >= qb_cpu_whole_tiles_least(eight) && qb_cpu_packed_whole_tiles(d, w->packed, eight);
        return tiles ? &qb_cpu_whole_tiles_form : &qb_cpu_integer_form;
    }
    if (d->simd->bf16 && T >= qb_cpu_packed_tiles_least(w->packed)) return &qb_cpu_packed_tiles_form;
    return &qb_cpu_packed_form;
}

static int64_t whole_lines(int64_t bytes) {
    return (bytes + QB_ALIGNMENT - 1) / QB_ALIGNMENT * QB_ALIGNMENT;
}

/* An earlier product whose activations serve product i; i where there is none. */
static int64_t lender(const cpu_device *d, const qb_cpu_part *p, int64_t i) {
    const qb_cpu_form *form = form_of(d, p[i].w, p[i].whole);
    for (int64_t k = 0; k < i; k++)
        if (p[k].x == p[i].x && p[k].T == p[i].T && p[k].whole == p[i].whole &&
            form_of(d, p[k].w, p[k].whole) == form && form->same_room(p[k].w, p[i].w))
            return k;
    return i;
}

/* At most QB_PRODUCTS_MAX products of as many tokens as their forms take at once. */
static qb_status multiply_once(cpu_device *d, const qb_cpu_part *p, int64_t n) {
    int64_t lent[QB_PRODUCTS_MAX], bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        const qb_cpu_form *form = form_of(d, p[i].w, p[i].whole);
        lent[i] = lender(d, p, i);
        bytes += whole_lines(form->job_bytes);
        if (lent[i] == i) bytes += whole_lines(form->room_bytes(d, &p[i]));
    }
    char *scratch, *rooms[QB_PRODUCTS_MAX];
    qb_status st = qb_cpu_workspace(d, bytes, &scratch);
    if (st != QB_OK) return st;
    qb_cpu_loops loops[QB_PRODUCTS_MAX] = {0};
    joint before, multiply;
    before.n = multiply.n = 0;
    before.bytes = multiply.bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        const qb_cpu_form *form = form_of(d, p[i].w, p[i].whole);
        void *job = scratch;
        scratch += whole_lines(form->job_bytes);
        rooms[i] = lent[i] == i ? scratch : rooms[lent[i]];
        if (lent[i] == i) scratch += whole_lines(form->room_bytes(d, &p[i]));
        form->plan(d, job, rooms[i], &p[i], &loops[i]);
        for (int k = 0; lent[i] == i && k < QB_LOOPS_BEFORE; k++) join(&before, &loops[i].before[k]);
        join(&multiply, &loops[i].multiply);
    }
    run_joint(d, &before);
    run_joint(d, &multiply);
    return QB_OK;
}

qb_status qb_cpu_matmul_all(qb_device *dev, const qb_product *products, int64_t n) {
    cpu_device *d = cpu_of(dev);
    qb_status st = QB_OK;
    for (int64_t done = 0, count; st == QB_OK && done < n; done += count) {
        count = qb_least(n - done, QB_PRODUCTS_MAX);
        bool more = true;
        for (int64_t pass = 0; more && st == QB_OK; pass++) {
            qb_cpu_part now[QB_PRODUCTS_MAX];
            int64_t k = 0;
            more = false;
            for (const qb_product *p = products + done; p < products + done + count; p++) {
                int64_t most = form_of(d, p->w, p->T)->most_tokens, left = p->T - pass * most;
                if (left <= 0 || p->w->rows <= 0) continue;
                now[k++] = (qb_cpu_part){p->w, p->x + pass * most * p->w->cols,
                                         p->y + pass * most * p->w->rows, qb_least(left, most), p->T};
                more = more || left > most;
            }
            if (k) st = multiply_once(d, now, k);
        }
    }
    return st;
}

qb_status qb_cpu_matmul(qb_device *dev, float *y, const float *x, int64_t T, const qb_matrix *w) {
    return qb_cpu_matmul_all(dev, &(qb_product){w, x, y, T}, 1);
}
