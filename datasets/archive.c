#include "datasets/archive.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/str.h"
#include "datasets/libarchive.h"

#include <string.h>
#include <strings.h>

/* A filter of the library, of one that was loaded. */
typedef int filter(const qb_libarchive *lib, struct archive *a);

typedef struct kind_row {
    const char *suffix;
    qb_stored kind;
    const char *what;
    const char *magic;
    size_t magic_length;
    filter *support;
} kind_row;

#define FILTER(name)                                                                                         \
    static int name##_filter(const qb_libarchive *lib, struct archive *a) {                                  \
        return lib->archive_read_support_filter_##name(a);                                                   \
    }
FILTER(all)
FILTER(gzip)
FILTER(zstd)
FILTER(xz)
FILTER(bzip2)
#undef FILTER

/* Magic numbers: RFC 1952, RFC 8878, the .xz file format 1.1.0, bzip2's "BZh", APPNOTE.TXT. A tar may itself
   be compressed, so only libarchive can tell. */
static const kind_row kinds[] = {
    {".tar.gz", QB_STORED_TAR, "tar", NULL, 0, all_filter},
    {".tgz", QB_STORED_TAR, "tar", NULL, 0, all_filter},
    {".tar", QB_STORED_TAR, "tar", NULL, 0, all_filter},
    {".gz", QB_STORED_GZIP, "gzip", "\x1f\x8b", 2, gzip_filter},
    {".zst", QB_STORED_ZSTD, "zstd", "\x28\xb5\x2f\xfd", 4, zstd_filter},
    {".xz", QB_STORED_XZ, "xz", "\xfd\x37zXZ\0", 6, xz_filter},
    {".bz2", QB_STORED_BZIP2, "bzip2", "BZh", 3, bzip2_filter},
    {".zip", QB_STORED_ZIP, "zip", "PK", 2, NULL},
};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static const kind_row *row_by_name(const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < N_KINDS; i++) {
        size_t s = strlen(kinds[i].suffix);
        if (n > s && strcasecmp(name + n - s, kinds[i].suffix) == 0) return &kinds[i];
    }
    return NULL;
}

qb_stored qb_stored_by_name(const char *name, size_t *stem_length) {
    const kind_row *row = row_by_name(name);
    if (stem_length) *stem_length = strlen(name) - (row ? strlen(row->suffix) : 0);
    return row ? row->kind : QB_STORED_PLAIN;
}

/* libarchive's gzip filter does not compare the check sum,
   so a flipped bit that still decodes would pass unseen. */
static uint32_t crc32_of(const unsigned char *p, size_t n) {
    uint32_t table[8][256]; /* slicing by 8: a 800 MB shard takes well under a second */
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = (c >> 1) ^ ((c & 1) ? 0xedb88320u : 0);
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++) table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 255];
    uint32_t crc = 0xffffffffu;
    for (; n >= 8; p += 8, n -= 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = table[7][crc & 255] ^ table[6][crc >> 8 & 255] ^ table[5][crc >> 16 & 255] ^
              table[4][crc >> 24] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    for (; n > 0; p++, n--) crc = (crc >> 8) ^ table[0][(crc ^ *p) & 255];
    return ~crc;
}

static uint32_t little32(const unsigned char *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* RFC 1952: a member ends with the CRC-32 and the length (mod 2^32) of its text. Of several members the last
   is checked, whose text is the end of the whole. */
static qb_status check_gzip(const unsigned char *stored, size_t n, const char *text, size_t length,
                            const char *name) {
    if (n < 18) return qb_fail(QB_ERR_FORMAT, "%s: the gzip data is cut off: %zu bytes", name, n);
    uint32_t crc = little32(stored + n - 8), member = little32(stored + n - 4);
    if ((uint32_t)length == member && crc32_of((const unsigned char *)text, length) == crc) return QB_OK;
    if (member < length && crc32_of((const unsigned char *)text + (length - member), member) == crc)
        return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: the gzip data is damaged: its check sum or length does not fit the %zu bytes it "
                   "holds: fetch the file again",
                   name, length);
}

/* Outside a UTF-8 locale libarchive gives no name that is not ASCII. */
static const char *entry_path(const qb_libarchive *lib, struct archive_entry *e) {
    const char *path = lib->archive_entry_pathname(e);
    return path ? path : "unnamed entry";
}

/* Folders, and what macOS adds to every archive, are not what anyone means. */
static bool is_content(const qb_libarchive *lib, struct archive_entry *e) {
    const char *path = entry_path(lib, e);
    return lib->archive_entry_filetype(e) == AE_IFREG && strncmp(path, "__MACOSX/", 9) != 0 &&
           strncmp(qb_path_base(path), "._", 2) != 0;
}

/* The text is gathered in pieces that double up to 64 MB, so that neither growing nor joining ever holds it
   twice: a C4 shard would otherwise set the peak memory of a small model's whole run. The pieces hold 137 GB,
   more than any bound allows. */
enum { FIRST_PIECE = 1 << 18, DOUBLINGS = 8, MAX_PIECES = 2048, TOLD_FROM_BYTES = 1 << 20 };

typedef struct reader {
    const qb_libarchive *lib;
    struct archive *archive;
    const kind_row *row;
    const unsigned char *stored;
    size_t n; /* stored bytes */
    const char *name;
    const char *entry; /* wanted; NULL: the only one */
    size_t max_bytes;
    char *pieces[MAX_PIECES];
    size_t n_pieces;
    size_t length; /* of all pieces */
    char *found;   /* name of the entry read; NULL: none yet */
} reader;

static qb_status fail_damaged(const reader *r) {
    const char *why = r->lib->archive_error_string(r->archive), *entry = r->found;
    bool named = entry && *entry; /* a single stream has no entries */
    return qb_fail(QB_ERR_FORMAT,
                   "%s: the %s data%s%s is damaged or cut off after %zu bytes of text (%s): fetch the "
                   "file again",
                   r->name, r->row->what, named ? " of " : "", named ? entry : "", r->length,
                   why ? why : "no reason given");
}

static size_t piece_capacity(size_t index) {
    return (size_t)FIRST_PIECE << (index < DOUBLINGS ? index : DOUBLINGS);
}

static qb_status fail_large(const reader *r, const char *what) {
    return qb_fail(QB_ERR_FORMAT,
                   "%s: %s %zu bytes, the most a dataset file may have: is it what it should be? "
                   "BENCH_MAX_TEXT_GB=N allows N GB (10^9 bytes)",
                   r->name, what, r->max_bytes);
}

/* A bomb on a small machine must not fill its memory before it meets the bound. The pages that were taken
   already no longer count as available. */
static qb_status check_room(const reader *r, int64_t piece_bytes) {
    int64_t available = qb_available_memory_bytes();
    if (available < 0) return QB_ERR_IO;
    if (piece_bytes <= available / 10 * 9) return QB_OK;
    char a[32], b[32];
    return qb_fail(QB_ERR_MEMORY, "after %s of text, %s of memory are left: decompress the file first",
                   qb_format_bytes((double)r->length, a), qb_format_bytes((double)available, b));
}

/* RFC 8878, 3.1.1.1: the first frame's content size, where its header states it; else 0. */
static uint64_t zstd_announces(const unsigned char *p, size_t n) {
    static const size_t id_bytes[] = {0, 1, 2, 4};
    if (n < 6) return 0;
    bool single = p[4] & 0x20;
    size_t at = (single ? 5u : 6u) + id_bytes[p[4] & 3], kind = (size_t)p[4] >> 6;
    size_t width = kind ? (size_t)1 << kind : single;
    uint64_t size = 0;
    if (n < at + width) return 0;
    for (size_t i = 0; i < width; i++) size |= (uint64_t)p[at + i] << (8 * i);
    return kind == 1 ? size + 256 : size;
}

/* What the stored bytes say of the length of the text; 0 when they do not. RFC 1952: gzip states it modulo
   2^32, of the last member; so it is no less. */
static uint64_t announced_bytes(const reader *r, struct archive_entry *e) {
    if (r->row->kind == QB_STORED_GZIP && r->n >= 18) return little32(r->stored + r->n - 4);
    if (r->row->kind == QB_STORED_ZSTD) return zstd_announces(r->stored, r->n);
    bool sized = r->row->kind == QB_STORED_ZIP || r->row->kind == QB_STORED_TAR;
    int64_t size = sized && r->lib->archive_entry_size_is_set(e) ? r->lib->archive_entry_size(e) : 0;
    return size > 0 ? (uint64_t)size : 0;
}

static qb_status announce(const reader *r, struct archive_entry *e) {
    uint64_t bytes = announced_bytes(r, e);
    char a[32], b[32];
    if (bytes > r->max_bytes) return fail_large(r, "says that it decompresses to more than");
    if (bytes >= TOLD_FROM_BYTES || (!bytes && r->n >= TOLD_FROM_BYTES))
        qb_info("%s: %s of %s data, which state %s of text", r->name, qb_format_bytes((double)r->n, a),
                r->row->what, bytes ? qb_format_bytes((double)bytes, b) : "no length");
    return QB_OK;
}

static qb_status read_entry(reader *r) {
    char *end = NULL;
    size_t room = 0;
    for (;;) {
        if (room == 0) {
            if (r->n_pieces == MAX_PIECES) return qb_fail(QB_ERR_INTERNAL, "%s: out of pieces", r->name);
            room = piece_capacity(r->n_pieces);
            qb_status st = check_room(r, (int64_t)room);
            if (st == QB_OK) st = qb_alloc(room, 1, &end);
            if (st != QB_OK) return qb_fail_prefix(st, "%s", r->name);
            r->pieces[r->n_pieces++] = end;
        }
        la_ssize_t got = r->lib->archive_read_data(r->archive, end, room);
        if (got < 0) return fail_damaged(r);
        if (got == 0) return QB_OK;
        room -= (size_t)got;
        end += got;
        r->length += (size_t)got;
        if (r->length > r->max_bytes) return fail_large(r, "decompresses to more than");
    }
}

/* Moves the pieces into one text, each freed as soon as it is copied. */
static qb_status join_pieces(reader *r, char **out) {
    qb_status st = qb_alloc(r->length + 1, 1, out);
    if (st != QB_OK) return qb_fail_prefix(st, "%s", r->name);
    size_t done = 0;
    for (size_t i = 0; i < r->n_pieces; i++) {
        size_t n = piece_capacity(i) < r->length - done ? piece_capacity(i) : r->length - done;
        memcpy(*out + done, r->pieces[i], n);
        done += n;
        qb_free(r->pieces[i]);
    }
    r->n_pieces = 0;
    (*out)[done] = 0;
    return QB_OK;
}

/* Walks to the wanted entry and reads it; an archive of several files needs to be told which one. */
static qb_status read_entries(reader *r) {
    bool single = r->row->kind != QB_STORED_ZIP && r->row->kind != QB_STORED_TAR;
    for (;;) {
        struct archive_entry *e;
        int rc = r->lib->archive_read_next_header(r->archive, &e);
        if (rc == ARCHIVE_EOF) break;
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN) return fail_damaged(r);
        if (!single && !is_content(r->lib, e)) continue;
        const char *path = single ? "" : entry_path(r->lib, e);
        if (r->entry && !single && strcmp(qb_path_base(path), r->entry) != 0) continue;
        if (r->found) {
            if (r->entry) break;
            return qb_fail(QB_ERR_UNSUPPORTED,
                           "%s: holds more than one file (%s, %s): unpack the one you mean", r->name,
                           r->found, path);
        }
        if (!(r->found = qb_strdup(path))) return qb_fail(QB_ERR_MEMORY, "%s: out of memory", r->name);
        qb_status st = single ? QB_OK : announce(r, e);
        if (st == QB_OK) st = read_entry(r);
        if (st != QB_OK || single) return st;
    }
    if (single || r->found) return QB_OK; /* an empty stream is an empty text */
    if (r->entry) return qb_fail(QB_ERR_NOT_FOUND, "%s: no entry named %s", r->name, r->entry);
    return qb_fail(QB_ERR_FORMAT, "%s: the archive holds no file", r->name);
}

static qb_status open_archive(reader *r, const void *stored, size_t n) {
    struct archive *a = r->archive;
    int rc = ARCHIVE_OK;
    if (r->row->support) rc = r->row->support(r->lib, a);
    /* A warning means that libarchive would start an external program. */
    if (r->row->kind != QB_STORED_TAR && rc != ARCHIVE_OK)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: this libarchive was built without %s: decompress the file first", r->name,
                       r->row->what);
    if (r->row->kind == QB_STORED_ZIP)
        r->lib->archive_read_support_format_zip(a);
    else if (r->row->kind == QB_STORED_TAR)
        r->lib->archive_read_support_format_tar(a);
    else
        r->lib->archive_read_support_format_raw(a), r->lib->archive_read_support_format_empty(a);
    if (r->lib->archive_read_open_memory(a, stored, n) != ARCHIVE_OK) return fail_damaged(r);
    return QB_OK;
}

qb_status qb_archive_read(const void *stored, size_t n, qb_stored kind, const char *name, const char *entry,
                          size_t max_bytes, char **out, size_t *out_n, char **entry_name) {
    *out = NULL;
    *out_n = 0;
    *entry_name = NULL;
    reader r = {.row = row_by_name(name),
                .name = name,
                .entry = entry,
                .max_bytes = max_bytes,
                .stored = stored,
                .n = n};
    qb_status st = QB_OK;
    for (size_t i = 0; !r.row && i < N_KINDS; i++)
        if (kinds[i].kind == kind) r.row = &kinds[i];
    if (!r.row || r.row->kind != kind) return qb_fail(QB_ERR_INTERNAL, "%s: not a compressed file", name);
    if (n == 0) return qb_fail(QB_ERR_FORMAT, "%s is empty", name);
    if (n < r.row->magic_length || memcmp(stored, r.row->magic ? r.row->magic : "", r.row->magic_length) != 0)
        return qb_fail(QB_ERR_FORMAT, "%s: named %s but its contents are not %s", name, r.row->suffix,
                       r.row->what);
    if ((st = qb_libarchive_load(&r.lib)) != QB_OK) return qb_fail_prefix(st, "%s", name);
    if (!(r.archive = r.lib->archive_read_new())) return qb_fail(QB_ERR_MEMORY, "%s: out of memory", name);
    /* Before libarchive reads the first block of a single stream, which may ask for what it states. */
    if (kind != QB_STORED_ZIP && kind != QB_STORED_TAR) QB_TRY(st, announce(&r, NULL));
    QB_TRY(st, open_archive(&r, stored, n));
    QB_TRY(st, read_entries(&r));
    QB_TRY(st, join_pieces(&r, out));
    if (kind == QB_STORED_GZIP) QB_TRY(st, check_gzip(stored, n, *out, r.length, name));
    *out_n = r.length;
    if (r.found && *r.found) {
        *entry_name = r.found;
        r.found = NULL;
    }
out:
    for (size_t i = 0; i < r.n_pieces; i++) qb_free(r.pieces[i]);
    qb_free(r.found);
    if (r.archive) r.lib->archive_read_free(r.archive);
    if (st != QB_OK) {
        qb_free(*out);
        *out = NULL;
    }
    return st;
}
