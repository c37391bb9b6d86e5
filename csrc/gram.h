// The gram op over rows of any size.
#pragma once

#include "moments.h"

namespace fastaniso {

// Rows packed at a time: long enough that adding a tile to float64 costs a few percent, short enough for the cache.
constexpr int64_t kGramRows = 1024;

// Moments as in `moments`, and the central scatters Σ(x − x̄)(x − x̄)ᵀ and Σ(u − ū)(u − ū)ᵀ (dim, dim); all that is
// given is overwritten, a null scatter is not computed.
RowTotals gram(const Rows& rows, double* sums, double* scatter, double* unit_scatter, int threads,
               Interrupt& interrupt);

}  // namespace fastaniso
