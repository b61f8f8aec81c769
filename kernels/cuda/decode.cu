/* The backend's fused decode step. A token is queued kernel by kernel the first time its shape is seen (which
   also loads the kernels and grows every scratch buffer), captured into a graph the second time, and replayed
   from then on: the position and the ids come through device memory.

   A graph holds addresses. It is found again only by a key that names all of them: the decoder's id (new
   whenever any of its weights moves), the cache's arrays and shape, the logits, the step's own buffers, the
   device's scratch. A cache that was freed and made anew at the same address in the same shape is what the
   graph expects; at another address it has another key. Graphs of what is gone are never launched, and the
   least recently used of DECODE_GRAPHS gives way to a new one.

   From compute capability 9.0 on the step's kernels are launched as programmatic dependents: each begins
   while the one before still runs, reads its first weights, and waits before it touches anything else. A wait
   is for the whole of the kernel before, and so for all kernels before that one, because every kernel waits,
   in every thread. An H200 gains 1 to 3 % of a token. BENCH_CUDA_DEPENDENT=0 turns it off. */
#include "kernels/cuda/decode_step.cuh"

extern "C" {
#include "base/memory.h"
}
#include <stdlib.h>
#include <string.h>

namespace {

enum { DECODE_GRAPHS = 16 };

/* All that a captured step depends on. Compared as bytes: all fields are eight bytes wide, so none is padded.
 */
struct graph_key {
    uint64_t decoder;
    const void *k, *v, *state, *logits, *slab, *scratch;
    int64_t scratch_bytes, kv_dtype, kv_seq, capacity, n_seq, bound, greedy;
};

/* What follows from a model, a cache's shape and a batch; looked at anew only when one of them is another. */
struct decode_facts {
    uint64_t decoder;
    qb_kv kv; /* its shape; not its arrays */
    int64_t n_seq;
    bool known, serves, turns; /* turns: there are rotary tables to stay within */
    int64_t partial_bytes;     /* most that the attention of any position in the cache asks for */
};

struct graph_entry {
    graph_key key;
    cudaGraphExec_t exec; /* NULL: seen once, not captured yet */
    uint64_t used;        /* 0: free */
};

/* What the device keeps for decoding. */
struct decode_state {
    void *slab; /* of the buffers */
    int64_t slab_bytes;
    graph_entry graphs[DECODE_GRAPHS];
    uint64_t clock;
    decode_facts facts;
    decode_experts experts; /* of the decoder that was asked for last, if it has any */
    bool dependent;
};

void forget(graph_entry *e) {
    if (e->exec) (void)cudaGraphExecDestroy(e->exec);
    *e = {};
}

void free_state(cuda_device *dev, void *opaque) {
    decode_state *state = static_cast<decode_state *>(opaque);
    for (graph_entry &e : state->graphs) forget(&e);
    qb_decode_experts_free(dev, &state->experts);
    qb_cuda_free(&dev->base, state->slab);
    qb_free(state);
}

/* Captures know programmatic launches since CUDA 12.3. */
bool launches_dependents(const cuda_device *dev) {
    int driver = 0;
    const char *asked = getenv("BENCH_CUDA_DEPENDENT");
    if (dev->major < 9 || CUDART_VERSION < 12030 || cudaDriverGetVersion(&driver) != cudaSuccess)
        return false;
    return driver >= 12030 && !(asked && !strcmp(asked, "0"));
}

qb_status state_of(cuda_device *dev, decode_state **out) {
    auto &part = dev->parts[QB_CUDA_PART_DECODE];
    if (!part.state) {
        qb_status st = qb_alloc_zero(1, sizeof(decode_state), &part.state);
        if (st != QB_OK) return st;
        part.free = free_state;
        static_cast<decode_state *>(part.state)->dependent = launches_dependents(dev);
    }
    *out = static_cast<decode_state *>(part.state);
    return QB_OK;
}

bool same_shape(const qb_kv &a, const qb_kv &b) {
    return a.dtype == b.dtype && a.n_layers == b.n_layers && a.n_seq == b.n_seq && a.capacity == b.capacity &&
           a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim && a.value_dim == b.value_dim &&
           a.state_floats == b.state_floats && !a.state == !b.state;
}

void look_at_steps(const cuda_device *dev, const qb_step_weights *w, decode_facts *f) {
    for (int64_t i = 0; i < w->n_steps; i++) {
        if (w->steps[i].kind == QB_STEP_ROPE) f->turns = true;
        if (w->steps[i].kind != QB_STEP_ATTEND) continue;
        const qb_attend_attr &a = w->steps[i].u.attend;
        const attention_plan all = qb_attention_plan(f->kv.capacity, f->n_seq, a.heads, a.kv_heads,
                                                     a.value_dim, dev->multiprocessors);
        if (all.partial_bytes > f->partial_bytes) f->partial_bytes = all.partial_bytes;
    }
}

/* Whether the captured step serves this; otherwise the plain ops do, or say what is wrong. */
const decode_facts &facts_of(const cuda_device *dev, decode_state *state, const qb_decoder *d,
                             const qb_kv *kv, int64_t n_seq) {
    decode_facts &f = state->facts;
    if (f.known && f.decoder == d->id && f.n_seq == n_seq && same_shape(f.kv, *kv)) return f;
    f = {};
    f.decoder = d->id, f.kv = *kv, f.n_seq = n_seq, f.known = true;
    f.serves = qb_decode_check(dev, d, kv, n_seq) == QB_OK;
    for (int64_t layer = 0; f.serves && layer < d->n_layers; layer++)
        look_at_steps(dev, d->blocks[layer], &f);
    return f;
}

qb_status check_position(const qb_decoder *d, const qb_kv *kv, const decode_facts &f, int64_t first) {
    if (first < 0 || first >= kv->capacity)
        return qb_fail(QB_ERR_INTERNAL, "position %lld does not fit a cache of %lld", (long long)first,
                       (long long)kv->capacity);
    if (first >= ATTENTION_MAX_VISIBLE)
        return qb_fail(QB_ERR_UNSUPPORTED, "position %lld; the CUDA backend takes %d", (long long)first,
                       ATTENTION_MAX_VISIBLE);
    if (kv->n_layers < d->n_layers)
        return qb_fail(QB_ERR_INTERNAL, "a cache of %lld layers does not fit the model's %lld",
                       (long long)kv->n_layers, (long long)d->n_layers);
    if (f.turns && first >= d->rope_capacity)
        return qb_fail(QB_ERR_INTERNAL, "position %lld lies beyond the rotary table of %lld",
                       (long long)first, (long long)d->rope_capacity);
    return QB_OK;
}

/* The decoder's experts on the device. Graphs name those of the decoder before. */
qb_status take_experts(decode_state *state, decode_step *s) {
    s->experts = &state->experts;
    if (s->d->n_experts <= 0 || state->experts.decoder == s->d->id) return QB_OK;
    for (graph_entry &e : state->graphs) forget(&e);
    return qb_decode_experts_make(s->dev, s->d, &state->experts);
}

/* Grows the slab to the step's need and lays its buffers out. */
qb_status lay_out(decode_state *state, decode_step *s) {
    const int64_t partial = state->facts.partial_bytes, bytes = qb_decode_layout(s, partial, NULL);
    if (bytes > state->slab_bytes) {
        for (graph_entry &e : state->graphs) forget(&e);
        qb_cuda_free(&s->dev->base, state->slab);
        state->slab = NULL;
        state->slab_bytes = 0;
        qb_status st = qb_cuda_alloc(&s->dev->base, QB_MEMORY_WORKSPACE, bytes, &state->slab);
        if (st != QB_OK) return st;
        state->slab_bytes = bytes;
    }
    qb_decode_layout(s, partial, state->slab);
    return QB_OK;
}

graph_key key_of(const decode_state *state, const decode_step &s) {
    graph_key k;
    memset(&k, 0, sizeof k);
    k.decoder = s.d->id;
    k.k = s.kv->k, k.v = s.kv->v, k.state = s.kv->state, k.logits = s.logits, k.slab = state->slab;
    k.scratch = s.dev->scratch, k.scratch_bytes = s.dev->scratch_bytes;
    k.kv_dtype = s.kv->dtype, k.kv_seq = s.kv->n_seq, k.capacity = s.kv->capacity;
    k.n_seq = s.n_seq, k.bound = s.bound, k.greedy = s.greedy;
    return k;
}

/* The entry of a key; NULL when it has not been seen. */
graph_entry *find(decode_state *state, const graph_key &key) {
    for (graph_entry &e : state->graphs)
        if (e.used && memcmp(&e.key, &key, sizeof key) == 0) return &e;
    return NULL;
}

/* A new entry in place of the one that lay unused the longest. */
void remember(decode_state *state, const graph_key &key) {
    graph_entry *oldest = &state->graphs[0];
    for (graph_entry &e : state->graphs)
        if (e.used < oldest->used) oldest = &e;
    forget(oldest);
    oldest->key = key;
    oldest->used = ++state->clock;
}

/* Records the step as a graph. Nothing runs. */
qb_status capture(const decode_step &s, cudaGraphExec_t *out) {
    cudaGraph_t graph = NULL;
    qb_status st =
        qb_cuda_status(s.dev, cudaStreamBeginCapture(s.dev->stream, cudaStreamCaptureModeThreadLocal),
                       "capture of a decode step");
    if (st != QB_OK) return st;
    st = qb_decode_queue(s);
    const cudaError_t ended = cudaStreamEndCapture(s.dev->stream, &graph);
    if (st == QB_OK) st = qb_cuda_status(s.dev, ended, "capture of a decode step");
    if (st == QB_OK)
        st = qb_cuda_status(s.dev, cudaGraphInstantiateWithFlags(out, graph, 0), "graph of a decode step");
    if (graph) (void)cudaGraphDestroy(graph);
    return st;
}

qb_status run(decode_state *state, const decode_step &s) {
    graph_entry *e = find(state, key_of(state, s));
    if (!e) {
        qb_status st = qb_decode_queue(s);
        if (st == QB_OK) remember(state, key_of(state, s)); /* with the scratch as it is now */
        return st;
    }
    e->used = ++state->clock;
    if (!e->exec) {
        qb_status st = capture(s, &e->exec);
        if (st != QB_OK) return st;
    }
    return qb_cuda_status(s.dev, cudaGraphLaunch(e->exec, s.dev->stream), "decode step");
}

/* All of a step of up to position `last` but its bound, and the device's state. */
qb_status prepare(cuda_device *dev, const qb_decoder *d, const qb_kv *kv, int64_t n_seq, int64_t first,
                  int64_t last, float *logits, decode_state **out_state, decode_step *s) {
    decode_state *state = NULL;
    qb_status st = state_of(dev, &state);
    if (st != QB_OK) return st;
    const decode_facts &facts = facts_of(dev, state, d, kv, n_seq);
    if (!facts.serves)
        return qb_fail(QB_ERR_UNSUPPORTED, "no fused step for %lld sequences of this model",
                       (long long)n_seq);
    if ((st = check_position(d, kv, facts, first)) != QB_OK) return st;
    if ((st = check_position(d, kv, facts, last)) != QB_OK) return st;
    *s = {};
    s->dev = dev, s->d = d, s->kv = kv, s->n_seq = n_seq, s->logits = logits, s->dependent = state->dependent;
    if ((st = qb_attention_arrived(dev, &s->arrived)) != QB_OK) return st;
    s->greedy_ids.arrived = s->arrived; /* attention is through when the choice begins */
    if ((st = take_experts(state, s)) != QB_OK) return st;
    *out_state = state;
    return lay_out(state, s);
}

decode_tokens tokens_of(const int32_t *ids, int64_t n_seq, int64_t first) {
    decode_tokens tokens = {static_cast<int32_t>(first), static_cast<int32_t>(n_seq), {}};
    memcpy(tokens.ids, ids, static_cast<size_t>(n_seq) * sizeof *ids);
    return tokens;
}

/* n steps of up to QB_DECODE_RUN, without a wait between them; their ids to host memory. */
qb_status run_greedy(decode_state *state, decode_step *s, const int32_t *ids, int64_t first, int64_t n,
                     int32_t *chosen) {
    qb_status st = qb_cuda_status(
        s->dev, qb_decode_begin(tokens_of(ids, s->n_seq, first), s->greedy_ids, s->first, s->dev->stream),
        "embedding");
    for (int64_t i = 0; st == QB_OK && i < n; i++) {
        s->bound = qb_attention_bound(first + i + 1);
        st = run(state, *s);
    }
    if (st != QB_OK) return st;
    return qb_cuda_download(&s->dev->base, chosen, s->greedy_ids.history,
                            n * s->n_seq * static_cast<int64_t>(sizeof *chosen));
}

} // namespace

extern "C" qb_status qb_cuda_decode(qb_device *base, const qb_decoder *d, const qb_kv *kv, const int32_t *ids,
                                    int64_t n_seq, int64_t first, float *logits) {
    cuda_device *dev = cuda_of(base);
    decode_state *state = NULL;
    decode_step s;
    qb_status st = prepare(dev, d, kv, n_seq, first, first, logits, &state, &s);
    if (st != QB_OK) return st;
    /* for all positions below the bound: what is captured serves them */
    s.bound = qb_attention_bound(first + 1);
    st = qb_cuda_status(dev,
                        qb_decode_embed(tokens_of(ids, n_seq, first), d->embed, qb_decode_embed_position(d),
                                        s.slots[d->embed_slot], s.first, dev->stream),
                        "embedding");
    return st == QB_OK ? run(state, s) : st;
}

extern "C" qb_status qb_cuda_decode_greedy(qb_device *base, const qb_decoder *d, const qb_kv *kv,
                                           const int32_t *ids, int64_t n_seq, int64_t first, int64_t n,
                                           float *logits, int32_t *chosen, int64_t *n_chosen) {
    decode_state *state = NULL;
    decode_step s;
    *n_chosen = 0;
    if (n < 1) return QB_OK;
    qb_status st = prepare(cuda_of(base), d, kv, n_seq, first, first + n - 1, logits, &state, &s);
    if (st != QB_OK) return st;
    s.greedy = true;
    for (int64_t done = 0; done < n; done += QB_DECODE_RUN) {
        const int64_t some = n - done < QB_DECODE_RUN ? n - done : QB_DECODE_RUN;
        int32_t *to = chosen + done * n_seq;
        st = run_greedy(state, &s, done == 0 ? ids : to - n_seq, first + done, some, to);
        if (st != QB_OK) return st;
        for (int64_t i = 0; i < some; i++, ++*n_chosen)
            for (int64_t seq = 0; seq < n_seq; seq++)
                if (to[i * n_seq + seq] < 0)
                    return qb_fail(QB_ERR_NUMERIC, "the logits of row %lld hold a NaN or an infinity",
                                   (long long)seq);
    }
    return QB_OK;
}
