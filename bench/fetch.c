#include "bench/fetch.h"

#include "base/log.h"
#include "base/memory.h"
#include "bench/run/child.h"
#include "hub/cache.h"
#include "model/model.h"

#include <string.h>

static qb_fetch_options options_of(const qb_fetch_request *r) {
    return (qb_fetch_options){.jobs = (int)r->jobs, .stopped = qb_interrupted};
}

static qb_json *describe(const qb_hub_repo *repo, const qb_hub_listing *list, const qb_fetched *got) {
    qb_json *j = qb_json_object(), *files = qb_json_array();
    qb_json_put_text(j, "id", repo->id);
    qb_json_put_text(j, "kind", repo->kind == QB_HUB_MODEL ? "model" : "dataset");
    qb_json_put_text(j, "revision", repo->revision ? repo->revision : "main");
    qb_json_put_text(j, "commit", list->commit);
    qb_json_put_text(j, "path", got->dir);
    for (size_t i = 0; i < list->n; i++) {
        qb_json *f = qb_json_object();
        qb_json_put_text(f, "path", list->files[i].path);
        qb_json_put_int(f, "bytes", list->files[i].bytes);
        qb_json_put_text(f, "hash", list->files[i].etag);
        qb_json_push(files, f);
    }
    qb_json_put(j, "files", files);
    qb_json_put_int(j, "bytes", qb_hub_listing_bytes(list));
    qb_json_put_int(j, "fetched_files", got->n_new);
    qb_json_put_int(j, "fetched_bytes", got->new_bytes);
    return j;
}

static qb_status fetch_listing(const qb_hub *hub, const qb_hub_repo *repo, const qb_hub_listing *list,
                               const qb_fetch_request *r, qb_json **report) {
    qb_fetch_options o = options_of(r);
    qb_fetched got = {0};
    char size[32];
    qb_status st = r->dry_run ? QB_OK : qb_hub_fetch(hub, repo, list, &o, &got);
    if (st != QB_OK) return st;
    *report = describe(repo, list, &got);
    if (!r->dry_run && !got.n_new)
        qb_info("%s: all %zu files are in the cache already", repo->id, list->n);
    else if (!r->dry_run)
        qb_info("%s: %lld of %zu files fetched, %s, verified", repo->id, (long long)got.n_new, list->n,
                qb_format_bytes((double)got.new_bytes, size));
    qb_fetched_free(&got);
    return QB_OK;
}

/* Without the hub, what lies in the cache is the answer. */
static qb_status fetch_offline(const qb_hub *hub, const qb_hub_repo *repo, qb_json **report) {
    qb_fetched got = {0};
    qb_hub_listing none = {0};
    qb_status st = qb_hub_check_repo(repo);
    if (st == QB_OK) st = qb_hub_snapshot(hub->cache, repo, &got.dir, none.commit);
    if (st == QB_OK && !got.dir)
        st = qb_fail(
            QB_ERR_NOT_FOUND,
            "%s%s%s is not in the cache %s, and HF_HUB_OFFLINE forbids asking for it: unset that to fetch it",
            repo->id, repo->revision ? " at " : "", repo->revision ? repo->revision : "", hub->cache);
    if (st == QB_OK) {
        qb_info("HF_HUB_OFFLINE is set: %s as it lies in the cache, nothing was asked for", repo->id);
        *report = describe(repo, &none, &got);
    }
    qb_fetched_free(&got);
    return st;
}

qb_status qb_fetch_repo(const qb_hub_repo *repo, const qb_fetch_request *r, qb_json **report) {
    qb_fetch_options o = options_of(r);
    qb_hub hub;
    qb_hub_listing list = {0};
    int64_t skipped;
    char size[32];
    qb_status st = qb_hub_open(&hub);
    *report = NULL;
    if (st != QB_OK) return st;
    if (hub.offline) {
        st = fetch_offline(&hub, repo, report);
        goto out;
    }
    QB_TRY(st, qb_hub_list(&hub, repo, &o, &list));
    size_t all = list.n;
    QB_TRY(st, qb_hub_choose(&list, r->include, repo->id, &skipped));
    if (all > list.n)
        qb_info("%s: %zu files of other formats (%s) are left out", repo->id, all - list.n,
                qb_format_bytes((double)skipped, size));
    st = fetch_listing(&hub, repo, &list, r, report);
out:
    qb_hub_listing_free(&list);
    qb_hub_free(&hub);
    return st;
}

qb_status qb_fetch_model(const char *word, const qb_fetch_request *r, qb_json **report) {
    const qb_known_model *known = qb_known_model_find(word);
    qb_hub_repo repo = {QB_HUB_MODEL, known ? known->hub_id : word, r->revision};
    *report = NULL;
    if (!strcmp(word, "demo"))
        return qb_fail(QB_ERR_USAGE, "demo comes with the program: there is nothing to fetch");
    return qb_fetch_repo(&repo, r, report);
}

qb_status qb_fetch_dataset(const qb_dataset *d, unsigned splits, const qb_fetch_request *r,
                           qb_json **report) {
    qb_hub_repo repo = {QB_HUB_DATASET, d->hub_repo, r->revision ? r->revision : d->hub_revision};
    qb_fetch_options o = options_of(r);
    const char *paths[2];
    size_t n = 0;
    qb_hub hub;
    qb_hub_listing list = {0};
    *report = NULL;
    if (d->built_in)
        return qb_fail(QB_ERR_USAGE, "%s comes with the program: there is nothing to fetch", d->name);
    if (!d->hub_repo)
        return qb_fail(QB_ERR_USAGE, "dataset %s is not at the hub: %s", d->name, d->how_to_get);
    if (splits & QB_SPLIT_EVALUATION) paths[n++] = d->hub_evaluation;
    if (splits & QB_SPLIT_CALIBRATION) paths[n++] = d->hub_calibration;
    qb_status st = qb_hub_open(&hub);
    if (st != QB_OK) return st;
    if (hub.offline) {
        st = fetch_offline(&hub, &repo, report);
        goto out;
    }
    QB_TRY(st, qb_hub_list_named(&hub, &repo, paths, n, &o, &list));
    st = fetch_listing(&hub, &repo, &list, r, report);
out:
    qb_hub_listing_free(&list);
    qb_hub_free(&hub);
    return st;
}
