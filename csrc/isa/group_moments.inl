// Σu by group in two steps over a block of rows that stays in cache: norms by row, then sums by column, so that threads
// share out columns and every group adds its rows in their order.
#pragma once

#include "moments.inl"

namespace fastaniso {
namespace {

template <class S>
void row_norms(const Rows& rows, int64_t begin, int64_t end, RowTotals& totals, double* norms) {
  typedef typename Compute<S>::T T;
  for (Cursor at = cursor_at(rows, begin); at.index < end; advance(rows, at)) {
    double& norm = norms[at.index - begin];
    norm = 0;
    if (rows.mask && !rows.mask[at.index]) {
      totals.masked += 1;
      continue;
    }
    const S* row = reinterpret_cast<const S*>(at.row);
    const T squares = sum_of_squares(row, rows.dim);
    if (squares >= SafeSquares<T>::low && squares <= SafeSquares<T>::high) {
      norm = std::sqrt(double(squares));
      count_norm(totals, norm, 1.0);
    } else {
      norm = settle_hard_row(row, rows.dim, at.index, totals, nullptr);
    }
  }
}

template <class S>
void add_units(const Rows& rows, int64_t begin, int64_t end, const double* norms, const int64_t* groups,
               int64_t column_begin, int64_t column_end, double* unit_sum) {
  constexpr int width = kBytes / sizeof(typename Compute<S>::T), lanes = kBytes / 8;
  for (Cursor at = cursor_at(rows, begin); at.index < end; advance(rows, at)) {
    const double norm = norms[at.index - begin];
    if (norm == 0) continue;
    const S* row = reinterpret_cast<const S*>(at.row);
    double* sum = unit_sum + groups[at.index] * rows.dim;
    const double inverse = 1 / norm;
    if (!(inverse < 1e300)) {  // a subnormal norm: only the quotient stays finite
      for (int64_t k = column_begin; k < column_end; ++k) sum[k] += to_double(row[k]) / norm;
      continue;
    }
    int64_t k = column_begin;
    for (; k + width <= column_end; k += width) {
      const auto x = load(row + k);
      for (int part = 0; part < width / lanes; ++part) {
        double* to = sum + k + part * lanes;
        store(to, load(to) + part_as_double(x, part) * inverse);
      }
    }
    for (; k < column_end; ++k) sum[k] += to_double(row[k]) * inverse;
  }
}

}  // namespace
}  // namespace fastaniso
