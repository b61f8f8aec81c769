/* This machine's processors told to be two memory nodes, as $BENCH_NUMA_ROOT may tell of them. */
#pragma once

#include "base/numa.h"
#include "base/str.h"
#include "tests/support.h"

/* Nodes 0 and 1, of the first and the second of the processors in turn, in files below `root`; `online` is
   that file's text. Skips the test where there is one processor only. */
static inline void two_nodes_write(const char *root, const char *online) {
    const char *const paths[] = {"online", "node0/cpulist", "node1/cpulist"};
    qb_str lists[2] = {0};
    const qb_cpus *all = qb_cpus_allowed();
    int seen = 0;
    for (int i = 0; i < QB_CPUS_MAX; i++)
        if (all->word[i / 64] >> (i % 64) & 1) qb_str_printf(&lists[seen++ % 2], ",%d", i);
    if (seen < 2) {
        print_message("skipped: one processor cannot be two nodes\n");
        skip();
    }
    for (int i = 0; i < 3; i++) {
        char path[1024];
        const char *text = i ? qb_str_get(&lists[i - 1]) + 1 : online;
        snprintf(path, sizeof path, "%s/sys/devices/system/node/%s", root, paths[i]);
        char *dir = qb_path_dir(path);
        assert_ok(qb_make_dirs(dir));
        assert_ok(qb_file_write_atomic(path, text, strlen(text)));
        qb_free(dir);
    }
    qb_str_free(&lists[0]);
    qb_str_free(&lists[1]);
}
