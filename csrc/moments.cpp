#include "moments.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fastaniso {

namespace {
constexpr int64_t kPieceBytes = 2 << 20;                   // long beside a merge, short beside a second
constexpr int64_t kPivotRows = 64, kRowsPerPivotRow = 16;  // few of few rows: the pivot must not cost what they do
constexpr int64_t kPivotPadding = 48;                      // the widest panel of `gram`
constexpr double kLeastPivot = 0.1;     // rows that point all ways gain nothing from one, and its own terms are rounded
constexpr double kPivotGrid = 0x1p-16;  // fine beside a unit row, coarse beside its last digit: with more digits, all
                                        // u − pivot would end in the same ones and round alike

// The nearest multiple of the grid: digits beyond it drop off the end of a double of this size. (std::nearbyint is a
// call, and a short input has as many numbers in its pivot as in its rows.)
double on_grid(double x) {
  constexpr double shift = 0x1.8p52 * kPivotGrid;
  return (x + shift) - shift;
}
}  // namespace

RowTotals no_rows() {
  constexpr double inf = std::numeric_limits<double>::infinity();
  return {0, 0, 0, 0, kNoRow, 0, 0, inf, -inf, 0};
}

void add(RowTotals& to, const RowTotals& from) {
  to.kept += from.kept;
  to.masked += from.masked;
  to.zero += from.zero;
  to.nonfinite += from.nonfinite;
  to.first_invalid = std::min(to.first_invalid, from.first_invalid);
  to.norm += from.norm;
  to.norm_squared += from.norm_squared;
  to.norm_min = std::min(to.norm_min, from.norm_min);
  to.norm_max = std::max(to.norm_max, from.norm_max);
  to.unit_fourth += from.unit_fourth;
}

int64_t bytes_of(DType dtype) {
  static constexpr int64_t bytes[kDTypes] = {4, 8, 2, 2};
  return bytes[dtype];
}

bool computes_in_double(DType dtype) { return dtype == kFloat64; }

UnitPivot::UnitPivot(const Rows& rows) : values_((rows.dim + kPivotPadding - 1) / kPivotPadding * kPivotPadding) {
  const int64_t count = rows.outer * rows.inner;
  const int64_t few = std::clamp<int64_t>(count / kRowsPerPivotRow, 1, kPivotRows);
  double norms[kPivotRows];
  const int64_t one_group[kPivotRows] = {};
  RowTotals totals = no_rows();
  for (int64_t begin = 0; begin < count && totals.kept == 0; begin += few) {
    const int64_t end = std::min(begin + few, count);
    kernels().norms[rows.dtype](rows, begin, end, totals, norms);
    if (totals.kept)
      kernels().add_units[rows.dtype](rows, begin, end, norms, one_group - begin, 0, rows.dim, values_.data());
  }
  double squared_length = 0;
  for (double& value : values_) {
    value /= std::max<int64_t>(totals.kept, 1);
    squared_length += value * value;
  }
  if (squared_length < kLeastPivot) std::fill(values_.begin(), values_.end(), 0.0);
  if (computes_in_double(rows.dtype)) return;
  narrow_.resize(values_.size());
  for (size_t k = 0; k < values_.size(); ++k) values_[k] = narrow_[k] = float(on_grid(values_[k]));
}

MomentsBuffer::MomentsBuffer(int64_t dim, const UnitPivot& pivot) {
  const int64_t padded = (dim + kPadding - 1) / kPadding * kPadding;
  memory_.assign(kSums * padded, 0.0);
  partial = {padded, memory_.data(), pivot.data(), no_rows()};
}

std::vector<MomentsBuffer> moments_buffers(int64_t dim, const UnitPivot& pivot, int threads) {
  std::vector<MomentsBuffer> buffers;
  for (int64_t i = 0; i < partials_for(threads); ++i) buffers.emplace_back(dim, pivot);
  return buffers;
}

void MomentsBuffer::clear() {
  std::fill(memory_.begin(), memory_.end(), 0.0);
  partial.totals = no_rows();
}

void add_moments(const Rows& rows, int64_t begin, int64_t end, int64_t piece_rows, MomentsBuffer* buffers, int threads,
                 Interrupt& interrupt, double* sums, RowTotals& totals, double* norms) {
  const auto kernel = kernels().moments[rows.dtype];
  reduce_in_order((end - begin + piece_rows - 1) / piece_rows, threads, interrupt,
                  [&](int64_t piece, int64_t buffer, int) {
                    const int64_t from = begin + piece * piece_rows, to = std::min(from + piece_rows, end);
                    kernel(rows, from, to, buffers[buffer].partial, norms ? norms + (from - begin) : nullptr);
                  },
                  [&](int64_t, int64_t buffer) {
                    MomentsPartial& part = buffers[buffer].partial;
                    for (int s = 0; s < kSums; ++s)
                      for (int64_t k = 0; k < rows.dim; ++k) sums[s * rows.dim + k] += part.sums[s * part.padded + k];
                    add(totals, part.totals);
                    buffers[buffer].clear();
                  });
}

RowTotals moments(const Rows& rows, double* sums, int threads, Interrupt& interrupt) {
  const int64_t count = rows.outer * rows.inner, row_bytes = rows.dim * bytes_of(rows.dtype);
  const int64_t piece_rows = std::max<int64_t>(kPieceBytes / row_bytes / kTileRows, 1) * kTileRows;
  if (count * row_bytes < kBytesForThreads) threads = 1;
  threads = int(std::min<int64_t>(threads, count / piece_rows + 1));
  const UnitPivot pivot(rows);
  std::vector<MomentsBuffer> buffers = moments_buffers(rows.dim, pivot, threads);
  std::fill_n(sums, kSums * rows.dim, 0.0);
  RowTotals totals = no_rows();
  add_moments(rows, 0, count, piece_rows, buffers.data(), threads, interrupt, sums, totals, nullptr);
  move_to_origin(sums, rows.dim, pivot, totals.kept);
  return totals;
}

void move_to_origin(double* sums, int64_t dim, const UnitPivot& pivot, int64_t kept) {
  double *unit = sums + 2 * dim, *unit_squared = sums + 3 * dim;
  for (int64_t k = 0; k < dim; ++k) {
    const double p = pivot.values()[k];
    unit_squared[k] += p * (2 * unit[k] + kept * p);
    unit[k] += kept * p;
  }
}

}  // namespace fastaniso
