// What is taken from one query's row of scores, which lies in the first-level cache and is read some four times over.
#pragma once

#include "exp.inl"
#include "median.inl"

namespace fastaniso {
namespace {

constexpr int kStretch = 16;  // pairs of vectors that are summed in T before they are added in float64

// use(x, y) for each pair of vectors of a row, flush() after each stretch of them. A row is followed by room for a
// pair.
template <class T, class Use, class Flush>
FASTANISO_INLINE void for_each_two(const T* row, int64_t count, const Use& use, const Flush& flush) {
  constexpr int width = kBytes / sizeof(T);
  for (int64_t i = 0; i < count; flush()) {
    const int64_t stop = count - i < kStretch * 2 * width ? count : i + kStretch * 2 * width;
    for (; i < stop; i += 2 * width) use(load(row + i), load(row + i + width));
  }
}

// What the vectors that hold the last scores hold beside them.
template <class T>
FASTANISO_INLINE void fill_up(T* row, int64_t count, T value) {
  constexpr int width = kBytes / sizeof(T);
  for (int v = 0; v < 2; ++v) store(row + count + v * width, typename Compute<T>::V{} + value);
}

// Adds both vectors to the total in float64, and clears them.
template <class V>
FASTANISO_INLINE void move_to(VecD& total, V (&sums)[2]) {
  for (V& sum : sums) {
    total += part_as_double(sum, 0);
    if constexpr (sizeof(sum[0]) == 4) total += part_as_double(sum, 1);
    sum = V{};
  }
}

template <class T>
struct RowSums {
  double sum = 0, square = 0;  // of the scores about a pivot
  T least, largest;
};

template <class T>
FASTANISO_INLINE RowSums<T> sum_row(T* row, int64_t count, T pivot) {
  typedef typename Compute<T>::V V;
  RowSums<T> out;
  fill_up(row, count, pivot);
  VecD total = {}, total_square = {};
  V sum[2] = {}, square[2] = {}, least[2] = {V{} + pivot, V{} + pivot}, largest[2] = {V{} + pivot, V{} + pivot};
  for_each_two(
      row, count,
      [&](V x, V y) {
        const V both[2] = {x, y};
        for (int v = 0; v < 2; ++v) {
          const V d = both[v] - pivot;
          sum[v] += d;
          square[v] += d * d;
          least[v] = both[v] < least[v] ? both[v] : least[v];
          largest[v] = both[v] > largest[v] ? both[v] : largest[v];
        }
      },
      [&] {
        move_to(total, sum);
        move_to(total_square, square);
      });
  out.sum = lane_sum(total);
  out.square = lane_sum(total_square);
  out.least = lane_least(least[0] < least[1] ? least[0] : least[1]);
  out.largest = -lane_least(largest[0] > largest[1] ? -largest[0] : -largest[1]);
  return out;
}

// A row whose squares left the range of T: summed in float64; false if a score is NaN or infinite.
template <class T>
__attribute__((noinline)) bool settle_row(const T* row, int64_t count, double pivot, RowSums<T>& sums) {
  sums.sum = sums.square = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double score = row[i], distance = score - pivot;
    if (!(std::fabs(score) <= 1.7976931348623157e308)) return false;
    sums.sum += distance;
    sums.square += distance * distance;
  }
  return true;
}

// Bins are found a vector at a time; they wait to be counted until the next queries are multiplied.
template <class T>
FASTANISO_INLINE void find_places(const T* row, int64_t count, AttentionSums& out) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = kBytes / sizeof(T);
  typedef typename IntLanes<T>::Narrow Narrow;
  const T bins = T(out.bins), per_score = T(out.bins / (out.high - out.low)), first = T(out.low);
  const V low = V{} + T(out.low), high = V{} + T(out.high), one = V{} + 1, last = V{} + bins;
  uint16_t* const places = out.places + out.waiting;
  for (int64_t i = 0; i < count; i += width) {
    const V x = load(row + i);
    V place = (x - first) * per_score + one;
    place = place < one ? one : place;
    place = place > last ? last : place;
    place = x < low ? V{} : place;
    place = x > high ? last + one : place;
    const IntV whole = __builtin_convertvector(place, IntV);
    store(places + i, __builtin_convertvector(whole, Narrow));
  }
  out.waiting += count;
}

// e^(x − largest), 0 where that is no normal number, and how far x is below the largest.
template <class V, class T>
FASTANISO_INLINE V weight(V x, T largest, V& below) {
  const V least = V{} + least_exponent<T>();
  below = x - largest;
  below = below < least ? least : below;
  return masked(exp_in_range(below), below > least);
}

// Σ e^(x − largest) and Σ (x − largest)·e^(x − largest) of a row that is filled up with −inf.
template <class T>
FASTANISO_INLINE void sum_weights(const T* row, int64_t count, T largest, double& total, double& weighted) {
  typedef typename Compute<T>::V V;
  VecD wide = {}, wide_weighted = {};
  V sum[2] = {}, product[2] = {};
  for_each_two(
      row, count,
      [&](V x, V y) {
        const V both[2] = {x, y};
        for (int v = 0; v < 2; ++v) {
          V below;
          const V e = weight(both[v], largest, below);
          sum[v] += e;
          product[v] += below * e;
        }
      },
      [&] {
        move_to(wide, sum);
        move_to(wide_weighted, product);
      });
  total = lane_sum(wide);
  weighted = lane_sum(wide_weighted);
}

// Adds one query's row to the sums: its `count` keys from `first` on.
template <class T>
FASTANISO_INLINE void add_row(T* row, int64_t first, int64_t count, AttentionSums& out) {
  typedef typename Compute<T>::V V;
  constexpr int width = kBytes / sizeof(T);
  constexpr T infinity = T(__builtin_inf());
  const T pivot = row[count / 2];  // in the middle: the first keys' scores are often unlike all others
  RowSums<T> sums = sum_row(row, count, pivot);
  if (!(sums.square <= 1.7976931348623157e308) && !settle_row(row, count, pivot, sums)) {
    ++out.nonfinite;
    return;
  }
  if (out.bins) find_places(row, count, out);

  fill_up(row, count, -infinity);
  double total, weighted;
  sum_weights(row, count, sums.largest, total, weighted);
  const T share = T(1 / total);
  const int64_t seen = first + count < out.positions ? count : out.positions - first;  // of the first keys
  for (int64_t i = 0; i < seen; i += width) {
    V below;
    add_to(out.received + first + i, weight(load(row + i), sums.largest, below) * share);
  }
  out.visible[first < out.positions ? first : out.positions] += 1;
  out.visible[first + count < out.positions ? first + count : out.positions] -= 1;

  fill_up(row, count, infinity);
  const double number = double(count), mean = sums.sum / number, spread = sums.square - sums.sum * mean;
  const double deviation = spread > 0 ? std::sqrt(spread / number) : 0;
  T middle[2];
  middle_two(row, count, T(pivot + mean), T(deviation), sums.least, sums.largest, middle);
  const auto softmax = [&](T score) { return std::exp(double(score) - double(sums.largest)) / total; };
  double entropy = std::log(total) - weighted / total;
  entropy = entropy > 0 ? entropy : 0;
  out.rows[0] += entropy;
  out.rows[1] += count > 1 ? entropy / std::log(number) : 0;
  out.rows[2] += 1 / total;
  out.rows[3] += (softmax(middle[0]) + softmax(middle[1])) / 2;
  out.rows[4] += softmax(sums.least);

  // Chan, Golub & LeVeque: central squares of the row and of those before about the mean of both.
  const double before = double(out.scores);
  const double apart = before > 0 ? pivot + mean - out.sum / before : 0;
  out.square += (spread > 0 ? spread : 0) + apart * apart * before * number / (before + number);
  out.sum += number * pivot + sums.sum;
  if (sums.least < out.least) out.least = sums.least;
  if (sums.largest > out.largest) out.largest = sums.largest;
  out.measured += 1;
  out.lonely += count == 1;
  out.scores += count;
}

}  // namespace
}  // namespace fastaniso
