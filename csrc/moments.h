// The moments op over rows of any size.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace fastaniso {

// Below this a second thread costs more than it brings: one reads it in under a millisecond, and waking another, which
// may have to wait for a core, can take as long.
constexpr int64_t kBytesForThreads = 8 << 20;

RowTotals no_rows();
void add(RowTotals& to, const RowTotals& from);

int64_t bytes_of(DType dtype);
bool computes_in_double(DType dtype);

// The mean of the first unit rows, with few digits unless the kernels compute in float64.
class UnitPivot {
 public:
  explicit UnitPivot(const Rows& rows);
  const std::vector<double>& values() const { return values_; }  // dim, padded with zeros
  const void* data() const { return narrow_.empty() ? static_cast<const void*>(values_.data()) : narrow_.data(); }

 private:
  std::vector<double> values_;
  std::vector<float> narrow_;
};

// Partial sums of a piece of the rows, zero at first.
class MomentsBuffer {
 public:
  MomentsBuffer(int64_t dim, const UnitPivot& pivot);
  MomentsPartial partial;
  void clear();

 private:
  std::vector<double> memory_;
};

// As many as `add_moments` takes turns with.
std::vector<MomentsBuffer> moments_buffers(int64_t dim, const UnitPivot& pivot, int threads);

// Σx, Σx², Σu, Σu² over all rows into sums (kSums, dim), which is overwritten.
RowTotals moments(const Rows& rows, double* sums, int threads, Interrupt& interrupt);

// Rows begin..end in fixed pieces, added to `totals` and, as Σx, Σx², Σ(u − pivot), Σ(u − pivot)², to `sums`, in order;
// fills norms (end − begin) if given.
void add_moments(const Rows& rows, int64_t begin, int64_t end, int64_t piece_rows, MomentsBuffer* buffers, int threads,
                 Interrupt& interrupt, double* sums, RowTotals& totals, double* norms);

// Turns the sums about the pivot into Σu and Σu².
void move_to_origin(double* sums, int64_t dim, const UnitPivot& pivot, int64_t kept);

}  // namespace fastaniso
