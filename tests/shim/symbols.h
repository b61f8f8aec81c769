/* What the program's own symbol table tells: the names of kernels, and where static shared memory lies. */
#pragma once

#include <string>

namespace shim {

/* The function's name without its parameters; its address where the program was stripped. */
std::string kernel_name_of(const void *function);

/* Fills every variable declared __shared__ with a pattern that reads as a NaN. They are the zero-initialised
   static variables within C++ functions: code beside kernels keeps no such state, launchers neither. */
void spoil_static_shared();

} // namespace shim
