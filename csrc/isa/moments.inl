// Σx, Σx², Σu, Σu² with u = x/‖x‖ in one read: while four rows stream in for their norms, the four before them, whose
// norms are known and which are still in the first-level cache, are added to the sums.
#pragma once

#include "vec.h"

namespace fastaniso {
namespace {

constexpr int kBlock = 4;

// Sums of squares in this range lost nothing to overflow or underflow (a term under the smallest normal number is
// below 1e-10 of the least sum at any dim that fits in memory); kRowsPerFlush of the largest still add up.
template <class T>
struct SafeSquares;
template <>
struct SafeSquares<float> {
  static constexpr float low = 1e-24f, high = 1e36f;
};
template <>
struct SafeSquares<double> {
  static constexpr double low = 1e-280, high = 1e300;
};

FASTANISO_INLINE void count_norm(RowTotals& totals, double norm, double unit_squared) {
  totals.kept += 1;
  totals.norm += norm;
  totals.norm_squared += norm * norm;
  if (norm < totals.norm_min) totals.norm_min = norm;
  if (norm > totals.norm_max) totals.norm_max = norm;
  totals.unit_fourth += unit_squared * unit_squared;
}

// A row whose squares left the safe range: dropped and counted, or normed in float64 by its largest entry.
// Its terms go straight to the float64 sums (if given), because the float lanes could not hold them.
template <class S>
__attribute__((noinline)) double settle_hard_row(const S* row, int64_t dim, int64_t index, RowTotals& totals,
                                                 double* sums, int64_t padded) {
  double largest = 0;
  bool finite = true;
  for (int64_t k = 0; k < dim; ++k) {
    const double magnitude = std::fabs(to_double(row[k]));
    finite &= magnitude <= 1.7976931348623157e308;
    largest = magnitude > largest ? magnitude : largest;
  }
  if (!finite || largest == 0) {
    (finite ? totals.zero : totals.nonfinite) += 1;
    if (index < totals.first_invalid) totals.first_invalid = index;
    return 0;
  }
  double squares = 0;
  for (int64_t k = 0; k < dim; ++k) {
    const double scaled = to_double(row[k]) / largest;
    squares += scaled * scaled;
  }
  const double root = std::sqrt(squares);
  count_norm(totals, largest * root, 1.0);
  if (sums) {
    for (int64_t k = 0; k < dim; ++k) {
      const double x = to_double(row[k]), u = x / largest / root;
      sums[k] += x;
      sums[padded + k] += x * x;
      sums[2 * padded + k] += u;
      sums[3 * padded + k] += u * u;
    }
  }
  return largest * root;
}

// One vector of the sums: adds the ready rows' terms.
template <class T, class V>
FASTANISO_INLINE void add_terms(T* lanes, const V (&x)[kBlock], const T (&scale)[kBlock]) {
  constexpr int width = sizeof(V) / sizeof(T);
  V sum = load(lanes), square = load(lanes + width), unit = load(lanes + 2 * width), unit_square = load(lanes + 3 * width);
  for (int r = 0; r < kBlock; ++r) {
    const V u = x[r] * scale[r];
    sum += x[r];
    square += x[r] * x[r];
    unit += u;
    unit_square += u * u;
  }
  store(lanes, sum);
  store(lanes + width, square);
  store(lanes + 2 * width, unit);
  store(lanes + 3 * width, unit_square);
}

template <class S, class T = typename Compute<S>::T>
FASTANISO_INLINE void add_ready_and_square_next(const S* const (&ready)[kBlock], const T (&scale)[kBlock],
                                                const S* const (&next)[kBlock], T (&squares)[kBlock], int64_t dim,
                                                int64_t ahead, T* lanes) {
  typedef typename Compute<S>::V V;
  constexpr int width = sizeof(V) / sizeof(T);
  V norm[kBlock] = {}, x[kBlock];
  int64_t k = 0;
  for (; k + width <= dim; k += width, lanes += kSums * width) {
    for (int r = 0; r < kBlock; ++r) {
      __builtin_prefetch(reinterpret_cast<const char*>(next[r] + k) + ahead);
      const V y = load(next[r] + k);
      norm[r] += y * y;
      x[r] = load(ready[r] + k);
    }
    add_terms<T, V>(lanes, x, scale);
  }
  if (k < dim) {
    for (int r = 0; r < kBlock; ++r) {
      const V y = load_first(next[r] + k, dim - k);
      norm[r] += y * y;
      x[r] = load_first(ready[r] + k, dim - k);
    }
    add_terms<T, V>(lanes, x, scale);
  }
  for (int r = 0; r < kBlock; ++r) squares[r] = lane_sum(norm[r]);
}

template <class T>
void flush_lanes(T* lanes, double* sums, int64_t padded, int64_t dim) {
  constexpr int width = kBytes / sizeof(T);
  for (int64_t k = 0; k < dim; k += width) {
    for (int s = 0; s < kSums; ++s, lanes += width) {
      for (int lane = 0; lane < width; ++lane) sums[s * padded + k + lane] += lanes[lane];
      for (int lane = 0; lane < width; ++lane) lanes[lane] = 0;
    }
  }
}

template <class S>
void moments(const Rows& rows, int64_t begin, int64_t end, MomentsPartial& out, double* norms) {
  typedef typename Compute<S>::T T;
  const S* const nothing = static_cast<const S*>(out.zero_row);
  T* const lanes = static_cast<T*>(out.lanes);
  const S *ready[kBlock] = {nothing, nothing, nothing, nothing}, *next[kBlock];
  T scale[kBlock] = {}, squares[kBlock];
  int64_t index[kBlock];
  int rows_in_lanes = 0;

  for (Cursor at = cursor_at(rows, begin);;) {
    int count = 0;
    for (; count < kBlock && at.index < end; advance(rows, at)) {
      if (rows.mask && !rows.mask[at.index]) {
        out.totals.masked += 1;
        if (norms) norms[at.index - begin] = 0;
        continue;
      }
      next[count] = reinterpret_cast<const S*>(at.row);
      index[count++] = at.index;
    }
    for (int r = count; r < kBlock; ++r) next[r] = nothing;
    add_ready_and_square_next<S>(ready, scale, next, squares, rows.dim, kBlock * rows.inner_stride, lanes);
    if ((rows_in_lanes += kBlock) == kRowsPerFlush || count == 0) {
      flush_lanes(lanes, out.sums, out.padded, rows.dim);
      rows_in_lanes = 0;
    }
    if (count == 0) return;

    for (int r = 0; r < kBlock; ++r) {
      ready[r] = nothing;
      scale[r] = 0;
      if (r >= count) continue;
      double norm;
      if (squares[r] >= SafeSquares<T>::low && squares[r] <= SafeSquares<T>::high) {
        norm = std::sqrt(double(squares[r]));
        ready[r] = next[r];
        scale[r] = T(1 / norm);
        count_norm(out.totals, norm, squares[r] * double(scale[r]) * scale[r]);
      } else {
        norm = settle_hard_row(next[r], rows.dim, index[r], out.totals, out.sums, out.padded);
      }
      if (norms) norms[index[r] - begin] = norm;
    }
  }
}

}  // namespace
}  // namespace fastaniso
