/* Mixtures in the captured token against the plain ops, which route on the host: every router, every form of
   weights and of what stands between the experts' products, every format of the experts, several at once. */
#include "tests/cuda_formats.h"
#include "tests/cuda_lists.h"

enum { X, H, ROUTER, XE, GATE, UP, BOTH, A, DOWN, O, LOGITS, SLOTS };
enum { WIDTH = 128, FFN = 128, EXPERTS = 6, TOP = 3, VOCAB = 40, POSITIONS = 12 };
static const int64_t widths[SLOTS] = {
    [X] = WIDTH,      [H] = WIDTH, [ROUTER] = EXPERTS, [XE] = WIDTH, [GATE] = FFN,    [UP] = FFN,
    [BOTH] = 2 * FFN, [A] = FFN,   [DOWN] = WIDTH,     [O] = WIDTH,  [LOGITS] = VOCAB};
static const bool is_routed[SLOTS] = {
    [XE] = true, [GATE] = true, [UP] = true, [BOTH] = true, [A] = true, [DOWN] = true};

/* Formats of experts: dense types, and those of cuda_formats.h behind them. */
enum { DENSE_F16, DENSE_BF16, DENSE_F32, PACKED, MIXED = 100 };
static const qb_dtype dense_types[] = {QB_DTYPE_F16, QB_DTYPE_BF16, QB_DTYPE_F32};

typedef struct {
    const char *name;
    qb_route_attr route; /* experts and top_k 0: EXPERTS and TOP; scale 0: 1 */
    bool router_bias, choice_bias, weigh_input, expert_bias, folds;
    int format;
    qb_glu glu;
    qb_activation activation;
    qb_step_kind extra; /* with `extras`: a step on routed rows behind the activation */
    bool extras;
} variant;

static void expert(list *l, const variant *v, int e, int8_t in, int8_t out) {
    int of = v->format == MIXED ? e % (PACKED + N_FORMATS) : v->format;
    if (of < PACKED) {
        add_dense(l, dense_types[of], widths[out], widths[in], v->expert_bias, in, out)->expert = (int16_t)e;
        return;
    }
    qb_weight w = {.rows = widths[out], .cols = widths[in]};
    w.packed = random_weight(&formats[of - PACKED], w.rows, w.cols, noise_u32());
    add_linear(l, &w, v->expert_bias, in, out)->expert = (int16_t)e;
    qb_weight_free(&w);
}
static void experts(list *l, const variant *v, int8_t in, int8_t out) {
    for (int e = 0; e < EXPERTS; e++) expert(l, v, e, in, out);
}

static void dense(list *l, const variant *v, int8_t in, int8_t out, bool bias) {
    add_dense(l, v->folds ? QB_DTYPE_F16 : QB_DTYPE_F32, widths[out], widths[in], bias, in, out);
}

static void norm(list *l, int8_t in, int8_t out) {
    qb_step *s = push(l, QB_STEP_NORM, in, -1, out);
    s->u.norm = (qb_norm_attr){QB_NORM_RMS, 1e-5f, widths[in], 1};
    s->vector = add_vector(l, widths[in], 1.0f);
}

static void on_routed_rows(list *l, const variant *v) {
    if (!v->extras) return;
    if (v->extra == QB_STEP_NORM) {
        norm(l, A, A);
    } else if (v->extra == QB_STEP_ADD) {
        push(l, QB_STEP_ADD, UP, -1, A);
    } else {
        push(l, v->extra, -1, -1, A)->u.value = 0.6f;
    }
}

static void block(list *l, const variant *v) {
    norm(l, X, H);
    dense(l, v, H, ROUTER, v->router_bias);
    qb_step *s = push(l, QB_STEP_ROUTE, ROUTER, -1, -1);
    s->u.route = v->route;
    s->u.route.experts = EXPERTS, s->u.route.top_k = v->route.top_k ? v->route.top_k : TOP;
    if (s->u.route.scale == 0) s->u.route.scale = 1;
    if (v->choice_bias) s->vector = add_vector(l, EXPERTS, 0.0f);
    push(l, QB_STEP_GATHER, H, -1, XE)->u.weigh_input = v->weigh_input;
    const bool fused = v->glu == QB_GLU_HALVES || v->glu == QB_GLU_INTERLEAVED;
    if (fused) experts(l, v, XE, BOTH);
    if (!fused) experts(l, v, XE, UP);
    if (v->glu == QB_GLU_SEPARATE) experts(l, v, XE, GATE);
    s = push(l, QB_STEP_ACTIVATE,
             fused                       ? BOTH
             : v->glu == QB_GLU_SEPARATE ? GATE
                                         : UP,
             v->glu == QB_GLU_SEPARATE ? UP : -1, A);
    s->u.activate = (qb_activate_attr){v->activation, v->glu, 1.702f, 1.5f};
    on_routed_rows(l, v);
    experts(l, v, A, DOWN);
    push(l, QB_STEP_SCATTER, DOWN, -1, O)->u.weigh_input = v->weigh_input;
    push(l, QB_STEP_ADD, O, -1, X);
}

static lists *model_new(const variant *v, uint32_t seed) {
    noise_state = seed;
    lists *m = lists_new(VOCAB, POSITIONS, 0, widths, SLOTS, LOGITS);
    m->kv = (qb_kv){QB_DTYPE_F16, LIST_LAYERS, 0, POSITIONS, 1, 8, 8, NULL, NULL, 0, NULL};
    m->d.n_experts = EXPERTS, m->d.top_k = v->route.top_k ? v->route.top_k : TOP;
    memcpy(m->d.slot_routed, is_routed, sizeof is_routed);
    for (int i = 0; i < LIST_LAYERS; i++) block(&m->blocks[i], v);
    norm(&m->leave, X, H);
    dense(&m->leave, v, H, LOGITS, false);
    return m;
}

/* Queued, captured, replayed. */
static void compare(const variant *v, int64_t n_seq) {
    lists *m = model_new(v, 11);
    compare_lists(m, v->name, n_seq, 3, 4e-3);
    lists_free(m);
}

#define SEPARATE .glu = QB_GLU_SEPARATE
static const variant variants[] = {
    {.name = "softmax", SEPARATE},
    {.name = "softmax, normalised", SEPARATE, .route = {.normalise = true, .scale = 2.5f}},
    {.name = "softmax of the chosen", SEPARATE, .route = {.kind = QB_ROUTER_SOFTMAX_TOPK}},
    {.name = "sigmoid", SEPARATE, .route = {.kind = QB_ROUTER_SIGMOID}},
    {.name = "sigmoid with a bias",
     SEPARATE,
     .route = {.kind = QB_ROUTER_SIGMOID, .normalise = true},
     .choice_bias = true},
    {.name = "sparsemixer", SEPARATE, .route = {.kind = QB_ROUTER_SPARSEMIXER, .top_k = 2, .jitter = 0.4f}},
    {.name = "groups", SEPARATE, .route = {.groups = 3, .keep_groups = 2}},
    {.name = "groups with a bias",
     SEPARATE,
     .route = {.kind = QB_ROUTER_SIGMOID, .groups = 2, .keep_groups = 1},
     .choice_bias = true},
    {.name = "one expert", SEPARATE, .route = {.top_k = 1}},
    {.name = "all experts", SEPARATE, .route = {.top_k = EXPERTS}},
    {.name = "weighed inputs", SEPARATE, .weigh_input = true},
    {.name = "biases", SEPARATE, .router_bias = true, .expert_bias = true},
    {.name = "ungated", .glu = QB_GLU_NONE, .activation = QB_ACTIVATION_RELU2, .expert_bias = true},
    {.name = "halves", .glu = QB_GLU_HALVES, .expert_bias = true},
    {.name = "interleaved gates of gpt-oss",
     .glu = QB_GLU_INTERLEAVED,
     .activation = QB_ACTIVATION_SWIGLU_OSS,
     .expert_bias = true},
    {.name = "a norm of routed rows", SEPARATE, .extras = true, .extra = QB_STEP_NORM},
    {.name = "a sum of routed rows", SEPARATE, .extras = true, .extra = QB_STEP_ADD, .expert_bias = true},
    {.name = "scaled routed rows", SEPARATE, .extras = true, .extra = QB_STEP_SCALE},
    {.name = "clamped routed rows", SEPARATE, .extras = true, .extra = QB_STEP_CLAMP},
    {.name = "capped routed rows", SEPARATE, .extras = true, .extra = QB_STEP_SOFTCAP},
};

static void test_cuda_mixtures__every_form_equals_the_plain_ops(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        variant v = variants[i];
        compare(&v, 3);
        v.folds = true;
        compare(&v, 1);
    }
}

static void test_cuda_mixtures__every_format_equals_the_plain_ops(void **state) {
    (void)state;
    char name[64];
    for (int of = 0; of <= PACKED + N_FORMATS; of++) {
        const bool mixed = of == PACKED + N_FORMATS;
        variant v = {SEPARATE, .expert_bias = true, .format = mixed ? MIXED : of};
        snprintf(name, sizeof name, "experts of format %d", v.format);
        v.name = name;
        compare(&v, 1);
    }
    variant all = {
        .name = "all experts, of several formats", SEPARATE, .format = MIXED, .route = {.top_k = EXPERTS}};
    compare(&all, 2);
}

/* Two mixtures in turn on one device: each finds its own experts. */
static void test_cuda_mixtures__models_in_turn(void **state) {
    (void)state;
    lists *a = model_new(&variants[0], 1), *b = model_new(&variants[11], 2);
    for (int i = 0; i < 2; i++) {
        compare_lists(a, "the first model", 1, 3, 4e-3);
        compare_lists(b, "the second model", 1, 3, 4e-3);
    }
    lists_free(a), lists_free(b);
}

static void decode_once(const lists *m, qb_status want, float *out) {
    qb_kv kv = cache_new(m, 1);
    float *logits;
    int32_t ids[1] = {3};
    assert_ok(cuda->alloc(on_cuda, QB_MEMORY_ACTIVATIONS, VOCAB * 4, &logits));
    for (int i = 0; i < 3; i++) assert_int_equal(cuda->decode(on_cuda, &m->d, &kv, ids, 1, i, logits), want);
    if (out) assert_ok(cuda->download(on_cuda, out, logits, VOCAB * 4));
    cuda->free(on_cuda, logits);
    cache_free(&kv);
}

/* The plain op fails; what a graph computes shows it. */
static void test_cuda_mixtures__router_logits_that_are_not_finite_show(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        variant v = variants[11];
        float logits[VOCAB];
        lists *m = model_new(&v, 5);
        list *l = &m->blocks[1];
        for (int64_t k = 0; k < l->w.n_steps; k++)
            if (l->steps[k].kind == QB_STEP_LINEAR && l->steps[k].out == ROUTER)
                assert_ok(cuda->upload(on_cuda, l->biases[l->steps[k].module] + 2, &bad[i], 4));
        decode_once(m, QB_OK, logits);
        for (int k = 0; k < VOCAB; k++) assert_true(isnan(logits[k]));
        lists_free(m);
    }
}

static qb_step *first_of(list *l, qb_step_kind kind) {
    for (int64_t i = 0; i < l->w.n_steps; i++)
        if (l->steps[i].kind == kind && (kind != QB_STEP_LINEAR || l->steps[i].expert >= 0))
            return &l->steps[i];
    fail();
    return NULL;
}

/* What it does not compute goes by the plain ops, and nothing has been done. */
static void test_cuda_mixtures__refuses_what_it_does_not_compute(void **state) {
    (void)state;
    for (int what = 0; what < 12; what++) {
        lists *m = model_new(&variants[0], 3);
        list *l = &m->blocks[1];
        qb_step *route = first_of(l, QB_STEP_ROUTE), *gather = first_of(l, QB_STEP_GATHER),
                *scatter = first_of(l, QB_STEP_SCATTER), *linear = first_of(l, QB_STEP_LINEAR);
        if (what == 0) route->kind = QB_STEP_SCALE, route->out = ROUTER; /* nothing is routed */
        if (what == 1) route->u.route.top_k = TOP - 1;
        if (what == 2) route->u.route.experts = EXPERTS - 1;
        if (what == 3) gather->out = H;
        if (what == 4) gather->in = A;
        if (what == 5) scatter->in = H;
        if (what == 6) scatter->out = DOWN;
        if (what == 7) linear[0].expert = 1, linear[1].expert = 0;
        if (what == 8) linear[EXPERTS - 1].in = A;
        if (what == 9) linear[0].expert = -1;
        if (what == 10) push(l, QB_STEP_ADD, A, -1, X);
        if (what == 11) push(l, QB_STEP_GATE_ROWS, ROUTER, -1, A);
        decode_once(m, QB_ERR_UNSUPPORTED, NULL);
        lists_free(m);
    }
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_mixtures__every_form_equals_the_plain_ops),
        cmocka_unit_test(test_cuda_mixtures__every_format_equals_the_plain_ops),
        cmocka_unit_test(test_cuda_mixtures__models_in_turn),
        cmocka_unit_test(test_cuda_mixtures__router_logits_that_are_not_finite_show),
        cmocka_unit_test(test_cuda_mixtures__refuses_what_it_does_not_compute),
    };
    return cmocka_run_group_tests(tests, pair_open, pair_close);
}

int main(void) {
    return cuda_run(run);
}
