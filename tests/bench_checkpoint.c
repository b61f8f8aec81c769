/* Measures packing and unpacking of every layout that is written; a program, not a test.
   bench_checkpoint [DIR]: GB/s of the float16 weights that the codes stand for, one core, files in DIR
   (/dev/shm) written and read again. */
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/layout.h"
#include "checkpoint/layouts/bitpack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 4096, COLS = 11008, ROUNDS = 5 };

typedef struct {
    const char *name, *layout;
    int bits; /* 0: codebook */
    int64_t group;
    bool symmetric, act_order, double_quant;
} format;

static const format formats[] = {
    {"gptq 2 bits g64", "gptq_v2", 2, 64, false, false, false},
    {"gptq 3 bits g128", "gptq_v2", 3, 128, false, false, false},
    {"gptq 4 bits g128 sym", "gptq", 4, 128, true, false, false},
    {"gptq 4 bits g128", "gptq_v2", 4, 128, false, false, false},
    {"gptq 4 bits g32", "gptq_v2", 4, 32, false, false, false},
    {"gptq 4 bits g128 act-order", "gptq", 4, 128, true, true, false},
    {"gptq 8 bits g128", "gptq_v2", 8, 128, false, false, false},
    {"nf4 b64", "bnb4", 0, 64, false, false, false},
    {"nf4 b64 double", "bnb4", 0, 64, false, false, true},
    {"int8 rows", "bnb8", 8, COLS, true, false, false},
};

static void check(qb_status st) {
    if (st == QB_OK) return;
    fprintf(stderr, "%s: %s\n", qb_status_text(st), qb_error_text());
    exit(1);
}

static uint32_t state = 1;
static uint32_t noise(void) {
    return (state = state * 1664525u + 1013904223u) >> 16;
}

static void fill(const format *f, qb_qweight *q) {
    unsigned mask = f->bits ? (1u << f->bits) - 1 : 15;
    if (f->bits)
        check(qb_qweight_alloc_affine(ROWS, COLS, f->bits, f->group, f->act_order, q));
    else
        check(qb_qweight_alloc_codebook(ROWS, COLS, QB_CODEBOOK_NF4, f->group, f->double_quant, q));
    for (int64_t i = 0; i < (int64_t)ROWS * COLS; i++) q->codes[i] = (uint8_t)(noise() & mask);
    for (int64_t i = 0; f->bits && i < ROWS * q->n_groups; i++) {
        q->scales[i] = 0.0078125f;
        q->zeros[i] = (uint8_t)(f->symmetric ? 1 << (f->bits - 1) : (int)(noise() & mask));
    }
    for (int64_t i = 0; i < q->n_blocks; i++) q->absmax[i] = 1;
    for (int64_t c = 0; q->g_idx && c < COLS; c++) q->g_idx[c] = (int32_t)(c * 37 % COLS / f->group);
    q->symmetric = f->symmetric;
    if (strcmp(f->layout, "bnb8") != 0) return;
    q->int8_rows = true;
    for (int64_t i = 0; i < (int64_t)ROWS * COLS; i++) q->codes[i] |= q->codes[i] == 0; /* -127 to 127 */
    check(qb_alloc(ROWS, sizeof *q->absmax, &q->absmax));
    for (int64_t row = 0; row < ROWS; row++) {
        q->absmax[row] = 1;
        q->scales[row] = 1.0f / 127;
    }
}

/* Of this process: what others do on the core does not count, what the system does for us does. */
static int64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static double gb_per_s(int64_t begun) {
    return 2.0 * ROWS * COLS / (double)(cpu_ns() - begun);
}

static double write_once(const qb_layout *layout, const qb_qweight *q, const char *dir) {
    qb_writer *w;
    qb_json *config = qb_json_object();
    check(qb_writer_create(dir, true, 0, &w));
    check(layout->plan(w, "m", q));
    check(qb_writer_begin(w));
    int64_t begun = cpu_ns();
    check(layout->put(w, "m", q));
    double rate = gb_per_s(begun);
    qb_json_put(config, "quantization_config", layout->config(q, NULL));
    check(qb_writer_put_json(w, "config.json", config));
    check(qb_writer_finish(w));
    qb_json_free(config);
    return rate;
}

static double read_once(const qb_layout *layout, const qb_qweight *q, const char *dir) {
    qb_checkpoint *ck;
    qb_qweight back;
    check(qb_checkpoint_open(dir, &ck));
    int64_t begun = cpu_ns();
    check(layout->read(ck, "m", ROWS, COLS, &back));
    check(qb_qweight_complete(&back, NULL));
    double rate = gb_per_s(begun);
    if (memcmp(back.codes, q->codes, (size_t)ROWS * COLS) != 0) {
        fprintf(stderr, "%s: other codes came back\n", layout->name);
        exit(1);
    }
    qb_qweight_free(&back);
    qb_checkpoint_close(ck);
    return rate;
}

static void measure_bits(int bits, const qb_qweight *q, uint32_t *words, uint8_t *codes) {
    double pack = 0, unpack = 0;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t begun = cpu_ns();
        qb_bits_pack_transposed(NULL, q->codes, ROWS, COLS, bits, words);
        double rate = gb_per_s(begun);
        if (rate > pack) pack = rate;
        begun = cpu_ns();
        for (int64_t r = 0; r < ROWS; r += QB_SOURCE_ROWS)
            qb_bits_unpack_transposed(words, ROWS, COLS, bits, r, QB_SOURCE_ROWS, codes + r * COLS);
        rate = gb_per_s(begun);
        if (rate > unpack) unpack = rate;
    }
    printf("%-28s  pack %6.2f GB/s  unpack %6.2f GB/s\n", "  of that, the codes", pack, unpack);
}

int main(int argc, char **argv) {
    char dir[1024];
    uint32_t *words;
    uint8_t *codes;
    snprintf(dir, sizeof dir, "%s/bench-checkpoint", argc > 1 ? argv[1] : "/dev/shm");
    check(qb_alloc((size_t)ROWS * COLS, 1, &words));
    check(qb_alloc((size_t)ROWS * COLS, 1, &codes));
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        const format *f = &formats[i];
        const qb_layout *layout = qb_layout_find(f->layout);
        qb_qweight q;
        double put = 0, get = 0;
        fill(f, &q);
        for (int round = 0; round < ROUNDS; round++) {
            double rate = write_once(layout, &q, dir);
            if (rate > put) put = rate;
            rate = read_once(layout, &q, dir);
            if (rate > get) get = rate;
        }
        printf("%-28s  write %5.2f GB/s  read %8.2f GB/s\n", f->name, put, get);
        if (f->bits && !q.int8_rows) measure_bits(f->bits, &q, words, codes);
        qb_qweight_free(&q);
    }
    check(qb_remove_tree(dir));
    qb_free(words);
    qb_free(codes);
    return 0;
}
