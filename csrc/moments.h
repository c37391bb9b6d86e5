// The moments op over rows of any size.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace fastaniso {

RowTotals no_rows();
void add(RowTotals& to, const RowTotals& from);

int64_t bytes_of(DType dtype);
bool computes_in_double(DType dtype);

// One thread's partial sums, zero at first.
class MomentsBuffer {
 public:
  explicit MomentsBuffer(int64_t dim);
  MomentsPartial partial;
  void clear();

 private:
  std::vector<double> memory_;
};

// Σx, Σx², Σu, Σu² over all rows into sums (kSums, dim), which is overwritten.
RowTotals moments(const Rows& rows, double* sums, int threads, Interrupt& interrupt);

// Rows begin..end in fixed pieces, added to `sums` and `totals` in order; fills norms (end − begin) if given.
void add_moments(const Rows& rows, int64_t begin, int64_t end, int64_t piece_rows, MomentsBuffer* buffers, int threads,
                 Interrupt& interrupt, double* sums, RowTotals& totals, double* norms);

}  // namespace fastaniso
