// The moments op over rows of any size.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels.h"
#include "parallel.h"

namespace fastaniso {

RowTotals no_rows();
void add(RowTotals& to, const RowTotals& from);

int64_t bytes_of(DType dtype);
bool computes_in_double(DType dtype);

// Memory of one thread's partial sums, zeroed.
class MomentsBuffer {
 public:
  MomentsBuffer(const Rows& rows);
  MomentsPartial partial;
  void clear();

 private:
  std::unique_ptr<char[]> memory_;
  int64_t bytes_;
};

// Σx, Σx², Σu, Σu² over all rows into sums (kSums, dim), which is overwritten.
RowTotals moments(const Rows& rows, double* sums, int threads, Interrupt& interrupt);

// Rows begin..end in fixed pieces, added to `sums` and `totals` in order; fills norms (end − begin) if given.
void add_moments(const Rows& rows, int64_t begin, int64_t end, int64_t piece_rows, MomentsBuffer* buffers, int threads,
                 Interrupt& interrupt, double* sums, RowTotals& totals, double* norms);

}  // namespace fastaniso
