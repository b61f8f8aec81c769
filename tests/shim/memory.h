/* The shim's device memory: one arena of address space whose pages the host cannot touch but while the device
   works. No address is ever given out twice. */
#pragma once

#include <cstddef>

namespace shim {

void *arena_alloc(size_t bytes); /* 256-byte aligned, filled with 0xff; NULL when the device has no more */
void arena_free(void *pointer);  /* fails on what arena_alloc did not give */
bool arena_holds(const void *pointer);
/* Fails unless [pointer, pointer + bytes) lies within one live allocation. */
void arena_check(const void *pointer, size_t bytes, const char *what);
void arena_open(); /* the device begins to work; calls nest */
void arena_close();
size_t arena_allocated_bytes();
int arena_allocations();

} // namespace shim
