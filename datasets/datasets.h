/* Datasets and protocols: local files -> text -> token windows, as the GPTQ paper's datautils.py and the
   perplexity tools of the field define them (each row and function names its source). A dataset is one row in
   datasets.def. Nothing here makes a request: what is in the hub's cache is read there. */
#pragma once

#include "base/hash.h"
#include "base/windows.h"
#include "tokenizer/tokenizer.h"

/* The file a text was read from. */
typedef struct qb_data_file {
    char path[1024];
    char role[16];              /* "test", "train", "validation"; "file" for the user's own */
    char sha256[QB_SHA256_HEX]; /* of the file as stored, compressed if it is */
    int64_t bytes;              /* as stored */
    char note[160];             /* "" or why a result on this file is not comparable with published numbers */
} qb_data_file;
enum { QB_DATA_FILES_MAX = 4 };
typedef struct qb_data_files {
    int n;
    qb_data_file files[QB_DATA_FILES_MAX];
} qb_data_files;

/* How the rows of a file become one text. */
typedef enum {
    QB_JOIN_NONE,          /* the file as it is */
    QB_JOIN_WIKITEXT_ROWS, /* a row is a line with its newline, a line of white space alone is the empty row
                            */
    QB_JOIN_STRIPPED_ROWS, /* a row is a line without the white space around it */
} qb_join;

struct qb_text;    /* an opened file (datasets/text.h) */
struct qb_reading; /* how its text becomes ids (datasets/reading.h) */
struct qb_draw;    /* what calibration asks for, and gets (datasets/draw.h) */
struct qb_drawn;

typedef struct qb_dataset qb_dataset;
struct qb_dataset {
    const char *name, *summary, *source;
    const char *family;      /* sub-folder of the data directory */
    bool built_in;           /* comes with the program: looked for in <share>/<family> only */
    bool documents;          /* the file is JSON lines, each with a "text" */
    int64_t first_documents; /* evaluation reads no more of them than this; 0: all */
    qb_join join;
    const struct qb_row_form
        *rows;             /* of a table, as the text file has them (datasets/text.h); NULL: documents */
    const char *separator; /* between rows, or between documents where they become one text */

    /* File names in order of preference, '|' between; "archive.zip!name" is one entry of an archive. Each
       name may carry a compression suffix. A substitute (a sample, a part) serves when no canonical name is
       there, and is noted in qb_data_file. */
    const char *evaluation_role, *evaluation_files, *evaluation_substitutes;
    const char *calibration_role, *calibration_files, *calibration_substitutes;
    const char *evaluation_sha256; /* of the canonical text, decompressed; NULL: unknown */
    int64_t evaluation_documents, calibration_documents; /* in the canonical file; 0: not counted */
    /* At the hub: repository, revision (NULL: main), and the files of the two splits; NULL: it is not there.
       What lies in the hub's cache is looked for behind all other folders. */
    const char *hub_repo, *hub_revision, *hub_evaluation, *hub_calibration;
    const char *how_to_get; /* one sentence for the error when the file is missing */

    /* The evaluation split's ids; `window` is the protocol's (c4 draws by it). Appends to out. */
    qb_status (*evaluate)(const qb_dataset *d, const struct qb_text *text, struct qb_reading *r,
                          int64_t window, qb_ids *out);
    qb_status (*calibrate)(const qb_dataset *d, const struct qb_text *text, struct qb_reading *r,
                           const struct qb_draw *draw, struct qb_drawn *out);
};

/* Registry. Where a `dataset` argument is asked below, a registry name serves, or the path of the user's own
   text file (one document) or JSON lines file (.jsonl, .json, .ndjson; "text" of each line is a document),
   compressed or not, or a Parquet file with a column "text" (a row is a document). Registry files are looked
   for in data_dir (may be NULL), $BENCH_DATA and <user cache>/data, in that order, each with its sub-folder
   <family>, then in the hub's cache. */
const qb_dataset *qb_dataset_at(size_t index);       /* NULL behind the last */
const qb_dataset *qb_dataset_find(const char *name); /* NULL: perhaps a file */

/* Protocols: "gptq" (= gptq-2048), "gptq-<n>", "llamacpp" (= llamacpp-512),
   "llamacpp-<n>", "strided" (= strided-1024-512), "strided-<n>" (stride
   n/2), "strided-<n>-<stride>". Unknown names suggest the nearest. */
typedef enum { QB_PROTOCOL_GPTQ, QB_PROTOCOL_LLAMACPP, QB_PROTOCOL_STRIDED } qb_protocol_kind;
enum { QB_PROTOCOL_COUNT = 3 };
typedef struct qb_protocol {
    qb_protocol_kind kind;
    int32_t window, stride; /* tokens; stride = window except for strided */
    char name[32];          /* canonical: "gptq-2048", "strided-512-256" */
} qb_protocol;
qb_status qb_protocol_parse(const char *text, qb_protocol *out) QB_NODISCARD;
/* A sentence each for `bench list protocols` and the result: what is scored and how it is reduced. */
const char *qb_protocol_summary(qb_protocol_kind kind);
/* Tokens of a text that its first max_windows windows lie in; 0: all of it. */
int64_t qb_protocol_tokens(const qb_protocol *p, int64_t max_windows);
/* Cuts ids into windows. Takes the ids: they are moved into out (and freed on failure). bos < 0: the
   vocabulary adds none. out's `sha256` and `total_tokens` describe the ids as they came, before llamacpp
   overwrites a token with BOS and before max_windows (0: all). `where` heads errors. */
qb_status qb_protocol_cut(const qb_protocol *p, qb_ids *ids, int32_t bos, int64_t max_windows,
                          const char *where, qb_windows *out) QB_NODISCARD;

/* What special tokens in the text mean under a protocol unless the user says otherwise: gptq and strided read
   as the tokenizer's file does, llamacpp as plain text, each as the program that it is named after. */
qb_special_tokens qb_protocol_special_tokens(qb_protocol_kind kind);

/* The option's choices and help, for the commands and suites that have it. */
#define QB_SPECIAL_TOKENS_CHOICES "protocol|file|text|legacy"
#define QB_SPECIAL_TOKENS_HELP                                                                               \
    "how a text that spells special tokens such as <unk> is read: as the tokenizer's file says, as plain "   \
    "text, or as the slow SentencePiece tokenizers did; protocol: text for llamacpp, file for the others"

/* Which text, and whose ids. */
typedef struct qb_source {
    const char *dataset, *data_dir; /* data_dir may be NULL */
    const qb_tokenizer *tokenizer;
    qb_special_tokens special;
} qb_source;

/* Tokenizes the evaluation split and cuts it. With max_windows no more of the text is tokenized than those
   windows need, with the same ids (qb_windows.part < 1). gptq and strided read the text with the dataset's
   joins; llamacpp reads the raw bytes of the file, and of JSON lines the documents with a newline between
   (c4-new: its first 1100). llamacpp follows add_bos_token and add_eos_token, the others the tokenizer's
   template. files, when not NULL, receives the file read. The windows' fields from `protocol` on are set.
   Errors: file missing (says where it was looked for), not UTF-8, damaged, text too short for one window. */
qb_status qb_dataset_windows(const qb_source *s, const qb_protocol *p, int64_t max_windows, qb_windows *out,
                             qb_data_files *files) QB_NODISCARD;
/* Calibration windows exactly as the paper's code draws them with CPython's random. starts/documents, when
   not NULL, receive [n_samples] start tokens and document numbers from 0 (-1 for datasets of one text);
   caller frees with qb_free. A text or document of exactly seqlen tokens, on which the paper's code crashes
   with randint(0, -1), is taken whole without a draw, as AQLM does. `sha256` is of the windows' ids in order;
   `total_tokens` counts the whole text, for documents the drawn windows. */
qb_status qb_dataset_calibration(const qb_source *s, int64_t n_samples, int64_t seqlen, uint64_t seed,
                                 qb_windows *out, qb_data_files *files, int64_t **starts,
                                 int64_t **documents) QB_NODISCARD;
/* Random valid ids, for models without a tokenizer (--synthetic). */
qb_status qb_random_windows(int64_t vocab, int64_t n_samples, int64_t seqlen, uint64_t seed,
                            qb_windows *out) QB_NODISCARD;

/* Whole text of the evaluation (or calibration) split with the dataset's joins, for `bench tokenize
   --dataset`. window matters to the evaluation of c4 and c4-new alone. Appends to out; *found, when not NULL,
   receives the special tokens that the text spells. */
qb_status qb_dataset_ids(const qb_source *s, bool calibration_split, int64_t window, qb_ids *out,
                         int64_t *found, qb_data_files *files) QB_NODISCARD;

/* Reads a possibly compressed file whole (.gz .zst .xz .bz2, the only file in a .zip; of .parquet its rows as
   lines); any bytes, a NUL behind them. Free *out with qb_free. */
qb_status qb_text_read(const char *path, char **out, size_t *n) QB_NODISCARD;
