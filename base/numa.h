/* Memory nodes: on machines of several sockets (or parts of one) a processor reads the memory of its own node
   faster than another's. Which processors are of which node is read from Linux' own files; threads are then
   kept on a node, and memory comes to lie where it is first written. That takes no memory policy, and so
   neither libnuma, which cannot be shown another machine's files, nor rights that containers lack. */
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "base/str.h"

#include <stdint.h>

enum { QB_CPUS_MAX = 1024, QB_NODES_MAX = 64 };

/* A set of processors by the system's numbers; those from QB_CPUS_MAX on are not seen. */
typedef struct qb_cpus {
    uint64_t word[QB_CPUS_MAX / 64];
} qb_cpus;
int qb_cpus_count(const qb_cpus *c);
/* "0-3,8-11" */
void qb_cpus_put(const qb_cpus *c, qb_str *out);
/* Those that this process may use, as it was at the first call: threads of it may be kept on fewer since. */
const qb_cpus *qb_cpus_allowed(void);
/* Keeps the calling thread on them. `before`, unless NULL, gets what it had. */
qb_status qb_cpus_keep_to(const qb_cpus *c, qb_cpus *before) QB_NODISCARD;

typedef struct qb_node {
    int id;
    qb_cpus cpus; /* never none */
} qb_node;

/* Nodes with processors and memory that this process may use, ascending. Processors of a node without such
   memory count for the nearest that has some. */
typedef struct qb_nodes {
    int n;
    qb_node node[QB_NODES_MAX];
} qb_nodes;
/* Reads ROOT/sys/devices/system/node and ROOT/proc/self/status; root "" is this machine, and NULL is
   $BENCH_NUMA_ROOT or this machine. A system that knows no nodes has one, 0. QB_ERR_IO and QB_ERR_FORMAT name
   the file. */
qb_status qb_nodes_read(const char *root, const qb_cpus *allowed, qb_nodes *out) QB_NODISCARD;

/* What is asked for. */
typedef enum { QB_NUMA_OFF, QB_NUMA_AUTO, QB_NUMA_NODE } qb_numa_mode;
typedef struct qb_numa {
    qb_numa_mode mode;
    int node; /* QB_NUMA_NODE */
} qb_numa;
/* "off", "auto" or "node:N"; QB_ERR_USAGE for anything else. */
qb_status qb_numa_parse(const char *text, qb_numa *out) QB_NODISCARD;

/* Where the threads of a pool run. */
typedef struct qb_places {
    int n_nodes;                 /* 0: wherever the system likes */
    int machine_nodes;           /* there are for this process; 0: not looked at */
    int threads;                 /* of all nodes */
    int first[QB_NODES_MAX + 1]; /* thread that a node's begin with */
    qb_node node[QB_NODES_MAX];
} qb_places;
/* threads 0: one for each processor. Off, and auto where no two nodes would get threads: wherever the system
   likes. Auto: threads in proportion to the nodes' processors. */
qb_status qb_places_make(qb_numa numa, const qb_nodes *nodes, int threads, qb_places *out) QB_NODISCARD;
/* The same with what qb_nodes_read(NULL) finds, which is not looked at when off. */
qb_status qb_places_here(qb_numa numa, int threads, qb_places *out) QB_NODISCARD;
/* Whether threads are kept on nodes of several, so that it matters on which one memory lies. */
bool qb_places_matter(const qb_places *places);
/* On a machine of several nodes: "numa": what was asked for, and where threads are kept somewhere "nodes":
   [{"node", "processors", "threads", "read_bytes_per_s"}], the last where read[node's place in `places`] is
   above 0; read may be NULL. */
void qb_places_describe(qb_numa numa, const qb_places *places, const double *read, qb_json *to);
