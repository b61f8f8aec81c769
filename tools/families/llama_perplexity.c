// llama_perplexity MODEL.gguf TEXT CONTEXT WINDOWS IDS.out: llama.cpp's ids of a text (int32, to IDS.out) and
// its perplexity of the first WINDOWS windows (0: all), scored as its perplexity tool does: disjoint windows,
// BOS first where the vocabulary adds one, the targets behind the middle. Prints one line of JSON.
// tools/check_real_model.py builds it against a build of libllama.
#include <llama.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT) fputs(text, stderr);
}

static char *read_all(const char *path, long *size) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) || (*size = ftell(f)) < 0) return NULL;
    rewind(f);
    char *text = malloc((size_t)*size + 1);
    if (!text || fread(text, 1, (size_t)*size, f) != (size_t)*size) return NULL;
    fclose(f);
    return text;
}

static double nll(const float *logits, int n, int target) {
    float top = logits[0];
    double sum = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > top) top = logits[i];
    for (int i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return log(sum) + top - logits[target];
}

// The sum over the targets behind the middle of one window; negative when llama.cpp fails.
static double score(struct llama_context *context, struct llama_batch *batch, const llama_token *ids, int n,
                    int first_id, int n_vocab) {
    double sum = 0;
    llama_memory_clear(llama_get_memory(context), true);
    batch->n_tokens = n;
    for (int i = 0; i < n; i++) {
        batch->token[i] = i == 0 && first_id >= 0 ? first_id : ids[i];
        batch->pos[i] = i;
        batch->n_seq_id[i] = 1;
        batch->seq_id[i][0] = 0;
        batch->logits[i] = i >= n / 2 && i < n - 1;
    }
    if (llama_decode(context, *batch)) return -1;
    for (int i = n / 2; i < n - 1; i++) sum += nll(llama_get_logits_ith(context, i), n_vocab, ids[i + 1]);
    return sum;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int n = atoi(argv[3]), windows = atoi(argv[4]);
    long size;
    char *text = read_all(argv[2], &size);
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!text || !model) return 1;
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    bool bos = llama_vocab_get_add_bos(vocab);
    llama_token *ids = malloc(((size_t)size + 8) * sizeof *ids);
    int count = ids ? llama_tokenize(vocab, text, (int)size, ids, (int)size + 8, bos, false) : -1;
    FILE *out = fopen(argv[5], "wb");
    if (count < 0 || !out || fwrite(ids, sizeof *ids, (size_t)count, out) != (size_t)count || fclose(out))
        return 1;

    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = cp.n_batch = cp.n_ubatch = (uint32_t)n;
    cp.n_threads = cp.n_threads_batch = 2;
    struct llama_context *context = llama_init_from_model(model, cp);
    if (!context || n < 4) return 1;
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    if (windows <= 0 || windows > count / n) windows = count / n;
    double sum = 0;
    for (int w = 0; w < windows; w++) {
        double one = score(context, &batch, ids + (long)w * n, n, bos ? llama_vocab_bos(vocab) : -1,
                           llama_vocab_n_tokens(vocab));
        if (one < 0) return 1;
        sum += one;
    }
    long scored = (long)windows * (n - n / 2 - 1);
    printf("{\"ids\": %d, \"windows\": %d, \"scored\": %ld, \"perplexity\": %.9g}\n", count, windows, scored,
           exp(sum / (double)scored));
    return 0;
}
