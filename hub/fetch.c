#include "hub/fetch.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "hub/address.h"
#include "hub/ask.h"
#include "hub/cache.h"
#include "hub/download.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

enum { USUAL_JOBS = 4, MOST_JOBS = 32, PAGE_MAX_BYTES = 64 << 20, PAGES_MAX = 300 };

void qb_fetched_free(qb_fetched *f) {
    qb_free(f->dir);
    *f = (qb_fetched){0};
}

static int64_t second_of(const qb_fetch_options *o) {
    return o->second_ms > 0 ? o->second_ms : 1000;
}

static bool stopped_plain(void *ctx) {
    const qb_fetch_options *o = ctx;
    return o->stopped && o->stopped();
}

/* An asker of the calling thread; its http is to be closed. */
static qb_status begin_asking(const qb_hub *hub, const qb_hub_repo *repo, const qb_fetch_options *o,
                              qb_asker *out) {
    *out = (qb_asker){.hub = hub, .repo = repo, .second_ms = second_of(o), .stopped = stopped_plain};
    out->ctx = (void *)(uintptr_t)o;
    qb_status st = qb_hub_check_repo(repo);
    if (st == QB_OK && hub->offline)
        st = qb_fail(
            QB_ERR_NOT_FOUND,
            "%s: HF_HUB_OFFLINE is set, so nothing is fetched: unset it, or work with what lies in %s",
            repo->id, hub->cache);
    return st == QB_OK ? qb_http_open(&out->http) : st;
}

/* ---- what there is ---- */

static qb_status read_pages(qb_asker *a, char *first, qb_hub_listing *out) {
    char *url = first;
    qb_status st = QB_OK;
    for (int page = 0; url && st == QB_OK; page++) {
        char *text = NULL, *next = NULL;
        size_t n = 0;
        if (page == PAGES_MAX)
            st = qb_fail(QB_ERR_FORMAT, "%s: its list of files has no end", a->repo->id);
        else
            st = qb_ask_text(a, url, PAGE_MAX_BYTES, &text, &n, &next);
        if (st == QB_OK) st = qb_hub_read_tree(text, n, a->repo->id, out);
        qb_free(text);
        qb_free(url);
        url = next;
    }
    qb_free(url);
    return st;
}

qb_status qb_hub_list(const qb_hub *hub, const qb_hub_repo *repo, const qb_fetch_options *o,
                      qb_hub_listing *out) {
    qb_asker a;
    qb_str url = {0};
    char *text = NULL, *next = NULL;
    size_t n;
    qb_status st;
    *out = (qb_hub_listing){0};
    QB_TRY(st, begin_asking(hub, repo, o, &a));
    QB_TRY(st, qb_hub_info_url(hub->endpoint, repo, &url));
    QB_TRY(st, qb_ask_text(&a, url.text, PAGE_MAX_BYTES, &text, &n, &next));
    QB_TRY(st, qb_hub_read_info(text, n, repo->id, out->commit));
    qb_str_free(&url);
    QB_TRY(st, qb_hub_tree_url(hub->endpoint, repo, out->commit, &url));
    char *first = url.text;
    url = (qb_str){0};
    st = read_pages(&a, first, out);
out:
    qb_http_close(a.http);
    qb_str_free(&url);
    qb_free(text);
    qb_free(next);
    if (st != QB_OK) qb_hub_listing_free(out);
    return st;
}

qb_status qb_hub_list_named(const qb_hub *hub, const qb_hub_repo *repo, const char *const *paths, size_t n,
                            const qb_fetch_options *o, qb_hub_listing *out) {
    qb_asker a;
    qb_status st;
    *out = (qb_hub_listing){0};
    QB_TRY(st, begin_asking(hub, repo, o, &a));
    for (size_t i = 0; i < n; i++) {
        /* All of one commit, even if the branch moves meanwhile. */
        const char *revision = out->commit[0] ? out->commit : repo->revision ? repo->revision : "main";
        qb_content c;
        bool no_entry;
        st = qb_ask_content(&a, revision, paths[i], &c, &no_entry);
        if (no_entry && c.commit[0] && qb_hub_set_absent(hub->cache, repo, c.commit, paths[i]) != QB_OK)
            qb_debug("%s", "a missing file is not remembered");
        if (st == QB_OK) memcpy(out->commit, c.commit, sizeof out->commit);
        if (st == QB_OK) st = qb_hub_listing_add(out, paths[i], c.bytes, c.etag);
        qb_content_free(&c);
        if (st != QB_OK) break;
    }
out:
    qb_http_close(a.http);
    if (st != QB_OK) qb_hub_listing_free(out);
    return st;
}

/* ---- several threads, each fetching file after file ---- */

typedef struct {
    const qb_hub *hub;
    const qb_hub_repo *repo;
    const qb_hub_listing *listing;
    const qb_fetch_options *o;
    const size_t *wanted; /* indices into the listing */
    size_t n_wanted;
    _Atomic size_t next, finished;
    _Atomic int64_t bytes;
    _Atomic int running; /* threads */
    _Atomic bool failed;
    pthread_mutex_t mutex; /* of the two below */
    qb_status st;
    char error[1200];
} pool;

static bool stopped_pool(void *ctx) {
    pool *p = ctx;
    return atomic_load(&p->failed) || (p->o->stopped && p->o->stopped());
}

static void fail_pool(pool *p, qb_status st) {
    pthread_mutex_lock(&p->mutex);
    /* The others stop because one failed: the first reason counts. */
    if (p->st == QB_OK) {
        p->st = st;
        snprintf(p->error, sizeof p->error, "%s", qb_error_text());
    }
    pthread_mutex_unlock(&p->mutex);
    atomic_store(&p->failed, true);
}

static qb_status contradiction(const qb_hub_file *f, const qb_content *c) {
    return qb_fail(
        QB_ERR_FORMAT,
        "%s: the hub contradicts itself: its list says %lld bytes and hash %s, its answer for the file %lld "
        "bytes and %s: nothing is fetched",
        f->path, (long long)f->bytes, f->etag, (long long)c->bytes, c->etag);
}

/* A blob that is there already, of the right length. One of another length is no such content. */
static qb_status look_for_blob(const pool *p, const char *etag, int64_t bytes, bool *there) {
    char *blob = qb_hub_blob(p->hub->cache, p->repo, etag);
    int64_t found = -1;
    qb_status st = blob ? qb_path_look(blob, there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && *there) st = qb_file_size(blob, &found);
    if (st == QB_OK && *there && bytes >= 0 && found != bytes) {
        qb_warn("%s has %lld bytes, not the %lld that the hub says: it is fetched anew", blob,
                (long long)found, (long long)bytes);
        *there = false;
    }
    qb_free(blob);
    return st;
}

static qb_status fetch_one(pool *p, qb_asker *a, const qb_hub_file *f) {
    qb_content c;
    bool no_entry, there = false;
    int lock = -1;
    qb_status st = qb_ask_content(a, p->listing->commit, f->path, &c, &no_entry);
    if (st != QB_OK) return st;
    if (c.bytes < 0) c.bytes = f->bytes;
    if ((f->etag[0] && strcmp(f->etag, c.etag) != 0) || (f->bytes >= 0 && f->bytes != c.bytes))
        QB_TRY(st, contradiction(f, &c));
    QB_TRY(st, qb_hub_lock(p->hub->cache, p->repo, c.etag, p->o->stopped, &lock));
    QB_TRY(st, look_for_blob(p, c.etag, c.bytes, &there)); /* who held the lock may have brought it */
    if (!there) QB_TRY(st, qb_download(a, p->listing->commit, f->path, &c, &p->bytes));
    st = qb_hub_link(p->hub, p->repo, p->listing->commit, f->path, c.etag);
out:
    qb_hub_unlock(lock);
    qb_content_free(&c);
    return st;
}

static void *work(void *ctx) {
    pool *p = ctx;
    qb_asker a = {
        .hub = p->hub, .repo = p->repo, .second_ms = second_of(p->o), .stopped = stopped_pool, .ctx = p};
    qb_status st = qb_http_open(&a.http);
    while (st == QB_OK && !stopped_pool(p)) {
        size_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->n_wanted) break;
        st = fetch_one(p, &a, &p->listing->files[p->wanted[i]]);
        if (st == QB_OK) atomic_fetch_add(&p->finished, 1);
    }
    if (st != QB_OK) fail_pool(p, st);
    qb_http_close(a.http);
    atomic_fetch_sub(&p->running, 1);
    return NULL;
}

static qb_status run_pool(pool *p, int64_t total) {
    static const struct timespec moment = {.tv_nsec = 20000000};
    pthread_t threads[MOST_JOBS];
    char size[32];
    int jobs = p->o->jobs > 0 ? p->o->jobs : USUAL_JOBS, n = 0;
    if (jobs > MOST_JOBS) jobs = MOST_JOBS;
    if ((size_t)jobs > p->n_wanted) jobs = (int)p->n_wanted;
    qb_progress progress;
    qb_progress_begin(&progress, (double)total, "fetching %s (%zu files, %s)", p->repo->id, p->n_wanted,
                      qb_format_bytes((double)total, size));
    for (; n < jobs; n++) {
        atomic_fetch_add(&p->running, 1);
        if (pthread_create(&threads[n], NULL, work, p) != 0) {
            atomic_fetch_sub(&p->running, 1);
            break;
        }
    }
    if (n == 0) fail_pool(p, qb_fail(QB_ERR_MEMORY, "cannot start a thread"));
    while (atomic_load(&p->running) > 0) {
        qb_progress_update(&progress, (double)atomic_load(&p->bytes));
        nanosleep(&moment, NULL);
    }
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
    qb_log_end_line();
    if (p->st != QB_OK) return qb_fail(p->st, "%s", p->error);
    if (atomic_load(&p->finished) < p->n_wanted) return qb_fail(QB_ERR_INTERRUPTED, "interrupted");
    qb_progress_end(&progress);
    return QB_OK;
}

/* ---- what is missing, and room for it ---- */

/* A file that is there with the length that the hub says, or of which no length is said, stays. */
static qb_status is_here(const qb_hub *hub, const qb_hub_repo *repo, const char *snapshot, const char *commit,
                         const qb_hub_file *f, bool *here) {
    int64_t bytes = 0;
    qb_status st = qb_hub_has(hub->cache, repo, commit, f->path, here);
    if (st != QB_OK || !*here || f->bytes < 0) return st;
    char *path = qb_path_join(snapshot, f->path);
    st = path ? qb_file_size(path, &bytes) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK && bytes != f->bytes) {
        qb_warn("%s has %lld bytes, not the %lld that the hub says: it is fetched anew", path,
                (long long)bytes, (long long)f->bytes);
        *here = false;
    }
    qb_free(path);
    return st;
}

/* Bytes still to come: a blob or a part of one may be there. */
static int64_t to_come(const qb_hub *hub, const qb_hub_repo *repo, const qb_hub_file *f) {
    struct stat info;
    qb_str part = {0};
    char *blob = f->etag[0] ? qb_hub_blob(hub->cache, repo, f->etag) : NULL;
    int64_t bytes = f->bytes > 0 ? f->bytes : 0;
    qb_str_printf(&part, "%s.incomplete", blob ? blob : "");
    if (blob && stat(blob, &info) == 0 && info.st_size == f->bytes)
        bytes = 0;
    else if (blob && stat(qb_str_get(&part), &info) == 0 && info.st_size <= bytes)
        bytes -= info.st_size;
    qb_str_free(&part);
    qb_free(blob);
    return bytes;
}

static qb_status check_disk(const qb_hub *hub, const qb_hub_repo *repo, const qb_fetch_options *o,
                            int64_t bytes) {
    enum { SPARE = 64 << 20 }; /* for what else the filesystem keeps */
    struct statvfs info;
    char a[32], b[32];
    int64_t available = o->free_bytes;
    if (!available) {
        if (statvfs(hub->cache, &info) != 0)
            return qb_fail(QB_ERR_IO, "cannot ask for the room on the disk of %s: %s", hub->cache,
                           strerror(errno));
        available = (int64_t)info.f_bavail * (int64_t)info.f_frsize;
    }
    if (bytes == 0 || bytes <= available - SPARE) return QB_OK;
    return qb_fail(
        QB_ERR_IO,
        "%s needs %s, and the disk of %s has %s free: make room, or name another place in HF_HUB_CACHE",
        repo->id, qb_format_bytes((double)bytes, a), hub->cache, qb_format_bytes((double)available, b));
}

static char *snapshot_dir(const qb_hub *hub, const qb_hub_repo *repo, const char *commit) {
    qb_str out = {0};
    char *folder = qb_hub_folder(hub->cache, repo);
    qb_str_printf(&out, "%s/snapshots/%s", folder ? folder : "", commit);
    qb_free(folder);
    if (folder && qb_str_status(&out) == QB_OK) return out.text;
    qb_str_free(&out);
    return NULL;
}

qb_status qb_hub_fetch(const qb_hub *hub, const qb_hub_repo *repo, const qb_hub_listing *listing,
                       const qb_fetch_options *o, qb_fetched *out) {
    size_t *wanted = NULL;
    int64_t total = 0;
    pool p = {.hub = hub, .repo = repo, .listing = listing, .o = o, .mutex = PTHREAD_MUTEX_INITIALIZER};
    qb_status st;
    *out = (qb_fetched){0};
    QB_TRY(st, qb_hub_check_repo(repo));
    if (hub->offline)
        QB_TRY(st, qb_fail(QB_ERR_NOT_FOUND, "%s: HF_HUB_OFFLINE is set, so nothing is fetched", repo->id));
    if (!(out->dir = snapshot_dir(hub, repo, listing->commit)))
        QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
    QB_TRY(st, qb_alloc(listing->n + 1, sizeof *wanted, &wanted));
    for (size_t i = 0; i < listing->n; i++) {
        bool here;
        QB_TRY(st, is_here(hub, repo, out->dir, listing->commit, &listing->files[i], &here));
        if (here) continue;
        wanted[p.n_wanted++] = i;
        total += to_come(hub, repo, &listing->files[i]);
    }
    QB_TRY(st, qb_hub_make_folders(hub->cache, repo));
    QB_TRY(st, check_disk(hub, repo, o, total));
    p.wanted = wanted;
    if (p.n_wanted) QB_TRY(st, run_pool(&p, total));
    out->n_new = (int64_t)p.n_wanted;
    out->new_bytes = atomic_load(&p.bytes);
    st = qb_hub_set_ref(hub->cache, repo, listing->commit);
out:
    qb_free(wanted);
    if (st != QB_OK) qb_fetched_free(out);
    return st;
}
