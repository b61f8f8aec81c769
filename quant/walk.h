/* Where a quantizer stands in a block's list of steps. Linears that read the same activation are one site and
   share its statistics (the experts of a mixture one site each); sites whose inputs stand at the same place
   are one stage. Stages follow each other as their first linears do, which is the paper's true-sequential
   order. */
#pragma once

#include "model/topology.h"

typedef struct qb_site {
    int64_t first, n; /* of qb_walk.linears: the list's linears that read it */
    int8_t slot;
    int16_t expert; /* -1: all rows of the activation */
    int64_t cols;
} qb_site;

typedef struct qb_stage {
    int64_t cut; /* before this step the inputs stand */
    /* Passes may begin at `resume`, which lies behind all but cheap steps, with the residual stream, the
       slots `kept` and the routing, if that is live, as they were there. */
    int64_t resume;
    uint64_t kept;       /* as bits; 0: the residual stream is enough */
    bool routing;        /* lives there: then it is kept too */
    bool possible;       /* a place to begin exists: nothing is in the cache that a later step reads */
    int64_t kept_floats; /* a token */
    double work;         /* multiply-adds a token that beginning there saves */
    int64_t first_site, n_sites;
    bool stored; /* qb_walk_store's choice */
    int buffer;  /* which of two buffers holds what is kept */
} qb_stage;

typedef struct qb_walk {
    qb_stage *stages;
    qb_site *sites;
    int16_t *linears;
    size_t n_stages, n_sites, n_linears, stages_capacity, sites_capacity, linears_capacity;
    int64_t buffer_floats[2]; /* a token, for what is stored */
} qb_walk;

qb_status qb_walk_make(const qb_topology *t, const qb_list *l, qb_walk *out) QB_NODISCARD;
void qb_walk_free(qb_walk *w); /* takes a cleared one */
/* Chooses which stages' states are kept between passes, the most work saved for its memory first, so that
   both buffers together take at most `floats` a token. */
void qb_walk_store(qb_walk *w, int64_t floats);
