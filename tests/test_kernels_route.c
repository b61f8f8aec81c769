/* Routing against values of transformers 5.24.0, its order of rows, rows to experts and back, and what steps
   may be. */
#include "tests/cpu_support.h"

enum { TOKENS = 3, EXPERTS = 8 };
static const float logits[TOKENS * EXPERTS] = {
    0.30f, -1.25f, 2.00f,  1.99f,  0.10f, -0.75f, 1.50f, 0.90f, -0.40f, -0.41f, -3.0f, -0.405f,
    -1.0f, -2.0f,  -0.39f, -0.50f, 5.0f,  4.95f,  4.9f,  4.6f,  -5.0f,  0.0f,   1.0f,  4.93f,
};

typedef struct {
    qb_route_attr attr;
    int32_t expert[TOKENS][3]; /* ascending */
    double weight[TOKENS][3];
} route_case;

/* Made by torch 2.15.0's softmax, topk and sigmoid as the routers of Mixtral, Qwen2-MoE, gpt-oss, Llama 4 and
   DeepSeek-V2 compose them, and by transformers' phimoe sparsemixer. */
static const route_case cases[] = {
    {{.kind = QB_ROUTER_SOFTMAX, .experts = EXPERTS, .top_k = 3, .scale = 1},
     {{2, 3, 6}, {0, 3, 6}, {0, 1, 7}},
     {{0.29722932, 0.294271827, 0.180278704},
      {0.174674585, 0.173803389, 0.176430091},
      {0.223021179, 0.212144256, 0.207943529}}},
    {{.kind = QB_ROUTER_SOFTMAX, .experts = EXPERTS, .top_k = 3, .normalise = true, .scale = 1},
     {{2, 3, 6}, {0, 3, 6}, {0, 1, 7}},
     {{0.385121912, 0.38128987, 0.233588248},
      {0.332771778, 0.331112057, 0.336116165},
      {0.346785992, 0.329872966, 0.323341042}}},
    {{.kind = QB_ROUTER_SOFTMAX_TOPK, .experts = EXPERTS, .top_k = 3, .scale = 1},
     {{2, 3, 6}, {0, 3, 6}, {0, 1, 7}},
     {{0.385121882, 0.38128987, 0.233588234},
      {0.332771748, 0.331112057, 0.336116165},
      {0.346785992, 0.329872966, 0.323341072}}},
    {{.kind = QB_ROUTER_SIGMOID, .experts = EXPERTS, .top_k = 2, .scale = 1},
     {{2, 3}, {0, 6}, {0, 1}},
     {{0.880797029, 0.879743159}, {0.401312351, 0.403717309}, {0.993307173, 0.992966413}}},
    {{.kind = QB_ROUTER_SPARSEMIXER, .experts = EXPERTS, .top_k = 2, .scale = 1, .jitter = 0.01f},
     {{2, 3}, {0, 6}, {0, 1}},
     {{0.502499998, 1}, {0.501249969, 1}, {0.263959467, 0.341130614}}},
    {{.kind = QB_ROUTER_SOFTMAX, .experts = EXPERTS, .top_k = 3, .scale = 16, .groups = 4, .keep_groups = 2},
     {{2, 3, 6}, {0, 1, 6}, {0, 1, 7}},
     {{4.75566912, 4.70834923, 2.88445926},
      {2.79479337, 2.7669847, 2.82288146},
      {3.56833887, 3.39430809, 3.32709646}}},
};

static qb_routing routing_new(int64_t tokens, const qb_route_attr *a) {
    qb_routing r;
    assert_ok(qb_routing_create(tokens, a->top_k, a->experts, &r));
    return r;
}

static void test_route__weights_are_the_references(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const qb_route_attr *a = &cases[c].attr;
        qb_routing r = routing_new(5, a);
        assert_ok(qb_step_check(&(qb_step){.kind = QB_STEP_ROUTE, .u.route = *a}));
        assert_ok(qb_route(a, logits, NULL, TOKENS, &r));
        assert_int_equal(r.rows, TOKENS * a->top_k);
        for (int64_t t = 0; t < TOKENS; t++)
            for (int64_t k = 0; k < a->top_k; k++) {
                int64_t row = r.row[t * a->top_k + k], expert = cases[c].expert[t][k];
                assert_int_equal(r.token[row], t);
                if (!(r.first[expert] <= row && row < r.first[expert + 1]))
                    fail_msg("case %d, token %d: row %d is not of expert %d", (int)c, (int)t, (int)row,
                             (int)expert);
                double want = cases[c].weight[t][k];
                if (!(fabs((double)r.weight[row] - want) < 2e-7 * want + 1e-9))
                    fail_msg("case %d, token %d, expert %d: %.9g, not %.9g", (int)c, (int)t, (int)expert,
                             (double)r.weight[row], want);
            }
        qb_routing_free(&r);
    }
}

static void test_route__rows_are_sorted(void **state) {
    (void)state;
    enum { T = 200 };
    qb_route_attr a = {.kind = QB_ROUTER_SOFTMAX, .experts = 13, .top_k = 4, .scale = 1};
    float *x = noise_new(T * a.experts);
    qb_routing r = routing_new(T, &a);
    for (int pass = 0; pass < 2; pass++) { /* a second call finds the first one's leavings */
        int64_t tokens = pass ? 31 : T;
        assert_ok(qb_route(&a, x, NULL, tokens, &r));
        assert_int_equal(r.first[0], 0);
        assert_int_equal(r.first[a.experts], tokens * a.top_k);
        for (int64_t e = 0; e < a.experts; e++)
            for (int64_t row = r.first[e] + 1; row < r.first[e + 1]; row++)
                assert_true(r.token[row - 1] < r.token[row]);
        for (int64_t i = 0; i < tokens * a.top_k; i++) {
            assert_int_equal(r.token[r.row[i]], i / a.top_k);
            if (i % a.top_k) assert_true(r.row[i - 1] < r.row[i]);
        }
    }
    qb_routing_free(&r), qb_free(x);
}

static void test_route__ties_and_biases(void **state) {
    (void)state;
    const float equal[6] = {1, 2, 2, 2, 1, 2}, bias[6] = {0, 0, 0, 0.5f, 0, 0.25f};
    qb_route_attr a = {.kind = QB_ROUTER_SOFTMAX, .experts = 6, .top_k = 2, .scale = 1};
    qb_routing r = routing_new(1, &a);
    assert_ok(qb_route(&a, equal, NULL, 1, &r));
    assert_int_equal(r.first[1], 0);
    assert_int_equal(r.first[3], 2); /* experts 1 and 2 */
    a.kind = QB_ROUTER_SIGMOID;
    assert_ok(qb_route(&a, equal, bias, 1, &r)); /* the bias chooses, and does not weigh */
    assert_int_equal(r.first[3], 0);
    assert_int_equal(r.first[4], 1);
    assert_int_equal(r.first[6], 2);
    assert_true(r.weight[0] == r.weight[1] && fabs((double)r.weight[0] - 1 / (1 + exp(-2.0))) < 1e-7);
    const float large[6] = {70, 80, 60, 90, 50, 40}; /* every sigmoid is 1, and they still differ */
    assert_ok(qb_route(&a, large, NULL, 1, &r));
    assert_int_equal(r.first[1], 0);
    assert_int_equal(r.first[2], 1);
    assert_int_equal(r.first[4] - r.first[3], 1);
    a.groups = 3, a.keep_groups = 1,
    a.kind = QB_ROUTER_SOFTMAX; /* groups 0, 1 and 2 are as good: the first stays */
    assert_ok(qb_route(&a, equal, NULL, 1, &r));
    assert_int_equal(r.first[2], 2);
    qb_routing_free(&r);
}

static void test_route__refuses_what_is_not_finite_or_does_not_fit(void **state) {
    (void)state;
    const qb_route_attr *a = &cases[0].attr;
    qb_routing r = routing_new(2, a);
    assert_fails(qb_route(a, logits, NULL, 3, &r), QB_ERR_INTERNAL, "3 tokens");
    float bad[2 * EXPERTS] = {0};
    const float values[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        bad[EXPERTS + 3] = values[i];
        assert_fails(qb_route(a, bad, NULL, 2, &r), QB_ERR_NUMERIC, "expert 3");
        assert_fails(qb_route(a, logits, bad + EXPERTS, 2, &r), QB_ERR_NUMERIC, "bias of expert 3");
    }
    qb_routing_free(&r);
    qb_routing_free(&r);
    assert_fails(qb_routing_create(4, 9, 8, &r), QB_ERR_INTERNAL, "9 of 8");
}

static void test_route__rows_go_to_experts_and_back(void **state) {
    (void)state;
    enum { T = 50, N = 70 };
    qb_route_attr a = {.kind = QB_ROUTER_SOFTMAX, .experts = 9, .top_k = 3, .scale = 2};
    FOR_EACH_DEVICE(dev) for (int weigh = 0; weigh < 2; weigh++) {
        float *scores = noise_new(T * a.experts), *x = noise_new(T * N), *out = noise_new(T * N);
        float *routed = noise_new(T * a.top_k * N);
        qb_routing r = routing_new(T, &a);
        assert_ok(cpu->route(dev, &a, scores, NULL, T, &r));
        assert_ok(cpu->gather(dev, &r, weigh, routed, x, N));
        for (int64_t i = 0; i < r.rows * N; i++)
            assert_true(routed[i] == x[r.token[i / N] * N + i % N] * (weigh ? r.weight[i / N] : 1.0f));
        for (int64_t i = 0; i < r.rows * N; i++) routed[i] = noise();
        assert_ok(cpu->scatter(dev, &r, weigh, out, routed, T, N));
        for (int64_t i = 0; i < T * N; i++) {
            double want = 0;
            for (int64_t k = 0; k < a.top_k; k++) {
                int64_t row = r.row[i / N * a.top_k + k];
                want += (double)routed[row * N + i % N] * (weigh ? (double)r.weight[row] : 1);
            }
            assert_true(fabs((double)out[i] - want) < 1e-6);
        }
        assert_fails(cpu->scatter(dev, &r, weigh, out, routed, T - 1, N), QB_ERR_INTERNAL, "49 tokens");
        qb_routing_free(&r), qb_free(scores), qb_free(x), qb_free(out), qb_free(routed);
    }
}

static void test_route__steps_are_checked(void **state) {
    (void)state;
    static const struct {
        qb_step step;
        const char *says;
    } wrong[] = {
        {{.kind = QB_STEP_COUNT}, "step kind"},
        {{.kind = QB_STEP_NORM, .u.norm = {.dim = 0}}, "width"},
        {{.kind = QB_STEP_NORM, .u.norm = {.dim = 4, .eps = -1}}, "row of weights"},
        {{.kind = QB_STEP_NORM, .vector = -1, .u.norm = {.dim = 4, .eps = -1}}, "epsilon"},
        {{.kind = QB_STEP_SPLIT, .u.split = {1, {4, 0, 4}}}, "two or three parts"},
        {{.kind = QB_STEP_JOIN, .u.join = {2, 4, 0}}, "shared"},
        {{.kind = QB_STEP_ROPE, .u.rope = {.heads = 1, .head_dim = 8, .width = 3}}, "even"},
        {{.kind = QB_STEP_ROPE, .u.rope = {.heads = 1, .head_dim = 8, .offset = 4, .width = 6}}, "within"},
        {{.kind = QB_STEP_ATTEND, .u.attend = {3, 2, 8, 8, 1, 0, 0, 0, 0}}, "3 query heads"},
        {{.kind = QB_STEP_ATTEND, .vector = -1, .u.attend = {2, 2, 8, 8, 1, 0, 0, 0, QB_ALIBI_BF16}},
         "slopes"},
        {{.kind = QB_STEP_ATTEND, .vector = 1, .u.attend = {2, 2, 8, 8, 1, 0, 0, 0, 0}}, "slopes"},
        {{.kind = QB_STEP_ACTIVATE, .u.activate = {QB_ACTIVATION_COUNT, QB_GLU_NONE, 0, 0}},
         "known activation"},
        {{.kind = QB_STEP_ACTIVATE, .u.activate = {QB_ACTIVATION_SWIGLU_OSS, QB_GLU_NONE, 1, 1}},
         "swiglu_oss"},
        {{.kind = QB_STEP_CLAMP, .u.value = 0}, "above 0"},
        {{.kind = QB_STEP_ROUTE, .u.route = {.experts = 4, .top_k = 5, .scale = 1}}, "5 of 4"},
        {{.kind = QB_STEP_ROUTE, .u.route = {.experts = 4, .top_k = 2}}, "scale"},
        {{.kind = QB_STEP_ROUTE, .u.route = {QB_ROUTER_SPARSEMIXER, 4, 3, false, 1, 0, 0, 0}}, "sparsemixer"},
        {{.kind = QB_STEP_ROUTE,
          .u.route = {.experts = 8, .top_k = 3, .scale = 1, .groups = 4, .keep_groups = 1}},
         "kept groups"},
        {{.kind = QB_STEP_XIELU, .vector = -1}, "four numbers"},
        {{.kind = QB_STEP_TEMPERATURE, .u.temperature = {1, 0, 0}}, "floor scale"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(cpu->check_step(&wrong[i].step), QB_ERR_UNSUPPORTED, wrong[i].says);
    for (int k = 0; k < QB_STEP_COUNT; k++) {
        assert_string_not_equal(qb_step_name((qb_step_kind)k), "unknown");
        for (int i = 0; i < k; i++)
            assert_string_not_equal(qb_step_name((qb_step_kind)k), qb_step_name((qb_step_kind)i));
    }
    for (int k = 0; k < QB_ACTIVATION_COUNT; k++)
        for (int i = 0; i < k; i++)
            assert_string_not_equal(qb_activation_name((qb_activation)k),
                                    qb_activation_name((qb_activation)i));
    assert_string_equal(qb_step_name(QB_STEP_COUNT), "unknown");
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route__weights_are_the_references),
        cmocka_unit_test(test_route__rows_are_sorted),
        cmocka_unit_test(test_route__ties_and_biases),
        cmocka_unit_test(test_route__refuses_what_is_not_finite_or_does_not_fit),
        cmocka_unit_test(test_route__rows_go_to_experts_and_back),
        cmocka_unit_test(test_route__steps_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
