#include "tests/shim/fiber.h"
#include "tests/shim/shim.h"

#include <cstdint>
#include <sys/mman.h>
#include <vector>

#if defined(QB_SANITIZED)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SHIM_ASAN 1
#else
#define SHIM_ASAN 0
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace shim {

namespace {
constexpr size_t guard_bytes = 4096;
constexpr size_t stack_bytes = 256 << 10;
} // namespace

struct fiber {
    char *stack = nullptr; /* lowest byte, above the guard page */
#if defined(__x86_64__)
    void *at = nullptr; /* stack pointer while it rests */
#else
    ucontext_t at;
#endif
    void (*entry)(void *) = nullptr;
    void *argument = nullptr;
    void *fake_stack = nullptr;
};

namespace {

std::vector<fiber *> &idle = *new std::vector<fiber *>; /* outlives static destructors */
fiber *running = nullptr;
#if SHIM_ASAN
void *main_fake_stack = nullptr;
const void *main_bottom = nullptr;
size_t main_bytes = 0;
#endif

#if defined(__x86_64__)
void *main_at = nullptr;
#else
ucontext_t main_at;
#endif

} // namespace

#if defined(__x86_64__)
/* Saves the registers a callee keeps and the stack pointer, and takes up the other stack. swapcontext would
   do the same with two system calls each time. */
extern "C" void qb_shim_switch(void **save, void *to);
asm(".text\n"
    ".globl qb_shim_switch\n"
    ".type qb_shim_switch, @function\n"
    "qb_shim_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size qb_shim_switch, .-qb_shim_switch\n"
    ".section .note.GNU-stack,\"\",@progbits\n"
    ".text\n");
#endif

static void begin() {
#if SHIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_bytes);
#endif
    running->entry(running->argument);
    fiber_finish();
}

static fiber *fiber_new() {
    fiber *f = new fiber;
    void *map = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED || mprotect(map, guard_bytes, PROT_NONE) != 0)
        fail("no memory for a fiber's stack");
    f->stack = static_cast<char *>(map) + guard_bytes;
    return f;
}

fiber *fiber_take(void (*entry)(void *), void *argument) {
    fiber *f;
    if (idle.empty()) {
        f = fiber_new();
    } else {
        f = idle.back();
        idle.pop_back();
    }
    f->entry = entry, f->argument = argument, f->fake_stack = nullptr;
#if SHIM_ASAN
    __asan_unpoison_memory_region(f->stack, stack_bytes); /* what the last user's frames left */
#endif
#if defined(__x86_64__)
    /* The first switch pops six registers and returns into
       begin, whose frame expects a return address above. */
    void **top = reinterpret_cast<void **>(f->stack + stack_bytes);
    *--top = nullptr;
    *--top = reinterpret_cast<void *>(&begin);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f->at = top;
#else
    getcontext(&f->at);
    f->at.uc_stack.ss_sp = f->stack;
    f->at.uc_stack.ss_size = stack_bytes;
    f->at.uc_link = nullptr;
    makecontext(&f->at, begin, 0);
#endif
    return f;
}

void fiber_give_back(fiber *f) {
    idle.push_back(f);
}

void fiber_resume(fiber *f) {
    running = f;
#if SHIM_ASAN
    __sanitizer_start_switch_fiber(&main_fake_stack, f->stack, stack_bytes);
#endif
#if defined(__x86_64__)
    qb_shim_switch(&main_at, f->at);
#else
    swapcontext(&main_at, &f->at);
#endif
#if SHIM_ASAN
    __sanitizer_finish_switch_fiber(main_fake_stack, nullptr, nullptr);
#endif
    running = nullptr;
}

static void leave(void **fake_stack) {
    fiber *self = running;
#if SHIM_ASAN
    __sanitizer_start_switch_fiber(fake_stack, main_bottom, main_bytes);
#else
    (void)fake_stack;
#endif
#if defined(__x86_64__)
    qb_shim_switch(&self->at, main_at);
#else
    swapcontext(&self->at, &main_at);
#endif
#if SHIM_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, &main_bottom, &main_bytes);
#endif
}

void fiber_leave() {
    leave(&running->fake_stack);
}

void fiber_finish() {
    leave(nullptr);
    fail("a finished fiber was resumed");
}

} // namespace shim
