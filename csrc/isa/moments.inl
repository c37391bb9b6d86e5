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

// Asks for the address of each page of a row that is read soon. To look it up takes about as long as the page's numbers
// do, longer in a virtual machine, and fetches of a page whose address is not known yet fetch nothing.
FASTANISO_INLINE void look_up_pages(const char* row, int64_t bytes) {
  constexpr int64_t page = 4096;
  for (int64_t at = 0; at < bytes; at += page) __builtin_prefetch(row + at, 0, 1);
}

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
    look_up_pages(at.row, rows.dim * int64_t(sizeof(S)));
  }
}

template <class S>
FASTANISO_INLINE typename Compute<S>::T sum_of_squares(const S* row, int64_t dim) {
  typedef typename Compute<S>::V V;
  constexpr int width = sizeof(V) / sizeof(typename Compute<S>::T);
  V sums[kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * width <= dim; k += kUnroll * width) {
    for (int i = 0; i < kUnroll; i += 2) {
      V x[2];
      load_pair(row + k + i * width, x[0], x[1]);
      sums[i] += x[0] * x[0];
      sums[i + 1] += x[1] * x[1];
    }
  }
  for (; k < dim; k += width) {
    const V x = dim - k < width ? load_first(row + k, dim - k) : load(row + k);
    sums[0] += x * x;
  }
  return lane_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Fetches columns of a row of the next tile. Where the numbers are wide, only one line of each aligned pair: the rows
// take longer to come than to compute, and more requests fill the queue that the loads of the present tile need, too.
// Where 16-bit numbers come in pieces of less than a line, they take longer to compute than to come by themselves.
template <int COLUMNS, class S>
FASTANISO_INLINE void fetch_columns(const S* row, int64_t k) {
  constexpr int bytes = sizeof(S) > 2 ? 128 : 64, step = bytes / sizeof(S);
  if constexpr (sizeof(S) > 2 || COLUMNS >= step)
    for (int p = 0; p < COLUMNS; p += step)
      if (COLUMNS % step == 0 || k % step == 0)
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(row + k + p) & -bytes), 0, 2);
}

// Rows summed in float32 before they go to float64: few enough that float32 rows err less than the pairwise sums of
// torch do; 16-bit rows have more to spare. Σu goes sooner: near a mean of zero its rounding is the error of the mean.
template <class S>
constexpr int rows_in_float() {
  return sizeof(S) == 4 ? 32 : kTileRows;
}
template <class S>
constexpr int units_in_float() {
  return sizeof(S) == 4 ? 8 : sizeof(S) == 2 ? 32 : kTileRows;
}

// The sums of one vector of columns. Two rows are added to each other before they are added to the sums: no more
// additions, but only half of them round at the size of the sums.
template <class V>
struct ColumnSums {
  V sum = {}, square = {}, unit = {}, unit_square = {};

  template <class T>
  FASTANISO_INLINE void add(V x, T scale, V pivot) {
    const V u = x * scale - pivot;
    sum += x;
    unit += u;
    add_squares(x, u);
  }
  template <class T>
  FASTANISO_INLINE void add_two(const V (&x)[2], const T* scale, V pivot) {
    const V u[2] = {x[0] * scale[0] - pivot, x[1] * scale[1] - pivot};
    sum += x[0] + x[1];
    unit += u[0] + u[1];
    for (int r = 0; r < 2; ++r) add_squares(x[r], u[r]);
  }

 private:
  FASTANISO_INLINE void add_squares(V x, V u) {
    square += x * x;
    unit_square += u * u;
  }
};

// Calls add_two(r) or add(r) for the rows of a tile, and flush() and flush_units() each time the sums have taken as
// many as float32 should hold.
template <class S, class AddTwo, class Add, class FlushUnits, class Flush>
FASTANISO_INLINE void down_the_rows(int count, const AddTwo& add_two, const Add& add, const FlushUnits& flush_units,
                                    const Flush& flush) {
  constexpr int run = rows_in_float<S>(), units = units_in_float<S>();
  for (int r = 0; r < count; flush()) {
    const int last = r + run < count ? r + run : count;
    for (; r < last; flush_units()) {
      const int stop = r + units < last ? r + units : last;
      for (; r + 1 < stop; r += 2) add_two(r);
      if (r < stop) add(r++);
    }
  }
}

// Adds PAIRS pairs of vectors of columns to the float64 sums, and fetches the same columns of the next tile.
template <int PAIRS, class S, class T>
FASTANISO_INLINE void add_columns(const Tile<S>& tile, const T* scale, const Tile<S>& next, int64_t k,
                                  MomentsPartial& out) {
  typedef typename Compute<S>::V V;
  constexpr int width = sizeof(V) / sizeof(T);
  ColumnSums<V> sums[PAIRS][2];
  V pivot[PAIRS][2];
  for (int p = 0; p < PAIRS; ++p)
    load_like_pair<S>(static_cast<const T*>(out.pivot) + k + 2 * p * width, pivot[p][0], pivot[p][1]);
  down_the_rows<S>(
      tile.count,
      [&](int r) {
        for (int i = 0; i < 2; ++i) fetch_columns<2 * PAIRS * width>(next.rows[r + i], k);
        for (int p = 0; p < PAIRS; ++p) {
          V x[2][2];
          for (int i = 0; i < 2; ++i) load_pair(tile.rows[r + i] + k + 2 * p * width, x[0][i], x[1][i]);
          for (int i = 0; i < 2; ++i) sums[p][i].add_two(x[i], scale + r, pivot[p][i]);
        }
      },
      [&](int r) {
        fetch_columns<2 * PAIRS * width>(next.rows[r], k);
        for (int p = 0; p < PAIRS; ++p) {
          V x[2];
          load_pair(tile.rows[r] + k + 2 * p * width, x[0], x[1]);
          for (int i = 0; i < 2; ++i) sums[p][i].add(x[i], scale[r], pivot[p][i]);
        }
      },
      [&] {
        for (int p = 0; p < PAIRS; ++p) {
          add_pair<S>(out.sums + 2 * out.padded + k + 2 * p * width, sums[p][0].unit, sums[p][1].unit);
          sums[p][0].unit = sums[p][1].unit = V{};
        }
      },
      [&] {
        for (int p = 0; p < PAIRS; ++p) {
          double* to = out.sums + k + 2 * p * width;
          add_pair<S>(to, sums[p][0].sum, sums[p][1].sum);
          add_pair<S>(to + out.padded, sums[p][0].square, sums[p][1].square);
          add_pair<S>(to + 3 * out.padded, sums[p][0].unit_square, sums[p][1].unit_square);
          sums[p][0] = sums[p][1] = {};
        }
      });
}

// The same for the last columns, at most one vector of them at a time.
template <class S, class T>
FASTANISO_INLINE void add_last_columns(const Tile<S>& tile, const T* scale, int64_t k, int64_t left,
                                       MomentsPartial& out) {
  typedef typename Compute<S>::V V;
  ColumnSums<V> sums;
  const V pivot = load(static_cast<const T*>(out.pivot) + k);
  down_the_rows<S>(
      tile.count,
      [&](int r) {
        const V x[2] = {load_first(tile.rows[r] + k, left), load_first(tile.rows[r + 1] + k, left)};
        sums.add_two(x, scale + r, pivot);
      },
      [&](int r) { sums.add(load_first(tile.rows[r] + k, left), scale[r], pivot); },
      [&] {
        add_to(out.sums + 2 * out.padded + k, sums.unit);
        sums.unit = V{};
      },
      [&] {
        add_to(out.sums + k, sums.sum);
        add_to(out.sums + out.padded + k, sums.square);
        add_to(out.sums + 3 * out.padded + k, sums.unit_square);
        sums = {};
      });
}

template <class S>
void moments(const Rows& rows, int64_t begin, int64_t end, MomentsPartial& out, double* norms) {
  typedef typename Compute<S>::T T;
  // Four sums and a pivot a vector: what the registers hold.
  constexpr int width = kBytes / sizeof(T), pairs = kBytes == 32 ? 1 : 2;
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

    // Norms in a loop of their own, so that the rows' roots are taken at once and not each after its own sum.
    T squares[kTileRows];
    for (int r = 0; r < tile.count; ++r) squares[r] = sum_of_squares(tile.rows[r], rows.dim);
    int kept = 0;
    for (int r = 0; r < tile.count; ++r) {
      double norm;
      if (squares[r] >= SafeSquares<T>::low && squares[r] <= SafeSquares<T>::high) {
        norm = std::sqrt(double(squares[r]));
        scale[kept] = T(1 / norm);
        count_norm(out.totals, norm, squares[r] * double(scale[kept]) * scale[kept]);
        tile.rows[kept++] = tile.rows[r];
      } else {
        norm = settle_hard_row(tile.rows[r], rows.dim, tile.index[r], out.totals, &out);
      }
      if (norms) norms[tile.index[r] - begin] = norm;
    }
    tile.count = kept;

    int64_t k = 0;
    for (; k + 2 * pairs * width <= rows.dim; k += 2 * pairs * width) add_columns<pairs>(tile, scale, next, k, out);
    for (; k < rows.dim; k += width) add_last_columns(tile, scale, k, rows.dim - k < width ? rows.dim - k : width, out);
  }
}

}  // namespace
}  // namespace fastaniso
