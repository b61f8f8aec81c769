#include "tests/shim/execute.h"
#include "tests/shim/fiber.h"
#include "tests/shim/shim.h"
#include "tests/shim/symbols.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace shim {

thread *current = nullptr;
unsigned char *dynamic_shared = nullptr;

namespace {
struct meeting { /* of the lanes in mask */
    const char *what;
    unsigned mask, arrived;
    void *arguments[32];
};
} // namespace

struct warp {
    unsigned lanes = 0, exited = 0;
    std::vector<meeting> open;
};

namespace {

constexpr int n_barriers = 16;
struct barrier_state {
    unsigned arrived = 0;
    int sum = 0, line = 0;
    const char *what = nullptr;
    std::vector<thread *> waiting;
};

void become(thread *t) {
    current = t;
    threadIdx = t->index;
}

uint64_t random_state = 0;
const void *running_kernel = nullptr;
bool is_dependent = false;
const std::function<void()> *kernel_body = nullptr;
std::vector<thread> threads;
std::vector<warp> warps;
std::vector<unsigned> start_order;
std::deque<thread *> ready;
barrier_state barriers[n_barriers];
unsigned n_threads, n_started, n_exited;

unsigned random_below(unsigned n) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return static_cast<unsigned>((random_state >> 11) % n);
}

template <typename List> void shuffle(List &list) {
    if (!random_state) return;
    for (size_t i = list.size(); i > 1; i--)
        std::swap(list[i - 1], list[random_below(static_cast<unsigned>(i))]);
}

[[noreturn]] void fail_here(const char *what) {
    fail("kernel %s, block (%u,%u,%u) thread (%u,%u,%u): %s", kernel_name_of(running_kernel).c_str(),
         blockIdx.x, blockIdx.y, blockIdx.z, current->index.x, current->index.y, current->index.z, what);
}

void wait_for(const char *what, int line) {
    thread *self = current;
    self->waits_for = what, self->waits_line = line;
    fiber_leave();
    become(self);
}

void wake(thread *t) {
    t->waits_for = nullptr;
    if (random_state && !ready.empty()) {
        ready.push_back(t);
        std::swap(ready.back(), ready[random_below(static_cast<unsigned>(ready.size()))]);
    } else {
        ready.push_back(t);
    }
}

void check_exit() {
    warp *w = current->of;
    for (const meeting &m : w->open)
        if (m.mask & (1u << current->lane)) fail_here("exits while its warp waits for it at a collective");
    if (is_dependent && !current->waited)
        fail_here("exits without having waited for the kernel that it is a dependent of");
    w->exited |= 1u << current->lane;
    if (barriers[0].arrived) fail_here("exits while others of its block wait at a barrier");
    n_exited++;
}

/* A fiber runs threads from the start until one has to wait: kernels without barriers need a single stack. */
void run_threads(void *) {
    fiber *self = current->stack;
    for (;;) {
        (*kernel_body)();
        check_exit();
        if (n_started == n_threads) break;
        become(&threads[start_order[n_started++]]);
        current->stack = self;
    }
    fiber_give_back(self);
    fiber_finish();
}

[[noreturn]] void fail_stuck() {
    const thread *a = nullptr, *b = nullptr;
    unsigned waiting = 0;
    for (const thread &t : threads)
        if (t.waits_for) {
            waiting++;
            if (!a) a = &t;
            if (!b && (t.waits_for != a->waits_for || t.waits_line != a->waits_line)) b = &t;
        }
    fail("kernel %s, block (%u,%u,%u): threads part: %u wait for ever, thread %u at %s (line %d), %s %u%s%s",
         kernel_name_of(running_kernel).c_str(), blockIdx.x, blockIdx.y, blockIdx.z, waiting, a->linear,
         a->waits_for, a->waits_line, b ? "thread" : "exited:", b ? b->linear : n_exited, b ? " at " : "",
         b ? b->waits_for : "");
}

void run_block() {
    n_started = n_exited = 0;
    for (barrier_state &b : barriers) b.arrived = 0, b.sum = 0, b.waiting.clear();
    for (warp &w : warps) w.exited = 0, w.open.clear();
    for (thread &t : threads) t.waits_for = nullptr, t.copies.clear(), t.copy_groups = 0, t.waited = false;
    shuffle(start_order);
    while (n_exited < n_threads) {
        if (n_started < n_threads) {
            become(&threads[start_order[n_started++]]);
            current->stack = fiber_take(run_threads, nullptr);
        } else if (!ready.empty()) {
            become(ready.front());
            ready.pop_front();
        } else {
            fail_stuck();
        }
        fiber_resume(current->stack);
    }
}

void prepare(dim3 block) {
    n_threads = block.x * block.y * block.z;
    threads.assign(n_threads, thread{});
    warps.assign((n_threads + 31) / 32, warp{});
    start_order.resize(n_threads);
    for (unsigned i = 0; i < n_threads; i++) {
        thread &t = threads[i];
        t.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        t.linear = i, t.lane = i % 32, t.of = &warps[i / 32];
        t.of->lanes |= 1u << t.lane;
        start_order[i] = i;
    }
}

} // namespace

unsigned warp_lanes() {
    return current->of->lanes;
}

int barrier(int id, unsigned count, bool predicate, const char *what, int line) {
    if (id < 0 || id >= n_barriers) fail_here("no such barrier");
    barrier_state &b = barriers[id];
    if (count == 0) count = n_threads;
    if (id == 0 && n_exited)
        fail_here("waits at a barrier that others of its block have left the kernel without");
    if (b.arrived && (b.what != what || b.line != line))
        fail_here("is at another barrier than the rest of its block");
    b.what = what, b.line = line;
    b.arrived++, b.sum += predicate;
    if (b.arrived < count) {
        b.waiting.push_back(current);
        wait_for(what, line);
        return current->answer;
    }
    int sum = b.sum;
    std::vector<thread *> waiting;
    waiting.swap(b.waiting);
    b.arrived = 0, b.sum = 0;
    for (thread *t : waiting) {
        t->answer = sum;
        wake(t);
    }
    /* The last to come goes on at once in order, and gives way to the others at random. */
    if (random_state && random_below(2)) {
        thread *self = current;
        ready.push_back(self);
        fiber_leave();
        become(self);
    }
    return sum;
}

void collective(const char *what, unsigned mask, void *argument, void (*compute)(void **, unsigned)) {
    warp *w = current->of;
    unsigned bit = 1u << current->lane;
    mask &= w->lanes;
    if (!(mask & bit)) fail_here("calls a warp collective without its own lane in the mask");
    if (mask & w->exited) fail_here("waits at a warp collective for a lane that has left the kernel");
    meeting *m = nullptr;
    for (meeting &open : w->open)
        if (open.mask == mask && !(open.arrived & bit)) m = &open;
    if (!m) {
        w->open.push_back(meeting{what, mask, 0, {}});
        m = &w->open.back();
    }
    if (strcmp(m->what, what) != 0) fail_here("is at another warp collective than the rest of its warp");
    m->arguments[current->lane] = argument;
    m->arrived |= bit;
    if (m->arrived != mask) return wait_for(what, 0);
    meeting done = *m;
    w->open.erase(w->open.begin() + (m - w->open.data()));
    compute(done.arguments, mask);
    thread *first = current - current->lane;
    for (unsigned lane = 0; lane < 32; lane++)
        if ((mask >> lane & 1) && lane != current->lane) wake(first + lane);
}

void run_grid(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, bool dependent,
              const std::function<void()> &body) {
    if (current) fail("a kernel is launched from within a kernel");
    running_kernel = kernel, kernel_body = &body, is_dependent = dependent;
    gridDim = grid, blockDim = block;
    prepare(block);
    uint64_t n_blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    uint64_t first = random_state ? random_below(1u << 30) % n_blocks : 0;
    void *shared = nullptr; /* exactly as large as asked for: AddressSanitizer sees what lies beyond */
    if (posix_memalign(&shared, 128, shared_bytes ? shared_bytes : 1) != 0)
        fail("no memory for shared memory");
    dynamic_shared = static_cast<unsigned char *>(shared);
    for (uint64_t i = 0; i < n_blocks; i++) {
        uint64_t b = random_state ? (first + n_blocks - i) % n_blocks : i; /* at random: backwards from any */
        blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                    static_cast<unsigned>(b / grid.x / grid.y)};
        memset(shared, 0xff, shared_bytes); /* garbage, which reads as a NaN in float32 and float16 */
        if (i < 2) spoil_static_shared();   /* what block 0 left does not help block 1 */
        run_block();
    }
    free(shared);
    dynamic_shared = nullptr;
    current = nullptr;
}

} // namespace shim

extern "C" void qb_shim_set_seed(uint64_t seed) {
    shim::random_state = seed ? seed * 0x9e3779b97f4a7c15u | 1 : 0;
}
