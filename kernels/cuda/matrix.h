/* A matrix of the CUDA backend on the host: what qb_matrix.packed points to, for dense matrices too. */
#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/view.h"

typedef struct qb_cuda_matrix {
    qb_cuda_view view;
    void *memory; /* one allocation that holds every array of the view */
    bool pinned;  /* in host memory, read over the bus */
} qb_cuda_matrix;

static inline const qb_cuda_matrix *qb_cuda_matrix_of(const qb_matrix *m) {
    return (const qb_cuda_matrix *)m->packed;
}
static inline const qb_cuda_view *qb_cuda_view_of(const qb_matrix *m) {
    return &qb_cuda_matrix_of(m)->view;
}
