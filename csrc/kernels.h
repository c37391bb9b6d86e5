// The instruction sets built in, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "rows.h"

namespace fastaniso {

// Names this CPU can run, best first.
std::vector<std::string> available_isas();

// The table in use: the best, or the one FASTANISO_ISA names. Throws std::invalid_argument for a name that is not built
// in or that this CPU cannot run.
const Kernels& kernels();

// Changes the table in use; for tests and benchmarks.
void use_isa(const std::string& name);

}  // namespace fastaniso
