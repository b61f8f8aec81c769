/* A reader of Python pickles that holds tensors and runs nothing: the opcodes that torch.save writes build
   plain values, the few globals it names have a fixed meaning (checkpoint/torch/torch_objects.h), and any
   other opcode or global is refused by its name. Private to checkpoint/. Format: CPython's pickletools,
   protocols 0 to 5. */
#pragma once

#include "base/memory.h"

typedef enum {
    QB_PICKLE_NONE,
    QB_PICKLE_BOOL,
    QB_PICKLE_INT,
    QB_PICKLE_REAL,
    QB_PICKLE_TEXT, /* str and bytes */
    QB_PICKLE_TUPLE,
    QB_PICKLE_LIST,
    QB_PICKLE_DICT,
    QB_PICKLE_GLOBAL,
    QB_PICKLE_STORAGE,
    QB_PICKLE_TENSOR,
    QB_PICKLE_OPAQUE, /* allowed, and of no interest (a device, an integer beyond 64 bits) */
} qb_pickle_kind;

typedef struct qb_pickle_value {
    qb_pickle_kind kind;
    union {
        int64_t integer; /* BOOL, INT; GLOBAL: its number in torch_objects */
        double real;
        struct {
            const char *text; /* NUL-terminated */
            size_t length;
        };
        struct {
            struct qb_pickle_value **items; /* DICT: keys and values by turns */
            size_t count, capacity;
        };
        const struct qb_torch_storage *storage;
        const struct qb_torch_tensor *tensor;
    };
} qb_pickle_value;

/* Limits: what a pickle of tensors stays far below. */
enum { QB_PICKLE_MAX_BYTES = 16 << 20, QB_PICKLE_MAX_VALUES = 2 << 20 };

/* Reads one pickle from the start of `bytes`; *used says where it ends. `file` heads errors. Everything is
   allocated from the arena. Lists and dicts may hold themselves: walk them to a bounded depth. */
qb_status qb_pickle_read(const uint8_t *bytes, size_t size, const char *file, qb_arena *arena, size_t *used,
                         const qb_pickle_value **out) QB_NODISCARD;

/* The value of a text key; NULL when absent or when it is no dict. */
const qb_pickle_value *qb_pickle_get(const qb_pickle_value *dict, const char *key);
