/* Memory nodes as fake trees of the system's files tell of them, and how threads are divided among them. */
#include "tests/support.h"

#include "base/numa.h"

/* ---- trees ---- */

typedef struct {
    const char *path, *text;
} entry;

static char *tree_make(const entry *files) {
    char *root = scratch_make();
    for (; files->path; files++) {
        char *path = qb_path_join(root, files->path), *dir = qb_path_dir(path);
        assert_ok(qb_make_dirs(dir));
        assert_ok(qb_file_write_atomic(path, files->text, strlen(files->text)));
        qb_free(dir);
        qb_free(path);
    }
    return root;
}

#define NODE "sys/devices/system/node/"
#define END                                                                                                  \
    { NULL, NULL }

static qb_cpus range(int from, int to) {
    qb_cpus c = {0};
    for (int i = from; i <= to; i++) c.word[i / 64] |= (uint64_t)1 << (i % 64);
    return c;
}

/* "0: 0-3, 1: 4-7" */
static void describe(const qb_nodes *n, qb_str *out) {
    for (int i = 0; i < n->n; i++) {
        qb_str_printf(out, i ? ", %d: " : "%d: ", n->node[i].id);
        qb_cpus_put(&n->node[i].cpus, out);
    }
}

static void check_tree(const entry *files, qb_cpus usable, const char *expected) {
    char *root = tree_make(files);
    qb_nodes nodes;
    qb_str text = {0};
    assert_ok(qb_nodes_read(root, &usable, &nodes));
    describe(&nodes, &text);
    assert_string_equal(qb_str_get(&text), expected);
    qb_str_free(&text);
    scratch_remove(root);
}

static void test_numa__reads_what_the_system_tells(void **state) {
    (void)state;
    const entry none[] = {{"proc/self/status", "Mems_allowed_list:\t0\n"}, END};
    check_tree(none, range(0, 2), "0: 0-2");
    /* One node: nothing else is asked. */
    const entry one[] = {{NODE "online", "0\n"}, END};
    check_tree(one, range(1, 1), "0: 1");
    const entry two[] = {{NODE "online", "0-1\n"},
                         {NODE "has_memory", "0-1\n"},
                         {NODE "node0/cpulist", "0-3,8-11\n"},
                         {NODE "node1/cpulist", "4-7,12-15\n"},
                         {"proc/self/status", "Name:\tbench\nMems_allowed_list:\t0-1\nThreads:\t1\n"},
                         END};
    check_tree(two, range(0, 15), "0: 0-3,8-11, 1: 4-7,12-15");
    /* An affinity mask, or a cgroup's cpuset, which shows in it. */
    check_tree(two, range(2, 5), "0: 2-3, 1: 4-5");
    check_tree(two, range(12, 13), "1: 12-13");
    /* Numbers with holes; processors beyond what is looked at. */
    const entry holes[] = {{NODE "online", "0,2\n"},
                           {NODE "node0/cpulist", "0,2,1022-1030\n"},
                           {NODE "node2/cpulist", "5000-99999999\n"},
                           END};
    check_tree(holes, range(0, 1023), "0: 0,2,1022-1023");
}

static void test_numa__nodes_that_lack_something(void **state) {
    (void)state;
    /* Memory without processors, as CXL has it. */
    const entry memory_alone[] = {{NODE "online", "0-2\n"},        {NODE "has_memory", "0-2\n"},
                                  {NODE "node0/cpulist", "0-1\n"}, {NODE "node1/cpulist", "2-3\n"},
                                  {NODE "node2/cpulist", "\n"},    END};
    check_tree(memory_alone, range(0, 3), "0: 0-1, 1: 2-3");
    /* Processors without memory: the nearest node's. */
    const entry no_memory[] = {{NODE "online", "0-2\n"},
                               {NODE "has_memory", "0,2\n"},
                               {NODE "node0/cpulist", "0-1\n"},
                               {NODE "node1/cpulist", "2-3\n"},
                               {NODE "node1/distance", "32 10 12\n"},
                               {NODE "node2/cpulist", "4-5\n"},
                               END};
    check_tree(no_memory, range(0, 5), "0: 0-1, 2: 2-5");
    /* Memory that this process may not use. */
    const entry forbidden[] = {{NODE "online", "0-1\n"},
                               {NODE "has_memory", "0-1\n"},
                               {NODE "node0/cpulist", "0-1\n"},
                               {NODE "node1/cpulist", "2-3\n"},
                               {NODE "node0/distance", "10 21\n"},
                               {NODE "node1/distance", "21 10\n"},
                               {"proc/self/status", "Mems_allowed_list:\t1\n"},
                               END};
    check_tree(forbidden, range(0, 3), "1: 0-3");
}

static void check_refused(const entry *files, qb_status status, const char *needle) {
    char *root = tree_make(files);
    qb_cpus usable = range(0, 3);
    qb_nodes nodes;
    assert_fails(qb_nodes_read(root, &usable, &nodes), status, needle);
    assert_non_null(strstr(qb_error_text(), "try --numa off"));
    assert_null(strchr(qb_error_text(), '\n'));
    scratch_remove(root);
}

static void test_numa__malformed_files_are_named(void **state) {
    (void)state;
    static const char *const bad[] = {"0-\n",          "1-0\n", "0,\n",
                                      "0-1,x\n",       "a\n",   "-1\n",
                                      "0--1\n",        "0 1\n", "99999999999999999999999\n",
                                      "0-1;\x1b[31m\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const entry online[] = {{NODE "online", bad[i]}, END};
        check_refused(online, QB_ERR_FORMAT, "node/online: expected a list such as 0-3,8-11, found \"");
        assert_null(strchr(qb_error_text(), '\x1b'));
        const entry cpus[] = {
            {NODE "online", "0-1\n"}, {NODE "node0/cpulist", "0-1\n"}, {NODE "node1/cpulist", bad[i]}, END};
        check_refused(cpus, QB_ERR_FORMAT, "node1/cpulist: expected a list");
    }
    const entry missing[] = {{NODE "online", "0-1\n"}, {NODE "node0/cpulist", "0-3\n"}, END};
    check_refused(missing, QB_ERR_FORMAT, "node1/cpulist is missing, although the node is online");
    const entry nobody[] = {
        {NODE "online", "0-1\n"}, {NODE "node0/cpulist", "8-9\n"}, {NODE "node1/cpulist", "10\n"}, END};
    check_refused(nobody, QB_ERR_FORMAT, "no node has a processor that this process may use");
    const entry no_memory[] = {{NODE "online", "0-1\n"}, {NODE "has_memory", "\n"}, END};
    check_refused(no_memory, QB_ERR_FORMAT, "no node has memory for this process");
    const entry distance[] = {{NODE "online", "0-1\n"},        {NODE "has_memory", "0\n"},
                              {NODE "node0/cpulist", "0\n"},   {NODE "node1/cpulist", "1\n"},
                              {NODE "node1/distance", "21\n"}, END};
    check_refused(distance, QB_ERR_FORMAT, "node1/distance: expected a distance for each node, found \"21\"");
    const entry many[] = {{NODE "online", "0,64\n"}, END};
    check_refused(many, QB_ERR_UNSUPPORTED, "node 64; nodes below 64 are supported");
    const entry folder[] = {{NODE "online/x", ""}, END};
    check_refused(folder, QB_ERR_IO, "node/online");
}

/* Of this machine whatever it is: each processor that may be used is of one node. */
static void test_numa__this_machine(void **state) {
    (void)state;
    qb_nodes nodes;
    qb_cpus seen = {0};
    assert_ok(qb_nodes_read("", qb_cpus_allowed(), &nodes));
    assert_true(nodes.n > 0);
    for (int i = 0; i < nodes.n; i++)
        for (int w = 0; w < QB_CPUS_MAX / 64; w++) {
            assert_true((seen.word[w] & nodes.node[i].cpus.word[w]) == 0);
            seen.word[w] |= nodes.node[i].cpus.word[w];
        }
    assert_memory_equal(&seen, qb_cpus_allowed(), sizeof seen);
}

/* ---- what is asked for ---- */

static void test_numa__words(void **state) {
    (void)state;
    qb_numa numa;
    assert_ok(qb_numa_parse("off", &numa));
    assert_int_equal(numa.mode, QB_NUMA_OFF);
    assert_ok(qb_numa_parse("auto", &numa));
    assert_int_equal(numa.mode, QB_NUMA_AUTO);
    assert_ok(qb_numa_parse("node:13", &numa));
    assert_int_equal(numa.mode, QB_NUMA_NODE);
    assert_int_equal(numa.node, 13);
    static const char *const bad[] = {
        "", "on", "node", "node:", "node:-1", "node:x", "node:1x", "node:64", "node:99999999999999999999",
        "0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(qb_numa_parse(bad[i], &numa), QB_ERR_USAGE, "expected auto, off or node:N");
}

/* "0: 2, 1: 1" threads */
static void check_division(const qb_nodes *nodes, int threads, const char *expected) {
    qb_places p;
    qb_str text = {0};
    assert_ok(qb_places_make((qb_numa){QB_NUMA_AUTO, 0}, nodes, threads, &p));
    for (int i = 0; i < p.n_nodes; i++)
        qb_str_printf(&text, i ? ", %d: %d" : "%d: %d", p.node[i].id, p.first[i + 1] - p.first[i]);
    assert_string_equal(qb_str_get(&text), expected);
    if (p.n_nodes) assert_int_equal(p.first[p.n_nodes], p.threads);
    if (threads) assert_int_equal(p.threads, threads);
    qb_str_free(&text);
}

static void test_numa__threads_in_proportion(void **state) {
    (void)state;
    const qb_nodes even = {2, {{0, range(0, 31)}, {1, range(32, 63)}}};
    check_division(&even, 0, "0: 32, 1: 32");
    check_division(&even, 64, "0: 32, 1: 32");
    check_division(&even, 8, "0: 4, 1: 4");
    check_division(&even, 3, "0: 2, 1: 1");
    check_division(&even, 2, "0: 1, 1: 1");
    check_division(&even, 1, ""); /* wherever the system likes */
    check_division(&even, 100, "0: 50, 1: 50");
    const qb_nodes uneven = {3, {{0, range(0, 5)}, {2, range(6, 6)}, {5, range(7, 11)}}};
    check_division(&uneven, 0, "0: 6, 2: 1, 5: 5");
    check_division(&uneven, 4, "0: 2, 5: 2");
    const qb_nodes one = {1, {{0, range(0, 31)}}};
    check_division(&one, 0, "");
    check_division(&one, 8, "");
}

static void test_numa__one_node_alone(void **state) {
    (void)state;
    const qb_nodes two = {2, {{0, range(0, 3)}, {4, range(4, 5)}}};
    qb_places p;
    assert_ok(qb_places_make((qb_numa){QB_NUMA_NODE, 4}, &two, 0, &p));
    assert_int_equal(p.n_nodes, 1);
    assert_int_equal(p.threads, 2);
    assert_int_equal(p.first[1], 2);
    assert_int_equal(p.node[0].id, 4);
    assert_ok(qb_places_make((qb_numa){QB_NUMA_NODE, 0}, &two, 9, &p));
    assert_int_equal(p.threads, 9);
    assert_fails(qb_places_make((qb_numa){QB_NUMA_NODE, 1}, &two, 0, &p), QB_ERR_USAGE,
                 "--numa node:1: this process may use processors and memory of node 0, 4 only");
    assert_ok(qb_places_make((qb_numa){QB_NUMA_OFF, 0}, &two, 0, &p));
    assert_int_equal(p.n_nodes, 0);
    assert_int_equal(p.threads, qb_cpus_count(qb_cpus_allowed()));
}

/* Off looks at no file. */
static void test_numa__off_asks_nothing(void **state) {
    (void)state;
    const entry bad[] = {{NODE "online", "?\n"}, END};
    char *root = tree_make(bad);
    qb_places p;
    setenv("BENCH_NUMA_ROOT", root, 1);
    assert_ok(qb_places_here((qb_numa){QB_NUMA_OFF, 0}, 3, &p));
    assert_int_equal(p.threads, 3);
    assert_fails(qb_places_here((qb_numa){QB_NUMA_AUTO, 0}, 3, &p), QB_ERR_FORMAT, "node/online");
    unsetenv("BENCH_NUMA_ROOT");
    scratch_remove(root);
}

static void test_numa__threads_stay(void **state) {
    (void)state;
    qb_cpus one = {0}, before, after;
    const qb_cpus *all = qb_cpus_allowed();
    for (int w = 0; w < QB_CPUS_MAX / 64 && !qb_cpus_count(&one); w++)
        one.word[w] = all->word[w] & -all->word[w]; /* the first */
    assert_ok(qb_cpus_keep_to(&one, &before));
    assert_memory_equal(&before, all, sizeof before);
    assert_ok(qb_cpus_keep_to(&before, &after));
    assert_memory_equal(&after, &one, sizeof after);
    const qb_cpus nowhere = range(1023, 1023);
    assert_fails(qb_cpus_keep_to(&nowhere, NULL), QB_ERR_UNSUPPORTED,
                 "does not keep a thread on the processors 1023: Invalid argument; try --numa off");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numa__reads_what_the_system_tells),
        cmocka_unit_test(test_numa__nodes_that_lack_something),
        cmocka_unit_test(test_numa__malformed_files_are_named),
        cmocka_unit_test(test_numa__this_machine),
        cmocka_unit_test(test_numa__words),
        cmocka_unit_test(test_numa__threads_in_proportion),
        cmocka_unit_test(test_numa__one_node_alone),
        cmocka_unit_test(test_numa__off_asks_nothing),
        cmocka_unit_test(test_numa__threads_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
