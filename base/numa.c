#define _GNU_SOURCE
#include "base/numa.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 16384 };

/* ---- sets ---- */

static bool has(const qb_cpus *c, int i) {
    return c->word[i / 64] >> (i % 64) & 1;
}
static void add(qb_cpus *c, int i) {
    c->word[i / 64] |= (uint64_t)1 << (i % 64);
}
static bool has_some(const qb_cpus *c) {
    return qb_cpus_count(c) > 0;
}

int qb_cpus_count(const qb_cpus *c) {
    int n = 0;
    for (int i = 0; i < QB_CPUS_MAX / 64; i++) n += __builtin_popcountll(c->word[i]);
    return n;
}

void qb_cpus_put(const qb_cpus *c, qb_str *out) {
    const char *comma = "";
    for (int i = 0, end; i < QB_CPUS_MAX; i = end + 1) {
        for (end = i; end < QB_CPUS_MAX && has(c, end);) end++;
        if (end == i) continue;
        qb_str_printf(out, end == i + 1 ? "%s%d" : "%s%d-%d", comma, i, end - 1);
        comma = ",";
    }
}

static qb_cpus allowed;
static void ask_allowed(void) {
    cpu_set_t set;
    bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < QB_CPUS_MAX; i++)
        if (known ? CPU_ISSET((size_t)i, &set) : i < n) add(&allowed, i);
    if (!has_some(&allowed)) add(&allowed, 0);
}
const qb_cpus *qb_cpus_allowed(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask_allowed);
    return &allowed;
}

qb_status qb_cpus_keep_to(const qb_cpus *c, qb_cpus *before) {
    cpu_set_t set, old;
    CPU_ZERO(&set);
    for (int i = 0; i < QB_CPUS_MAX; i++)
        if (has(c, i)) CPU_SET((size_t)i, &set);
    if ((!before || sched_getaffinity(0, sizeof old, &old) == 0) &&
        sched_setaffinity(0, sizeof set, &set) == 0) {
        if (before) *before = (qb_cpus){0};
        for (int i = 0; before && i < QB_CPUS_MAX; i++)
            if (CPU_ISSET((size_t)i, &old)) add(before, i);
        return QB_OK;
    }
    int error = errno;
    qb_str list = {0};
    qb_cpus_put(c, &list);
    qb_status st = qb_fail(QB_ERR_UNSUPPORTED,
                           "the system does not keep a thread on the processors %.200s: %s; try --numa off",
                           qb_str_get(&list), strerror(error));
    qb_str_free(&list);
    return st;
}

/* ---- the system's files ---- */

/* The one line of a file, or what is behind `key` in its line. *there: false where the file (a kernel without
   nodes, a sandbox that hides them) or the key is absent. */
static qb_status read_line(const char *root, const char *path, const char *key, char line[LINE_BYTES],
                           bool *there) {
    char whole[4400];
    *there = false;
    if ((size_t)snprintf(whole, sizeof whole, "%s%s", root, path) >= sizeof whole)
        return qb_fail(QB_ERR_USAGE, "the folder BENCH_NUMA_ROOT has too long a name");
    FILE *file = fopen(whole, "re");
    if (!file && (errno == ENOENT || errno == ENOTDIR || errno == EACCES)) return QB_OK;
    while (file && !*there && fgets(line, LINE_BYTES, file))
        *there = !key || !strncmp(line, key, strlen(key));
    qb_status st = QB_OK;
    if (!file || ferror(file))
        st = qb_fail(QB_ERR_IO, "cannot read %s, which tells of memory nodes: %s; try --numa off", whole,
                     strerror(errno));
    else if (*there && key)
        memmove(line, line + strlen(key), strlen(line + strlen(key)) + 1);
    if (file) fclose(file);
    return st;
}

static bool number(const char **at, long *out) {
    char *end;
    if (**at < '0' || **at > '9') return false;
    errno = 0;
    *out = strtol(*at, &end, 10);
    *at = end;
    return errno == 0;
}

/* Adds "0-3,8-11", or nothing, to *out. Numbers from QB_CPUS_MAX on are left out. */
static bool parse_list(const char *text, qb_cpus *out) {
    text += strspn(text, " \t");
    while (*text && *text != '\n') {
        long from, to;
        if (!number(&text, &from)) return false;
        to = from;
        if (*text == '-' && (text++, !number(&text, &to))) return false;
        if (to < from) return false;
        for (long i = from; i <= to && i < QB_CPUS_MAX; i++) add(out, (int)i);
        if (*text == ',' && text[1] >= '0' && text[1] <= '9')
            text++;
        else if (*text && *text != '\n')
            return false;
    }
    return true;
}

static qb_status bad_line(const char *root, const char *path, const char *expected, char *line) {
    line[strcspn(line, "\n")] = 0;
    qb_clean_line(line);
    return qb_fail(QB_ERR_FORMAT, "%s%s: expected %s, found \"%.60s\"; try --numa off", root, path, expected,
                   line);
}

static qb_status read_list(const char *root, const char *path, const char *key, qb_cpus *out, bool *there) {
    char line[LINE_BYTES];
    *out = (qb_cpus){0};
    qb_status st = read_line(root, path, key, line, there);
    if (st != QB_OK || !*there) return st;
    return parse_list(line, out) ? QB_OK : bad_line(root, path, "a list such as 0-3,8-11", line);
}

/* ---- nodes ---- */

typedef struct {
    const char *root;
    qb_cpus online, memory; /* by their numbers; memory: that this process may use */
    qb_nodes *out;
} survey;

static qb_status find_memory(survey *s) {
    qb_cpus here, mine;
    bool there, limited;
    qb_status st;
    QB_TRY(st, read_list(s->root, "/sys/devices/system/node/has_memory", NULL, &here, &there));
    QB_TRY(st, read_list(s->root, "/proc/self/status", "Mems_allowed_list:", &mine, &limited));
    for (int i = 0; i < QB_CPUS_MAX / 64; i++)
        s->memory.word[i] = s->online.word[i] & (there ? here.word[i] : ~(uint64_t)0) &
                            (limited ? mine.word[i] : ~(uint64_t)0);
    if (!has_some(&s->memory))
        st = qb_fail(QB_ERR_FORMAT,
                     "%s/sys/devices/system/node: no node has memory for this process; try --numa off",
                     s->root);
out:
    return st;
}

/* The node with memory that lies nearest to one without: its file tells the distances of all nodes that are
   online, ascending. */
static qb_status nearest(const survey *s, int id, int *out) {
    char path[64], line[LINE_BYTES];
    bool there;
    long least = -1, distance;
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/distance", id);
    qb_status st = read_line(s->root, path, NULL, line, &there);
    if (st != QB_OK) return st;
    const char *at = there ? line : "";
    for (int i = 0; i < QB_CPUS_MAX; i++) {
        if (!has(&s->online, i)) continue;
        at += strspn(at, " ");
        if (!number(&at, &distance)) {
            if (!there) line[0] = 0;
            return bad_line(s->root, path, "a distance for each node", line);
        }
        if (has(&s->memory, i) && (least < 0 || distance < least)) least = distance, *out = i;
    }
    return QB_OK;
}

static qb_status add_node(survey *s, int id, const qb_cpus *usable, qb_cpus cpus_of[QB_NODES_MAX]) {
    char path[64];
    qb_cpus cpus;
    bool there;
    int home = id;
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", id);
    qb_status st = read_list(s->root, path, NULL, &cpus, &there);
    if (st == QB_OK && !there)
        st = qb_fail(QB_ERR_FORMAT, "%s%s is missing, although the node is online; try --numa off", s->root,
                     path);
    if (st != QB_OK) return st;
    for (int i = 0; i < QB_CPUS_MAX / 64; i++) cpus.word[i] &= usable->word[i];
    if (!has_some(&cpus)) return QB_OK;
    if (!has(&s->memory, id) && (st = nearest(s, id, &home)) != QB_OK) return st;
    for (int i = 0; i < QB_CPUS_MAX / 64; i++) cpus_of[home].word[i] |= cpus.word[i];
    return QB_OK;
}

/* QB_NODES_MAX where there is none. */
static int node_from(const qb_cpus *set, int from) {
    while (from < QB_NODES_MAX && !has(set, from)) from++;
    return from;
}

static qb_status read_several(survey *s, const qb_cpus *usable) {
    qb_cpus cpus_of[QB_NODES_MAX] = {0};
    qb_status st = find_memory(s);
    for (int id = 0; st == QB_OK && (id = node_from(&s->online, id)) < QB_NODES_MAX; id++)
        st = add_node(s, id, usable, cpus_of);
    for (int id = 0; st == QB_OK && id < QB_NODES_MAX; id++)
        if (has_some(&cpus_of[id])) s->out->node[s->out->n++] = (qb_node){id, cpus_of[id]};
    if (st == QB_OK && !s->out->n)
        st = qb_fail(
            QB_ERR_FORMAT,
            "%s/sys/devices/system/node: no node has a processor that this process may use; try --numa off",
            s->root);
    return st;
}

qb_status qb_nodes_read(const char *root, const qb_cpus *usable, qb_nodes *out) {
    static const char path[] = "/sys/devices/system/node/online";
    if (!root) root = getenv("BENCH_NUMA_ROOT");
    survey s = {.root = root ? root : "", .out = out};
    bool there;
    out->n = 0;
    qb_status st = read_list(s.root, path, NULL, &s.online, &there);
    if (st != QB_OK) return st;
    int nodes = there ? qb_cpus_count(&s.online) : 0, first = node_from(&s.online, 0), last = 0;
    for (int i = 0; i < QB_CPUS_MAX; i++)
        if (has(&s.online, i)) last = i;
    if (last >= QB_NODES_MAX)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s%s: node %d; nodes below %d are supported; try --numa off",
                       s.root, path, last, QB_NODES_MAX);
    if (nodes > 1) return read_several(&s, usable);
    out->node[out->n++] = (qb_node){nodes ? first : 0, *usable};
    return QB_OK;
}

/* ---- places ---- */

qb_status qb_numa_parse(const char *text, qb_numa *out) {
    static const char head[] = "node:";
    const char *at = text + sizeof head - 1;
    long node = 0;
    *out = (qb_numa){QB_NUMA_OFF, 0};
    if (!strcmp(text, "off")) return QB_OK;
    out->mode = QB_NUMA_AUTO;
    if (!strcmp(text, "auto")) return QB_OK;
    out->mode = QB_NUMA_NODE;
    if (strncmp(text, head, sizeof head - 1) != 0 || !number(&at, &node) || *at || node >= QB_NODES_MAX)
        return qb_fail(QB_ERR_USAGE, "--numa %.40s: expected auto, off or node:N with N below %d", text,
                       QB_NODES_MAX);
    out->node = (int)node;
    return QB_OK;
}

static qb_status no_such_node(int id, const qb_nodes *nodes) {
    qb_str ids = {0};
    for (int i = 0; i < nodes->n; i++) qb_str_printf(&ids, i ? ", %d" : "%d", nodes->node[i].id);
    qb_status st = qb_fail(QB_ERR_USAGE,
                           "--numa node:%d: this process may use processors and memory of node %.200s only",
                           id, qb_str_get(&ids));
    qb_str_free(&ids);
    return st;
}

static qb_status place_on_one(int id, const qb_nodes *nodes, int threads, qb_places *out) {
    for (int i = 0; i < nodes->n; i++) {
        if (nodes->node[i].id != id) continue;
        out->n_nodes = 1;
        out->node[0] = nodes->node[i];
        out->threads = out->first[1] = threads ? threads : qb_cpus_count(&nodes->node[i].cpus);
        return QB_OK;
    }
    return no_such_node(id, nodes);
}

static void place_on_all(const qb_nodes *nodes, int threads, qb_places *out) {
    int64_t all = 0, seen = 0;
    for (int i = 0; i < nodes->n; i++) all += qb_cpus_count(&nodes->node[i].cpus);
    out->threads = threads ? threads : (int)all;
    for (int i = 0; i < nodes->n; i++) {
        seen += qb_cpus_count(&nodes->node[i].cpus);
        int end = (int)((2 * out->threads * seen + all) / (2 * all)); /* rounded */
        if (end == out->first[out->n_nodes]) continue;
        out->node[out->n_nodes++] = nodes->node[i];
        out->first[out->n_nodes] = end;
    }
    if (out->n_nodes == 1) out->n_nodes = 0;
}

qb_status qb_places_make(qb_numa numa, const qb_nodes *nodes, int threads, qb_places *out) {
    out->n_nodes = 0, out->first[0] = 0;
    out->machine_nodes = nodes->n;
    out->threads = threads > 0 ? threads : qb_cpus_count(qb_cpus_allowed());
    if (numa.mode == QB_NUMA_NODE) return place_on_one(numa.node, nodes, threads > 0 ? threads : 0, out);
    if (numa.mode == QB_NUMA_AUTO && nodes->n > 1) place_on_all(nodes, threads > 0 ? threads : 0, out);
    return QB_OK;
}

qb_status qb_places_here(qb_numa numa, int threads, qb_places *out) {
    qb_nodes nodes;
    nodes.n = 0;
    qb_status st = numa.mode == QB_NUMA_OFF ? QB_OK : qb_nodes_read(NULL, qb_cpus_allowed(), &nodes);
    return st == QB_OK ? qb_places_make(numa, &nodes, threads, out) : st;
}

bool qb_places_matter(const qb_places *places) {
    return places->n_nodes > 0 && places->machine_nodes > 1;
}

static bool several_nodes(void) {
    qb_nodes nodes;
    bool known = qb_nodes_read(NULL, qb_cpus_allowed(), &nodes) == QB_OK;
    if (!known) qb_error_clear(); /* who asked for off need not know more */
    return !known || nodes.n > 1;
}

void qb_places_describe(qb_numa numa, const qb_places *places, const double *read, qb_json *to) {
    static const char *const names[] = {
        [QB_NUMA_OFF] = "off", [QB_NUMA_AUTO] = "auto", [QB_NUMA_NODE] = "node"};
    char text[24];
    if (!several_nodes()) return;
    snprintf(text, sizeof text, numa.mode == QB_NUMA_NODE ? "%s:%d" : "%s", names[numa.mode], numa.node);
    qb_json_put_text(to, "numa", text);
    if (!places->n_nodes) return;
    qb_json *nodes = qb_json_array();
    for (int i = 0; i < places->n_nodes; i++) {
        qb_json *node = qb_json_object();
        qb_str list = {0};
        qb_cpus_put(&places->node[i].cpus, &list);
        qb_json_put_int(node, "node", places->node[i].id);
        qb_json_put_text(node, "processors", qb_str_get(&list));
        qb_json_put_int(node, "threads", places->first[i + 1] - places->first[i]);
        if (read && read[i] > 0) qb_json_put_real(node, "read_bytes_per_s", read[i]);
        qb_str_free(&list);
        qb_json_push(nodes, node);
    }
    qb_json_put(to, "nodes", nodes);
}
