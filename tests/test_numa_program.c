/* The program on a machine whose two processors are told to be two memory nodes: the same bits wherever its
   threads run, what was chosen is recorded, and what cannot be is said. */
#include "tests/numa_tree.h"
#include "tests/program.h"

#include "results/results.h"

static const char *two_nodes(const char *online) {
    const char *root = scratch_path("tree");
    two_nodes_write(root, online);
    return root;
}

static double first_value(const qb_json *j) {
    const qb_json *value = qb_json_get(j, "value");
    if (value) return qb_json_number(value);
    for (const qb_json *e = qb_json_first(j); e; e = qb_json_next(e)) {
        double found = qb_json_first(e) ? first_value(e) : 0;
        if (found > 0) return found;
    }
    return 0;
}

/* Perplexity, and tokens one by one. */
static void check_same_bits(const char *model, const char *text) {
    static const char *const modes[] = {"off", "auto", "node:0", "node:1"};
    double first = 0;
    char *said = NULL;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        outcome o = BENCH("eval", model, "--dataset", text, "--protocol", "gptq-64", "--numa", modes[i],
                          "--threads", "4", "--json", "-q");
        assert_worked(&o);
        qb_json *j = json_of(&o);
        outcome_free(&o);
        double value = first_value(j);
        assert_true(value > 1);
        if (i == 0) first = value;
        assert_memory_equal(&value, &first, sizeof value);
        qb_json_free(j);
        o = BENCH("generate", model, "--prompt", "the quick", "--tokens", "40", "--numa", modes[i],
                  "--threads", "4", "-q");
        assert_worked(&o);
        if (i == 0) said = qb_strdup(o.out);
        assert_string_equal(o.out, said);
        outcome_free(&o);
    }
    qb_free(said);
}

static void test_numa_program__the_same_bits_everywhere(void **state) {
    (void)state;
    const char *text = scratch_path("text.txt"), *dir = scratch_path("w4");
    static const char line[] = "the quick brown fox jumps over the lazy dog and runs away\n";
    qb_str body = {0};
    for (int i = 0; i < 40; i++) qb_str_text(&body, line);
    assert_ok(qb_file_write_atomic(text, qb_str_get(&body), body.length));
    qb_str_free(&body);
    setenv("BENCH_NUMA_ROOT", two_nodes("0-1\n"), 1);
    outcome made = BENCH("quantize", "demo", "--method", "rtn", "--bits", "4", "--group-size", "64", "-o",
                         dir, "--numa", "auto", "-q");
    assert_worked(&made);
    outcome_free(&made);
    check_same_bits("demo", text);
    check_same_bits(dir, text);
    unsetenv("BENCH_NUMA_ROOT");
}

static const qb_json *speed_device(const qb_json *doc) {
    return qb_json_first(qb_json_get(qb_json_get(doc, "context"), "devices"));
}

static void check_record(const char *mode, int n_nodes, int first_id) {
    const char *path = scratch_path("run.json");
    (void)!remove(path);
    outcome o = BENCH("run", "--suite", "demo", "--only", "none", "--set", "metrics=perplexity", "--set",
                      "max_windows=1", "--numa", mode, "-o", path, "-q");
    assert_worked(&o);
    outcome_free(&o);
    qb_results r; /* validated */
    assert_ok(qb_results_open(path, &r));
    const qb_json *device = speed_device(r.doc), *node = qb_json_first(qb_json_get(device, "nodes"));
    assert_string_equal(qb_json_string(qb_json_get(device, "numa")), mode);
    for (int i = 0; i < n_nodes; i++, node = qb_json_next(node)) {
        assert_non_null(node);
        assert_int_equal((int)qb_json_number(qb_json_get(node, "node")), first_id + i);
        assert_true(qb_json_number(qb_json_get(node, "threads")) >= 1);
    }
    assert_null(node);
    /* What lies where it is read, and what does not, is said wherever threads are kept on a node. */
    assert_int_equal(qb_json_first(qb_json_get(device, "placed")) != NULL, n_nodes > 0);
    assert_int_equal(qb_json_first(qb_json_get(device, "not_placed")) != NULL, n_nodes > 0);
    qb_results_close(&r);
}

static void test_numa_program__what_was_chosen_is_recorded(void **state) {
    (void)state;
    setenv("BENCH_NUMA_ROOT", two_nodes("0-1\n"), 1);
    check_record("off", 0, 0);
    check_record("auto", 2, 0);
    check_record("node:1", 1, 1);
    unsetenv("BENCH_NUMA_ROOT");
}

static void test_numa_program__doctor_measures_each_node(void **state) {
    (void)state;
    setenv("BENCH_NUMA_ROOT", two_nodes("0-1\n"), 1);
    outcome o = BENCH("doctor", "--json", "-q");
    if (o.code == 1) o.code = 0; /* something else is missing on this machine */
    assert_worked(&o);
    qb_json *j = json_of(&o);
    outcome_free(&o);
    const qb_json *machine = qb_json_get(j, "machine"), *node = qb_json_first(qb_json_get(machine, "nodes"));
    for (int i = 0; i < 2; i++, node = qb_json_next(node))
        assert_true(qb_json_number(qb_json_get(node, "read_bytes_per_s")) > 0);
    /* As before the threads were kept somewhere. */
    assert_int_equal((int)qb_json_number(qb_json_get(machine, "cores")), qb_cpus_count(qb_cpus_allowed()));
    qb_json_free(j);
    o = BENCH("doctor", "-q");
    assert_true(o.code <= 1);
    assert_non_null(strstr(o.out,
                           "\nplaced         packed weights, dense weights of a model that is loaded whole, "
                           "keys and values\n"));
    assert_non_null(strstr(o.out, "\nnot placed     dense weights that are read block by block, "));
    outcome_free(&o);
    unsetenv("BENCH_NUMA_ROOT");
}

static void test_numa_program__refusals(void **state) {
    (void)state;
    assert_refused(BENCH("speed", "demo", "--prefill", "8", "--decode", "1", "--numa", "both"), 2,
                   "--numa both: expected auto, off or node:N");
    setenv("BENCH_NUMA_ROOT", two_nodes("0-1\n"), 1);
    assert_refused(BENCH("speed", "demo", "--prefill", "8", "--decode", "1", "--numa", "node:7"), 2,
                   "--numa node:7: this process may use processors and memory of node 0, 1 only");
    two_nodes("0-1,\n");
    assert_refused(BENCH("speed", "demo", "--prefill", "8", "--decode", "1"), 1,
                   "expected a list such as 0-3,8-11, found \"0-1,\"; try --numa off");
    unsetenv("BENCH_NUMA_ROOT");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numa_program__the_same_bits_everywhere),
        cmocka_unit_test(test_numa_program__what_was_chosen_is_recorded),
        cmocka_unit_test(test_numa_program__doctor_measures_each_node),
        cmocka_unit_test(test_numa_program__refusals),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}
