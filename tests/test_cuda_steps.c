/* The captured token against the plain ops of the same device, over lists of steps that are no family's:
   every step kind and every attribute, in places where kernels are shared and where they must not be. */
#include "tests/cuda_lists.h"

enum { X, H, Q, K, V, C, O, GATE, UP, BOTH, QKV, KEYS, SHARED, ONE, LOGITS, SLOTS };
enum { WIDTH = 64, HEADS = 4, KV_HEADS = 2, DIM = 16, FFN = 96, VOCAB = 40, POSITIONS = 24 };
static const int64_t widths[SLOTS] = {[X] = WIDTH,
                                      [H] = WIDTH,
                                      [Q] = HEADS * DIM,
                                      [K] = KV_HEADS * DIM,
                                      [V] = KV_HEADS * DIM,
                                      [C] = HEADS * DIM,
                                      [O] = WIDTH,
                                      [GATE] = FFN,
                                      [UP] = FFN,
                                      [BOTH] = 2 * FFN,
                                      [QKV] = (HEADS + 2 * KV_HEADS) * DIM,
                                      [KEYS] = KV_HEADS * (DIM - 4),
                                      [SHARED] = 4,
                                      [ONE] = 1,
                                      [LOGITS] = VOCAB};

typedef enum { PRE_NORM, PARALLEL, POST_NORM, SANDWICH, FUSED, QK_NORM, JOINED, LATE_READER } arrangement;

typedef struct {
    const char *name;
    arrangement form;
    bool bias, ungated, folds, xielu; /* xielu: in the activation's place */
    qb_norm_kind norm;
    bool norm_bias, norm_bare, norm_per_group;
    int64_t norm_dim; /* 0: the row */
    qb_rope_kind rope;
    int64_t rope_offset, rope_width; /* 0: no turns */
    bool rope_of_q_alone, keys_first, other_table;
    qb_attend_attr attend; /* window, chunk, softcap, alibi; scale 0: 1 / sqrt of the width */
    bool sinks;
    qb_activate_attr activate;
    qb_step_kind extra; /* with a slot: a step in place behind the attention's products */
    int8_t extra_slot;
} variant;

/* ---- lists ---- */

static void linear(list *l, const variant *v, int8_t in, int8_t out, bool bias) {
    add_dense(l, v->folds ? QB_DTYPE_F16 : QB_DTYPE_F32, widths[out], widths[in], bias, in, out);
}

static void norm(list *l, const variant *v, int8_t in, int8_t out, int64_t dim, bool per_group) {
    int64_t n = widths[in], rows;
    if (dim == 0) dim = n;
    rows = per_group ? n / dim : 1;
    qb_step *s = push(l, QB_STEP_NORM, in, -1, out);
    s->u.norm = (qb_norm_attr){v->norm, 1e-5f, dim, rows};
    if (!v->norm_bare) s->vector = add_vector(l, dim * rows, 1.0f);
    if (v->norm_bias) s->vector2 = add_vector(l, dim * rows, 0.0f);
}
static void row_norm(list *l, const variant *v, int8_t in, int8_t out) {
    norm(l, v, in, out, v->norm_dim, v->norm_per_group);
}

static void rope(list *l, const variant *v, int8_t slot) {
    qb_step *s = push(l, QB_STEP_ROPE, -1, -1, slot);
    s->u.rope = (qb_rope_attr){
        v->rope, v->other_table && slot == K, widths[slot] / DIM, DIM, v->rope_offset, v->rope_width};
}

static void in_place(list *l, const variant *v) {
    if (!v->extra_slot) return;
    qb_step *s = push(l, v->extra, -1, -1, v->extra_slot);
    if (v->extra == QB_STEP_TEMPERATURE)
        s->u.temperature = (qb_temperature_attr){0.4f, 3.0f, 1.0f};
    else if (v->extra == QB_STEP_POSITION)
        s->vector = add_vector(l, (POSITIONS + 2) * widths[v->extra_slot], 0.0f), s->u.position = 2;
    else if (v->extra == QB_STEP_GATE_ROWS)
        s->in = ONE;
    else if (v->extra != QB_STEP_ADD)
        s->u.value = 0.7f;
    else
        s->in = v->extra_slot == H ? O : H;
}

static void attention(list *l, const variant *v, int8_t in) {
    if (v->form == FUSED) {
        linear(l, v, in, QKV, v->bias);
        qb_step *s = push(l, QB_STEP_SPLIT, QKV, -1, Q);
        s->out2 = K, s->out3 = V;
        s->u.split = (qb_split_attr){KV_HEADS, {HEADS / KV_HEADS * DIM, DIM, DIM}};
    } else {
        linear(l, v, in, Q, v->bias);
        linear(l, v, in, v->form == JOINED ? KEYS : K, v->bias);
        if (v->form == JOINED) linear(l, v, in, SHARED, v->bias);
        linear(l, v, in, V, v->bias);
    }
    if (v->form == JOINED)
        push(l, QB_STEP_JOIN, KEYS, SHARED, K)->u.join = (qb_join_attr){KV_HEADS, DIM - 4, 4};
    if (v->extra == QB_STEP_GATE_ROWS && v->extra_slot) linear(l, v, in, ONE, v->bias);
    if (v->form == QK_NORM) norm(l, v, Q, Q, DIM, false), norm(l, v, K, K, DIM, true);
    in_place(l, v);
    if (v->rope_width && v->keys_first) rope(l, v, K);
    if (v->rope_width) rope(l, v, Q);
    if (v->rope_width && !v->keys_first && !v->rope_of_q_alone) rope(l, v, K);
    push(l, QB_STEP_CACHE, K, V, -1);
    qb_step *s = push(l, QB_STEP_ATTEND, Q, -1, C);
    s->u.attend = v->attend;
    s->u.attend.heads = HEADS, s->u.attend.kv_heads = KV_HEADS,
    s->u.attend.head_dim = s->u.attend.value_dim = DIM;
    if (s->u.attend.scale == 0) s->u.attend.scale = 0.25f;
    if (v->attend.alibi != QB_ALIBI_NONE) s->vector = add_vector(l, HEADS, 0.5f);
    if (v->sinks) s->vector2 = add_vector(l, HEADS, 0.5f);
    linear(l, v, C, O, v->bias);
}

static void mlp(list *l, const variant *v, int8_t in, int8_t out) {
    qb_activate_attr a = v->activate;
    bool fused = a.glu == QB_GLU_HALVES || a.glu == QB_GLU_INTERLEAVED;
    a.glu = fused ? a.glu : v->ungated ? QB_GLU_NONE : QB_GLU_SEPARATE;
    if (fused)
        linear(l, v, in, BOTH, v->bias);
    else if (!v->ungated)
        linear(l, v, in, GATE, v->bias);
    if (!fused) linear(l, v, in, UP, v->bias);
    if (v->xielu)
        push(l, QB_STEP_XIELU, UP, -1, GATE)->vector = add_vector(l, 4, 0.5f);
    else
        push(l, QB_STEP_ACTIVATE,
             fused        ? BOTH
             : v->ungated ? UP
                          : GATE,
             fused || v->ungated ? -1 : UP, GATE)
            ->u.activate = a;
    linear(l, v, GATE, out, v->bias);
}

static void add(list *l, int8_t what, int8_t to) {
    push(l, QB_STEP_ADD, what, -1, to);
}

static void block(list *l, const variant *v) {
    if (v->form != POST_NORM) row_norm(l, v, X, H);
    attention(l, v, v->form == POST_NORM ? X : H);
    if (v->form == LATE_READER) add(l, H, O); /* the norm's result is wanted behind the attention */
    if (v->form == SANDWICH) row_norm(l, v, O, O);
    if (v->form == PARALLEL) {
        add(l, O, X);
        mlp(l, v, H, O);
        add(l, O, X);
        return;
    }
    add(l, O, X);
    if (v->form == POST_NORM) row_norm(l, v, X, X);
    if (v->form != POST_NORM) row_norm(l, v, X, H);
    mlp(l, v, v->form == POST_NORM ? X : H, O);
    if (v->form == SANDWICH)
        row_norm(l, v, O, H), add(l, H, X);
    else
        add(l, O, X);
    if (v->form == POST_NORM) row_norm(l, v, X, X);
}

static lists *model_new(const variant *v, uint32_t seed) {
    noise_state = seed;
    lists *m = lists_new(VOCAB, POSITIONS, v->rope_width, widths, SLOTS, LOGITS);
    m->kv = (qb_kv){QB_DTYPE_F16, LIST_LAYERS, 0, POSITIONS, KV_HEADS, DIM, DIM, NULL, NULL, 0, NULL};
    if (v->extra ==
        QB_STEP_POSITION) { /* the form that the embedding takes along, and one that it does not */
        qb_step *s = push(&m->enter, QB_STEP_POSITION, -1, -1, X);
        s->vector = add_vector(&m->enter, (POSITIONS + 2) * WIDTH, 0.0f), s->u.position = 2;
    }
    push(&m->enter, QB_STEP_SCALE, -1, -1, X)->u.value = 1.5f;
    for (int i = 0; i < LIST_LAYERS; i++) block(&m->blocks[i], v);
    row_norm(&m->leave, v, X, H);
    linear(&m->leave, v, H, LOGITS, v->bias);
    if (v->attend.softcap > 0) push(&m->leave, QB_STEP_SOFTCAP, -1, -1, LOGITS)->u.value = 3.0f;
    return m;
}

/* Windows and chunks of up to 5 keys. Sanitizers take seven times as long. */
#if defined(QB_SANITIZED)
enum { STEPS = 4, BATCH = 2 };
#else
enum { STEPS = 6, BATCH = 2 };
#endif

static void compare(const variant *v) {
    lists *m = model_new(v, 7);
    compare_lists(m, v->name, BATCH, STEPS, 4e-3);
    lists_free(m);
}

#define BASE .rope_width = DIM, .activate = {QB_ACTIVATION_SILU, QB_GLU_SEPARATE, 0, 0}
static const variant variants[] = {
    {.name = "plain", BASE},
    {.name = "biases", BASE, .bias = true},
    {.name = "layer norm", BASE, .norm = QB_NORM_LAYER, .norm_bias = true},
    {.name = "layer norm without bias", BASE, .norm = QB_NORM_LAYER},
    {.name = "rms with a bias", BASE, .norm_bias = true},
    {.name = "bare norm", BASE, .norm_bare = true, .bias = true},
    {.name = "bare layer norm", BASE, .norm = QB_NORM_LAYER, .norm_bare = true},
    {.name = "norm in groups", BASE, .norm_dim = 16},
    {.name = "norm in groups of their own", BASE, .norm_dim = 16, .norm_per_group = true, .norm_bias = true},
    {.name = "xielu", BASE, .ungated = true, .xielu = true},
    {.name = "xielu of sums with biases", BASE, .ungated = true, .xielu = true, .bias = true},
    {.name = "parallel", BASE, .form = PARALLEL, .bias = true},
    {.name = "post-norm", BASE, .form = POST_NORM, .norm = QB_NORM_LAYER, .norm_bias = true, .bias = true},
    {.name = "sandwich", BASE, .form = SANDWICH, .bias = true},
    {.name = "fused qkv", BASE, .form = FUSED, .bias = true},
    {.name = "fused qkv without bias", BASE, .form = FUSED},
    {.name = "norms of q and k", BASE, .form = QK_NORM, .bias = true},
    {.name = "joined keys", BASE, .form = JOINED, .bias = true},
    {.name = "late reader", BASE, .form = LATE_READER, .bias = true},
    {.name = "interleaved turns", BASE, .rope = QB_ROPE_INTERLEAVED},
    {.name = "partial turns", .rope_width = 6, .bias = true},
    {.name = "turns at an offset", .rope_width = 8, .rope_offset = 8, .bias = true},
    {.name = "turns of q alone", BASE, .rope_of_q_alone = true, .bias = true},
    {.name = "keys first", BASE, .keys_first = true, .bias = true},
    {.name = "two tables", BASE, .other_table = true, .bias = true},
    {.name = "no turns", .bias = true},
    {.name = "window", BASE, .attend = {.window = 3}},
    {.name = "chunk", BASE, .attend = {.chunk = 4}},
    {.name = "softcap", BASE, .attend = {.softcap = 0.5f}, .bias = true},
    {.name = "alibi", .attend = {.alibi = QB_ALIBI_PLAIN}},
    {.name = "alibi in bfloat16", .attend = {.alibi = QB_ALIBI_BF16}},
    {.name = "sinks", BASE, .sinks = true},
    {.name = "scale", BASE, .attend = {.scale = 0.03f}},
    {.name = "all of the attention",
     BASE,
     .attend = {.window = 5, .chunk = 7, .softcap = 0.8f, .alibi = QB_ALIBI_PLAIN},
     .sinks = true,
     .bias = true},
    {.name = "halves", .rope_width = DIM, .activate = {.glu = QB_GLU_HALVES}, .bias = true},
    {.name = "interleaved gates", .rope_width = DIM, .activate = {.glu = QB_GLU_INTERLEAVED}, .bias = true},
    {.name = "scaled", BASE, .extra = QB_STEP_SCALE, .extra_slot = V, .bias = true},
    {.name = "clamped", BASE, .extra = QB_STEP_CLAMP, .extra_slot = Q, .bias = true},
    {.name = "capped", BASE, .extra = QB_STEP_SOFTCAP, .extra_slot = K, .bias = true},
    {.name = "gated rows", BASE, .extra = QB_STEP_GATE_ROWS, .extra_slot = V, .bias = true},
    {.name = "temperature", BASE, .extra = QB_STEP_TEMPERATURE, .extra_slot = Q, .bias = true},
    {.name = "positions", .extra = QB_STEP_POSITION, .extra_slot = K, .bias = true},
    {.name = "a changed stream", BASE, .extra = QB_STEP_SCALE, .extra_slot = X, .bias = true},
    {.name = "a changed norm", BASE, .extra = QB_STEP_SCALE, .extra_slot = H, .form = LATE_READER},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

/* Products of float16 fold their neighbours in, those of float32 do not. */
static void test_cuda_steps__every_list_equals_the_plain_ops(void **state) {
    (void)state;
    for (int i = 0; i < VARIANTS; i++)
        for (int folds = 0; folds < 2; folds++) {
            variant v = variants[i];
            v.folds = folds;
            compare(&v);
        }
}

static void test_cuda_steps__every_activation_equals_the_plain_ops(void **state) {
    (void)state;
    for (int kind = 0; kind < QB_ACTIVATION_COUNT; kind++)
        for (int ungated = 0; ungated < 2; ungated++) {
            variant v = {.name = qb_activation_name((qb_activation)kind), .rope_width = DIM, .bias = true};
            v.activate = (qb_activate_attr){(qb_activation)kind, QB_GLU_SEPARATE, 1.702f, 1.5f};
            v.ungated = ungated;
            if (kind == QB_ACTIVATION_SWIGLU_OSS && ungated) continue;
            for (int folds = 0; folds < 2; folds++) v.folds = folds, compare(&v);
        }
}

/* What the captured step does not list goes by the plain ops, and nothing has been done. */
static void test_cuda_steps__refuses_what_it_does_not_compute(void **state) {
    (void)state;
    static const variant base = {.name = "refused", BASE};
    for (int what = 0; what < 9; what++) {
        lists *m = model_new(&base, 3);
        qb_kv kv = cache_new(m, 2);
        float *logits;
        int32_t ids[2] = {0};
        assert_ok(cuda->alloc(on_cuda, QB_MEMORY_ACTIVATIONS, 2 * VOCAB * 4, &logits));
        list *l = &m->blocks[1];
        qb_step *last = &l->steps[l->w.n_steps - 1], *attend = NULL, *turn = NULL;
        for (int64_t i = 0; i < l->w.n_steps; i++) {
            if (l->steps[i].kind == QB_STEP_ATTEND) attend = &l->steps[i];
            if (l->steps[i].kind == QB_STEP_ROPE) turn = &l->steps[i];
        }
        if (what == 0) last->kind = QB_STEP_COUNT;
        if (what == 1)
            last->kind = QB_STEP_ROUTE, last->u.route = (qb_route_attr){.experts = 4, .top_k = 2, .scale = 1};
        if (what == 2) last->kind = QB_STEP_GATHER;
        if (what == 3) last->kind = QB_STEP_SCATTER;
        if (what == 4) l->steps[1].expert = 0;
        if (what == 5) attend->u.attend.value_dim = 8;
        if (what == 6) turn->u.rope.table = 2;
        if (what == 7) attend->u.attend.kv_heads = 1;
        if (what == 8) *push(&m->leave, QB_STEP_ATTEND, Q, -1, C) = *attend;
        assert_int_equal(cuda->decode(on_cuda, &m->d, &kv, ids, 2, 0, logits), QB_ERR_UNSUPPORTED);
        cuda->free(on_cuda, logits);
        cache_free(&kv);
        lists_free(m);
    }
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_steps__every_list_equals_the_plain_ops),
        cmocka_unit_test(test_cuda_steps__every_activation_equals_the_plain_ops),
        cmocka_unit_test(test_cuda_steps__refuses_what_it_does_not_compute),
    };
    return cmocka_run_group_tests(tests, pair_open, pair_close);
}

int main(void) {
    return cuda_run(run);
}
