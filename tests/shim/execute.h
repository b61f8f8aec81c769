/* How a kernel runs: blocks one after another, the threads of a block as fibers that rest at barriers and at
   the collectives of their warp. What the device side of the shim's headers needs. */
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};

/* Of the thread that runs; set at every switch. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace shim {

struct warp;
struct async_copy {
    void *shared;
    const void *global;
    int size, bytes, group;
};
struct thread {
    uint3 index;
    unsigned linear, lane;
    warp *of;
    struct fiber *stack;
    const char *waits_for; /* NULL: it can run */
    int waits_line;
    int answer;                     /* of __syncthreads_or and its like */
    std::vector<async_copy> copies; /* not yet waited for */
    int copy_groups;                /* closed so far */
    bool waited;                    /* for the kernel before */
};

extern thread *current;
extern unsigned char *dynamic_shared; /* 16-byte aligned; ends exactly where it ends under AddressSanitizer */

/* Runs body, which calls the kernel, once a thread. dependent: it may begin before the kernel ahead of it has
   ended, and every thread has to wait for that one: who does not could end first, and the next kernel, which
   waits for this one alone, would no longer wait for all that was queued before it. */
void run_grid(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, bool dependent,
              const std::function<void()> &body);

/* Barrier `id` of the block for `count` threads (0: all). Gives how many came with a true predicate. */
int barrier(int id, unsigned count, bool predicate, const char *what, int line);

/* All lanes in mask meet here with the same `what`; the last to come calls compute(arguments, mask), which
   reads and writes every lane's argument (those of lanes outside the mask are NULL). */
void collective(const char *what, unsigned mask, void *argument,
                void (*compute)(void **arguments, unsigned mask));
unsigned warp_lanes(); /* mask of the lanes that the current warp has */

} // namespace shim
