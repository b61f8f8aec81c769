#include "quant/store.h"

#include "base/memory.h"
#include "model/topology.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { QUEUE_BYTES = 256 << 20, QUEUE_JOBS = 64, MOST_PACKERS = 4 };

typedef struct {
    char module[QB_NAME_BYTES]; /* "": a save */
    qb_qweight q;
    qb_json *state;
} store_job;

struct qb_store {
    qb_writer *writer;
    const qb_layout *layout;
    bool behind;
    qb_threads *packers; /* the thread's own; NULL: it packs alone */
    pthread_t thread;
    pthread_mutex_t lock; /* what follows */
    pthread_cond_t changed;
    store_job jobs[QUEUE_JOBS]; /* a ring */
    size_t first, n;
    int64_t waiting_bytes; /* codes of all jobs, of the one in work too */
    bool working, stop;
    qb_status failed;
    char error[1024];
};

static qb_status run_job(const qb_store *s, store_job *job) {
    if (!job->module[0]) return qb_writer_save(s->writer, job->state);
    qb_status st = s->layout->put(s->writer, job->module, &job->q);
    qb_qweight_free(&job->q);
    return st;
}

static void drop_job(store_job *job) {
    qb_qweight_free(&job->q);
    qb_json_free(job->state);
}

static int64_t job_bytes(const store_job *job) {
    return job->q.rows * job->q.cols;
}

/* Called with the lock held, which it gives up while it works. */
static void work_one(qb_store *s) {
    store_job job = s->jobs[s->first];
    int64_t bytes = job_bytes(&job);
    s->first = (s->first + 1) % QUEUE_JOBS;
    s->n--;
    s->working = true;
    pthread_mutex_unlock(&s->lock);
    qb_status st = run_job(s, &job);
    pthread_mutex_lock(&s->lock);
    s->working = false;
    s->waiting_bytes -= bytes;
    if (st != QB_OK && s->failed == QB_OK) {
        s->failed = st;
        snprintf(s->error, sizeof s->error, "%s", qb_error_text());
    }
}

static void *work(void *pointer) {
    qb_store *s = pointer;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->n && !s->stop) pthread_cond_wait(&s->changed, &s->lock);
        if (s->stop) break;
        if (s->failed == QB_OK) {
            work_one(s);
        } else { /* nothing that follows what failed may reach the files */
            s->waiting_bytes -= job_bytes(&s->jobs[s->first]);
            drop_job(&s->jobs[s->first]);
            s->first = (s->first + 1) % QUEUE_JOBS;
            s->n--;
        }
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static qb_status start_thread(qb_store *s, int threads) {
    int packers = threads / 4 < MOST_PACKERS ? threads / 4 : MOST_PACKERS;
    if (packers > 1) {
        qb_status st = qb_threads_create(packers, &s->packers);
        if (st != QB_OK) return st;
    }
    int rc = pthread_create(&s->thread, NULL, work, s);
    if (rc != 0) return qb_fail(QB_ERR_MEMORY, "cannot start the thread that writes: %s", strerror(rc));
    s->behind = true;
    return QB_OK;
}

qb_status qb_store_open(qb_writer *w, const qb_layout *layout, qb_device *dev, qb_store **out) {
    qb_store *s;
    *out = NULL;
    qb_status st = qb_alloc_zero(1, sizeof *s, &s);
    if (st != QB_OK) return st;
    s->writer = w;
    s->layout = layout;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (dev->backend->separate_memory) st = start_thread(s, qb_threads_count(dev->threads));
    qb_writer_use_threads(w, s->behind ? s->packers : dev->threads);
    *out = s;
    if (st == QB_OK) return st;
    qb_store_close(s);
    *out = NULL;
    return st;
}

static qb_status told(const qb_store *s) {
    return s->failed == QB_OK ? QB_OK : qb_fail(s->failed, "%s", s->error);
}

/* Takes the job over. One job always finds room, whatever its size. */
static qb_status give(qb_store *s, store_job *job) {
    if (!s->behind) return run_job(s, job);
    int64_t bytes = job_bytes(job);
    pthread_mutex_lock(&s->lock);
    while (s->failed == QB_OK &&
           (s->n == QUEUE_JOBS || (s->waiting_bytes > 0 && s->waiting_bytes + bytes > QUEUE_BYTES)))
        pthread_cond_wait(&s->changed, &s->lock);
    qb_status st = told(s);
    if (st == QB_OK) {
        s->jobs[(s->first + s->n++) % QUEUE_JOBS] = *job;
        s->waiting_bytes += bytes;
        pthread_cond_broadcast(&s->changed);
    } else {
        drop_job(job);
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

qb_status qb_store_put(qb_store *s, const char *module, qb_qweight *q) {
    store_job job = {.q = *q};
    *q = (qb_qweight){0};
    int n = snprintf(job.module, sizeof job.module, "%s", module);
    if (n < 1 || (size_t)n >= sizeof job.module) {
        drop_job(&job);
        return qb_fail(QB_ERR_FORMAT, "module name %.60s... is too long", module);
    }
    return give(s, &job);
}

qb_status qb_store_save(qb_store *s, qb_json *state) {
    store_job job = {.state = state};
    return give(s, &job);
}

qb_status qb_store_drain(qb_store *s) {
    if (!s->behind) return QB_OK;
    pthread_mutex_lock(&s->lock);
    while (s->n || s->working) pthread_cond_wait(&s->changed, &s->lock);
    qb_status st = told(s);
    pthread_mutex_unlock(&s->lock);
    return st;
}

void qb_store_close(qb_store *s) {
    if (!s) return;
    if (s->behind) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
        for (; s->n; s->n--, s->first = (s->first + 1) % QUEUE_JOBS) drop_job(&s->jobs[s->first]);
    }
    qb_writer_use_threads(s->writer, NULL);
    qb_threads_free(s->packers);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    qb_free(s);
}
