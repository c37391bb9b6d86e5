// Σx, Σx², Σ(u − pivot), Σ(u − pivot)² with u = x/‖x‖ in one read. Rows go by tiles that stay in the second-level
// cache: first their norms, row by row; then their sums, a few columns at a time down all rows of the tile, so that the
// sums live in registers while the next tile is fetched.
#pragma once

#include "vec.h"

namespace fastaniso {
namespace {

constexpr int64_t kTileBytes = 192 << 10;
constexpr int kUnroll = 4;  // independent sums that hide the latency of an addition

// Sums of squares in this range lost nothing to overflow or underflow (a term under the smallest normal number is
// below 1e-10 of the least sum at any dim that fits in memory); kTileRows of the largest still add up.
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
                                                 MomentsPartial* out) {
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
  if (out) {
    const auto* pivot = static_cast<const typename Compute<S>::T*>(out->pivot);
    for (int64_t k = 0; k < dim; ++k) {
      const double x = to_double(row[k]), u = x / largest / root - pivot[k];
      const double terms[kSums] = {x, x * x, u, u * u};
      for (int s = 0; s < kSums; ++s) out->sums[s * out->padded + k] += terms[s];
    }
  }
  return largest * root;
}

// Where a tile's rows are, and where in the source.
template <class S>
struct Tile {
  const S* rows[kTileRows];
  int64_t index[kTileRows];
  int count;
};

// The next rows that are not masked, at most `limit`.
template <class S>
void take_rows(const Rows& rows, Cursor& at, int64_t begin, int64_t end, int limit, Tile<S>& tile, RowTotals& totals,
               double* norms) {
  for (tile.count = 0; tile.count < limit && at.index < end; advance(rows, at)) {
    if (rows.mask && !rows.mask[at.index]) {
      totals.masked += 1;
      if (norms) norms[at.index - begin] = 0;
      continue;
    }
    tile.rows[tile.count] = reinterpret_cast<const S*>(at.row);
    tile.index[tile.count++] = at.index;
  }
}

template <class S>
FASTANISO_INLINE typename Compute<S>::T sum_of_squares(const S* row, int64_t dim) {
  typedef typename Compute<S>::V V;
  constexpr int width = sizeof(V) / sizeof(typename Compute<S>::T);
  V sums[kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * width <= dim; k += kUnroll * width) {
    for (int i = 0; i < kUnroll; ++i) {
      const V x = load(row + k + i * width);
      sums[i] += x * x;
    }
  }
  for (; k < dim; k += width) {
    const V x = dim - k < width ? load_first(row + k, dim - k) : load(row + k);
    sums[0] += x * x;
  }
  return lane_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Rows summed in float32 before they go to float64: few enough that float32 rows err less than the pairwise sums of
// torch do; 16-bit rows have more to spare.
template <class S>
constexpr int rows_in_float() {
  return sizeof(S) == 2 ? kTileRows : 32;
}

// Adds VECTORS vectors of columns of all rows to the float64 sums; with LAST, one vector of the `left` last columns.
template <int VECTORS, bool LAST, class S, class T>
FASTANISO_INLINE void add_columns(const Tile<S>& tile, const T* scale, const Tile<S>& next, int64_t k, int64_t left,
                                  MomentsPartial& out) {
  typedef typename Compute<S>::V V;
  // A fetch for every second line of 32-bit rows, whose neighbour comes along, and for every line of 16-bit rows: more
  // fill the queue that the loads of this tile need, too.
  constexpr int width = sizeof(V) / sizeof(T), fetch = sizeof(S) == 2 ? 32 : 128 / sizeof(S);
  constexpr int run = rows_in_float<S>();
  V pivot[VECTORS];
  for (int v = 0; v < VECTORS; ++v) pivot[v] = load(static_cast<const T*>(out.pivot) + k + v * width);
  for (int r = 0; r < tile.count;) {
    V sum[kSums][VECTORS] = {};
    for (const int stop = r + run < tile.count ? r + run : tile.count; r < stop; ++r) {
      for (int p = 0; p < VECTORS * width; p += width)
        if ((k + p) % fetch == 0) __builtin_prefetch(next.rows[r] + k + p, 0, 2);
      for (int v = 0; v < VECTORS; ++v) {
        const S* from = tile.rows[r] + k + v * width;
        const V x = LAST ? load_first(from, left) : load(from), u = x * scale[r] - pivot[v];
        sum[0][v] += x;
        sum[1][v] += x * x;
        sum[2][v] += u;
        sum[3][v] += u * u;
      }
    }
    for (int s = 0; s < kSums; ++s)
      for (int v = 0; v < VECTORS; ++v) add_to(out.sums + s * out.padded + k + v * width, sum[s][v]);
  }
}

template <class S>
void moments(const Rows& rows, int64_t begin, int64_t end, MomentsPartial& out, double* norms) {
  typedef typename Compute<S>::T T;
  constexpr int width = kBytes / sizeof(T), vectors = kBytes == 32 ? 2 : 4;  // 4 sums a vector, within the registers
  const int64_t fitting = kTileBytes / (rows.dim * int64_t(sizeof(S)));
  const int limit = int(fitting < kLeastTileRows ? kLeastTileRows : fitting > kTileRows ? kTileRows : fitting);
  Tile<S> tiles[2];
  T scale[kTileRows];
  Cursor at = cursor_at(rows, begin);
  take_rows(rows, at, begin, end, limit, tiles[0], out.totals, norms);
  for (int now = 0; tiles[now].count; now = 1 - now) {
    Tile<S>&tile = tiles[now], &next = tiles[1 - now];
    take_rows(rows, at, begin, end, limit, next, out.totals, norms);
    for (int r = next.count; r < limit; ++r) next.rows[r] = tile.rows[0];  // to prefetch: harmless

    int kept = 0;
    for (int r = 0; r < tile.count; ++r) {
      const T squares = sum_of_squares(tile.rows[r], rows.dim);
      double norm;
      if (squares >= SafeSquares<T>::low && squares <= SafeSquares<T>::high) {
        norm = std::sqrt(double(squares));
        scale[kept] = T(1 / norm);
        count_norm(out.totals, norm, squares * double(scale[kept]) * scale[kept]);
        tile.rows[kept++] = tile.rows[r];
      } else {
        norm = settle_hard_row(tile.rows[r], rows.dim, tile.index[r], out.totals, &out);
      }
      if (norms) norms[tile.index[r] - begin] = norm;
    }
    tile.count = kept;

    int64_t k = 0;
    for (; k + vectors * width <= rows.dim; k += vectors * width)
      add_columns<vectors, false>(tile, scale, next, k, 0, out);
    for (; k + width <= rows.dim; k += width) add_columns<1, false>(tile, scale, next, k, 0, out);
    if (k < rows.dim) add_columns<1, true>(tile, scale, next, k, rows.dim - k, out);
  }
}

}  // namespace
}  // namespace fastaniso
