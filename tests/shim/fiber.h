/* Fibers: stacks that give way to each other when told to. The threads of a CUDA block run on them, one at a
   time, so that a kernel's barriers become switches. AddressSanitizer is told of every switch. */
#pragma once

#include <cstddef>

namespace shim {

struct fiber; /* owned by the pool, never freed */

/* A fiber from the pool that will run entry(argument) when first resumed. */
fiber *fiber_take(void (*entry)(void *), void *argument);
void fiber_give_back(fiber *f); /* it has left its entry, or is never resumed again */

/* Runs f until it calls fiber_leave or fiber_finish. Not from within a fiber. */
void fiber_resume(fiber *f);
/* Back to who resumed this fiber; returns when it is resumed again. */
void fiber_leave();
/* Back for good: the stack may be used anew. */
[[noreturn]] void fiber_finish();

} // namespace shim
