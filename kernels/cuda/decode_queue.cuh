/* The state of a walk over a decoder's lists while their kernels are queued: what is known to be due and has
   not been computed yet, so that a later kernel can take it along. decode_step.cu walks, decode_fold.cu joins
   steps. */
#pragma once

#include "kernels/cuda/decode_step.cuh"

struct decode_queue {
    const decode_step &s;
    const float *bias[QB_SLOTS_MAX]; /* still to be added to a slot, or NULL */
    struct {
        int8_t to, from; /* slot `to` += slot `from` + bias is due; to QB_SLOT_NONE: none */
        const float *bias;
    } sum;
    int64_t expert_group; /* the next of s.experts */

    explicit decode_queue(const decode_step &step)
        : s(step), bias(), sum{QB_SLOT_NONE, QB_SLOT_NONE, NULL}, expert_group(0) {}
    float *slot(int8_t i) const { return i < 0 ? NULL : s.slots[i]; }
    int64_t width(int8_t i) const { return s.d->slot_width[i]; }
    int64_t rows(int8_t i) const { return s.n_seq * (s.d->slot_routed[i] ? s.d->top_k : 1); }
};

/* A list while it is walked. */
struct decode_list {
    const qb_step_weights *w;
    int64_t layer; /* of the cache; -1 in the lists around the blocks */
    bool folds;    /* all its products take their neighbours in */
    int8_t logits; /* slots that outlive the list: this and QB_SLOT_X */
    const qb_step *at(int64_t i) const { return i < w->n_steps ? &w->steps[i] : NULL; }
    const float *vector(int16_t i) const { return i < 0 ? NULL : w->vectors[i]; }
};

static inline decode_device qb_decode_device_of(const decode_step &s) {
    return {s.dev->stream, s.dev->multiprocessors, s.dev->shared_bytes, s.dev->major >= 8, s.dependent};
}

/* Whether a slot's content is read at step `from` of the list or behind it. */
bool qb_decode_is_read(const decode_list &l, int64_t from, int8_t slot);
/* Computes what is due to a slot. */
qb_status qb_decode_settle(decode_queue *q, int8_t slot) QB_NODISCARD;
/* A slot is about to change: computes what still reads it as it is; `anew`: nothing of it stays. */
qb_status qb_decode_before_write(decode_queue *q, int8_t slot, bool anew) QB_NODISCARD;

/* decode_fold.cu: whether all products of a list have kernels that fold. */
bool qb_decode_list_folds(const decode_step &s, const qb_step_weights *w);
/* Queues one kernel, or a few, for the steps from i on, and gives their number in *taken; 0 where they are
   computed one by one. */
qb_status qb_decode_fold(decode_queue *q, const decode_list &l, int64_t i, int64_t *taken) QB_NODISCARD;
/* Attention of a step, behind its cache; k NULL when the cache has it already, else with the parts that the
   kernel adds: biases of q, k, v, turns (NULL: none), the cache's new row. */
struct decode_append {
    int8_t k, v;
    const qb_step *rope;
};
qb_status qb_decode_attend(decode_queue *q, const decode_list &l, const qb_step *attend,
                           const decode_append *append) QB_NODISCARD;
