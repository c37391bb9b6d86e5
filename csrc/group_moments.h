// The group_moments op over rows of any size.
#pragma once

#include "moments.h"

namespace fastaniso {

// Counts (G), unit sums (G, dim) and Σ‖u‖² (G) by group; all are overwritten. Rows of a group outside 0..G−1 are left
// out and counted in `outside`.
RowTotals group_moments(const Rows& rows, const int64_t* groups, int64_t num_groups, int64_t* counts, double* unit_sum,
                        double* unit_squared, int64_t* outside, int threads, Interrupt& interrupt);

}  // namespace fastaniso
