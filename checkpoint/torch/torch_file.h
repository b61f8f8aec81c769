/* Files of torch.save: the zip archive of PyTorch 1.6 and later, and the form before it. Private to
   checkpoint/. Source: torch/serialization.py. */
#pragma once

#include "checkpoint/torch/torch_objects.h"

typedef struct qb_torch_file qb_torch_file;

typedef struct qb_torch_entry {
    const char *name;
    const qb_torch_tensor *tensor;
    const void *mapped; /* row-major bytes within the file's own; NULL: only qb_torch_file_read has them */
    int64_t member;     /* archive: which member holds the storage; older form: where its bytes begin */
} qb_torch_entry;

/* Reads the dictionary of a whole file in memory, which must outlive the result, and lists its tensors. Every
   storage is there in full and uncompressed, every tensor lies within its storage. A dictionary that holds
   one named "state_dict" or "model" in place of tensors stands for that one. `file` heads errors. */
qb_status qb_torch_file_open(const uint8_t *bytes, size_t size, const char *file,
                             qb_torch_file **out) QB_NODISCARD;
void qb_torch_file_close(qb_torch_file *f); /* takes NULL */
size_t qb_torch_file_count(const qb_torch_file *f);
const qb_torch_entry *qb_torch_file_at(const qb_torch_file *f, size_t index);
/* The tensor's elements in row-major order to out[tensor->bytes]. Thread-safe. */
qb_status qb_torch_file_read(qb_torch_file *f, const qb_torch_entry *e, void *out) QB_NODISCARD;
