#include "tests/shim/memory.h"
#include "tests/shim/shim.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#if defined(QB_SANITIZED)
#include <sanitizer/asan_interface.h>
#define POISON(pointer, bytes)   __asan_poison_memory_region(pointer, bytes)
#define UNPOISON(pointer, bytes) __asan_unpoison_memory_region(pointer, bytes)
#else
#define POISON(pointer, bytes)   (void)0
#define UNPOISON(pointer, bytes) (void)0
#endif

namespace shim {

namespace {

constexpr size_t page = 4096, huge_page = size_t{2} << 20, arena_bytes = size_t{256} << 30;
char *base = nullptr;
size_t used = 0, allocated = 0;
int open_depth = 0;
std::map<const char *, size_t> live; /* address, bytes */

void reserve() {
    void *map = mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) fail("no address space for device memory");
    base = static_cast<char *>(map);
}

void protect(int protection) {
    if (used && mprotect(base, used, protection) != 0) fail("mprotect of device memory");
}

} // namespace

/* Each allocation has pages of its own with an untouchable page's width between, and ends at most 255 bytes
   before that: what AddressSanitizer is told is exact. */
void *arena_alloc(size_t bytes) {
    if (!base) reserve();
    size_t room = (bytes + page - 1) / page * page + page;
    if (used + room + huge_page > arena_bytes) fail("device address space is used up");
    /* large ones in huge pages: what mprotect takes goes by their number */
    const bool huge = bytes >= huge_page;
    if (huge) used += (huge_page - reinterpret_cast<uintptr_t>(base + used) % huge_page) % huge_page;
    char *pointer = base + used;
    used += room;
    live[pointer] = bytes;
    allocated += bytes;
    arena_open();
    protect(PROT_READ | PROT_WRITE);
    if (huge) (void)madvise(pointer, bytes / huge_page * huge_page, MADV_HUGEPAGE);
    memset(pointer, 0xff, bytes);
    POISON(pointer + bytes, room - bytes);
    arena_close();
    return pointer;
}

void arena_free(void *pointer) {
    auto it = live.find(static_cast<char *>(pointer));
    if (it == live.end()) fail("cudaFree of %p, which is no live device allocation", pointer);
    size_t bytes = it->second, room = (bytes + page - 1) / page * page;
    allocated -= bytes;
    POISON(pointer, room);
    if (room && madvise(pointer, room, MADV_DONTNEED) != 0) fail("madvise of device memory");
    live.erase(it);
}

bool arena_holds(const void *pointer) {
    const char *p = static_cast<const char *>(pointer);
    return base && p >= base && p < base + arena_bytes;
}

void arena_check(const void *pointer, size_t bytes, const char *what) {
    const char *p = static_cast<const char *>(pointer);
    auto it = live.upper_bound(p);
    if (it != live.begin() && (--it, p >= it->first && p + bytes <= it->first + it->second)) return;
    fail("%s: %zu bytes at %p are not within one live allocation of device memory", what, bytes, pointer);
}

void arena_open() {
    if (open_depth++ == 0) protect(PROT_READ | PROT_WRITE);
}
void arena_close() {
    if (--open_depth == 0) protect(PROT_NONE);
}

size_t arena_allocated_bytes() {
    return allocated;
}
int arena_allocations() {
    return static_cast<int>(live.size());
}

} // namespace shim
