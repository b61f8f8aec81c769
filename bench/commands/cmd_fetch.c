/* bench fetch: models and datasets from the Hugging Face hub into its cache. */
#include "base/memory.h"
#include "bench/command.h"
#include "bench/fetch.h"
#include "bench/run/child.h"

#include <string.h>

typedef struct {
    qb_fetch_request request;
    const char *split, *type;
} fetch_options;

static const qb_option rows[] = {
    {"revision", 'r', QB_OPTION_TEXT, offsetof(fetch_options, request.revision), NULL, 0, 0, NULL, "REVISION",
     "branch, tag, refs/pr/N or commit; without, main"},
    {"include", 'i', QB_OPTION_TEXT, offsetof(fetch_options, request.include), NULL, 0, 0, NULL, "GLOB,GLOB",
     "files that match, such as '*Q4_K_M*.gguf'; without, config, tokenizer and the weights as safetensors, "
     "or else "
     "as pytorch_model.bin"},
    {"split", 0, QB_OPTION_CHOICE, offsetof(fetch_options, split), "all", 0, 0, "all|evaluation|calibration",
     "SPLIT", "which files of a dataset"},
    {"type", 0, QB_OPTION_CHOICE, offsetof(fetch_options, type), "model", 0, 0, "model|dataset", "KIND",
     "what an ORG/NAME is; of a dataset --include chooses the files"},
    {"jobs", 'j', QB_OPTION_INT, offsetof(fetch_options, request.jobs), "4", 1, 32, NULL, "N",
     "files to download at a time"},
    {"dry-run", 'n', QB_OPTION_BOOL, offsetof(fetch_options, request.dry_run), NULL, 0, 0, NULL, NULL,
     "print the files with their sizes and fetch nothing"},
    {0},
};

static const qb_page page = {
    .name = "fetch",
    .summary = "get a model or a dataset from the Hugging Face hub",
    .synopsis = "fetch MODEL|DATASET [--revision REVISION] [--include GLOB,GLOB] [options]",
    .description =
        "Downloads into the Hugging Face cache, in the layout that Python's tools have: what they fetched "
        "is\n"
        "found here and the other way round. Each file is verified against the hash that the hub says "
        "before\n"
        "it has its name; what a cut leaves is gone on with by the next try. Prints the folder.\n"
        "\n"
        "MODEL is ORG/NAME or a known name (`bench list models`); every command then takes the same word.\n"
        "DATASET is a name of `bench list datasets`, and is found by --dataset and --calibration.\n"
        "\n"
        "HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN (or the token file of `hf auth login`) and\n"
        "HF_HUB_OFFLINE mean what they mean to Python's tools. The token is sent to the endpoint alone.",
    .examples = "bench fetch facebook/opt-125m\n"
                "bench fetch wikitext2\n"
                "bench fetch c4 --split calibration\n"
                "bench fetch TheBloke/Llama-2-7B-GGUF --include '*Q4_K_M.gguf'",
};

static unsigned splits_of(const char *word) {
    return !strcmp(word, "evaluation")    ? QB_SPLIT_EVALUATION
           : !strcmp(word, "calibration") ? QB_SPLIT_CALIBRATION
                                          : QB_SPLIT_EVALUATION | QB_SPLIT_CALIBRATION;
}

static void print_files(const qb_json *report) {
    char size[32];
    for (const qb_json *f = qb_json_first(qb_json_get(report, "files")); f; f = qb_json_next(f))
        qb_output("%10s  %s\n", qb_format_bytes(qb_json_number(qb_json_get(f, "bytes")), size),
                  qb_json_string(qb_json_get(f, "path")));
    qb_output("%10s  in all, commit %s\n",
              qb_format_bytes(qb_json_number(qb_json_get(report, "bytes")), size),
              qb_json_string(qb_json_get(report, "commit")));
}

static qb_status fetch_word(const char *word, const fetch_options *o, qb_json **report) {
    const qb_dataset *d = qb_dataset_find(word);
    qb_hub_repo repo = {QB_HUB_DATASET, word, o->request.revision};
    if (d && o->request.include)
        return qb_fail(QB_ERR_USAGE,
                       "--include chooses files of a repository; of dataset %s choose by --split", word);
    if (d) return qb_fetch_dataset(d, splits_of(o->split), &o->request, report);
    if (strcmp(o->type, "dataset") != 0) return qb_fetch_model(word, &o->request, report);
    if (!o->request.include)
        return qb_fail(QB_ERR_USAGE, "--type dataset needs --include, which names the files to get");
    return qb_fetch_repo(&repo, &o->request, report);
}

static qb_status fetch_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    fetch_options o;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &o}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    qb_json *report = NULL;
    size_t n_words;
    bool done;
    qb_status st = qb_command_parse(&page, sets, 2, argc, argv, &word, 1, &n_words, &done);
    if (st != QB_OK || done) return st;
    if (!n_words) return qb_command_missing(&page, "MODEL|DATASET");
    qb_interrupt_watch();
    st = fetch_word(word, &o, &report);
    if (st == QB_OK && common.json)
        st = qb_output_json(report);
    else if (st == QB_OK && o.request.dry_run)
        print_files(report);
    else if (st == QB_OK)
        qb_output("%s\n", qb_json_string(qb_json_get(report, "path")));
    qb_json_free(report);
    return st;
}

const qb_command qb_command_fetch = {"fetch", "get a model or a dataset from the Hugging Face hub",
                                     fetch_main};
