/* Any bytes as a file of torch.save, archive or older form, and as a bare pickle: what is accepted lies
   within the bytes and can be read. */
#include "checkpoint/safetensors.h"
#include "checkpoint/torch/torch_file.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void require(int holds) {
    if (!holds) abort();
}

static void check_entry(qb_torch_file *f, const qb_torch_entry *e, size_t size) {
    const qb_torch_tensor *t = e->tensor;
    uint8_t *out = NULL;
    require(t->bytes >= 0 && (uint64_t)t->bytes <= size && qb_tensor_name_ok(e->name));
    require(t->n_dims >= 0 && t->n_dims <= QB_MAX_DIMS);
    if (qb_alloc((size_t)t->bytes, 1, &out) != QB_OK) return;
    qb_status st = qb_torch_file_read(f, e, out); /* a checksum may be wrong */
    if (st == QB_OK && e->mapped && t->bytes) require(!memcmp(out, e->mapped, (size_t)t->bytes));
    qb_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qb_torch_file *f;
    if (qb_torch_file_open(data, size, "fuzz", &f) == QB_OK)
        for (size_t i = 0; i < qb_torch_file_count(f); i++) check_entry(f, qb_torch_file_at(f, i), size);
    else
        require(strchr(qb_error_text(), '\n') == NULL);
    qb_torch_file_close(f);
    return 0;
}
