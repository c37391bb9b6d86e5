// Histogram, moments, extrema and the like of a block's cosines, tile by tile.
#pragma once

#include "exp.inl"
#include "lanes.inl"
#include "pair_tiles.inl"

namespace fastaniso {
namespace {

// use(vector, keep) for each vector of the values; keep is all ones in lanes that hold one.
template <class T, class Use>
FASTANISO_INLINE void for_each_vector(const T* values, int count, const Use& use) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = sizeof(V) / sizeof(T);
  int i = 0;
  for (; i + width <= count; i += width) use(load(values + i), ~IntV{});
  if (i == count) return;
  IntV keep;
  for (int lane = 0; lane < width; ++lane) keep[lane] = i + lane < count ? -1 : 0;
  use(load(values + i), keep);
}

FASTANISO_INLINE VecF magnitude(VecF v) { return bits_as<VecF>(bits_as<VecU32>(v) & 0x7fffffffu); }
FASTANISO_INLINE VecD magnitude(VecD v) { return v < 0 ? -v : v; }

// Bins of the last tile, counted one by one while the next tile's product keeps the vector units busy.
template <class T>
struct PendingBins {
  uint16_t bins[tile_pairs<T>()];
  int64_t count = 0;
  uint32_t* histogram;

  FASTANISO_INLINE void count_one(int64_t at) const { ++histogram[bins[at] * kHistograms + at % kHistograms]; }
  void count_from(int64_t at) const {
    for (; at < count; ++at) count_one(at);
  }
};

template <class T>
FASTANISO_INLINE void find_bins(const T* cosines, int count, int64_t number, PendingBins<T>& pending) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = sizeof(V) / sizeof(T);
  typedef typename IntLanes<T>::Narrow Narrow;
  const T half = T(number) / 2;
  for (int i = 0; i < count; i += width) {
    const IntV bin = __builtin_convertvector(load(cosines + i) * half + half, IntV);
    store(pending.bins + i, __builtin_convertvector(bin, Narrow));
  }
  pending.count = count;
}

template <class T>
FASTANISO_INLINE void add_powers(const T* cosines, int count, PairSums& out) {
  typedef typename Compute<T>::V V;
  V sums[5] = {};
  const T pivot = T(out.pivot);
  for_each_vector(cosines, count, [&](V c, auto keep) {
    const V t = masked(c - pivot, keep), squared = t * t;
    sums[0] += t;
    sums[1] += squared;
    sums[2] += squared * t;
    sums[3] += squared * squared;
    sums[4] += magnitude(masked(c, keep));
  });
  for (int p = 0; p < 5; ++p) {
    VecD wide = part_as_double(sums[p], 0);
    if (sizeof(T) == 4) wide += part_as_double(sums[p], 1);
    out.powers[p] += lane_sum(wide);
  }
}

template <class T>
FASTANISO_INLINE void add_exponentials(const T* cosines, int count, PairSums& out) {
  typedef typename Compute<T>::V V;
  for (int64_t e = 0; e < out.exponents; ++e) {
    const T rate = T(2 * out.uniformity_t[e]);
    V sum = {};
    for_each_vector(cosines, count, [&](V c, auto keep) { sum += masked(exp_of_negative((c - T(1)) * rate), keep); });
    out.exponentials[e] += to_double(lane_sum(sum));
  }
}

template <class T>
FASTANISO_INLINE void count_above(const T* cosines, int count, PairSums& out) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  for (int64_t t = 0; t < out.thresholds; ++t) {
    const V threshold = V{} + T(out.threshold[t]);
    IntV sum = {};
    for_each_vector(cosines, count, [&](V c, auto keep) { sum -= (c > threshold) & keep; });
    out.above[t] += lane_sum(sum);
  }
}

// Of equal cosines the first in order of (row, other) is kept.
FASTANISO_INLINE bool comes_first(int64_t row, int64_t other, const Extreme& than) {
  return row < than.row || (row == than.row && other < than.other);
}

template <class T>
__attribute__((noinline)) void settle_extrema(const CosineTile<T>& tile, PairSums& out) {
  for (int r = 0; r < tile_rows<T>(); ++r) {
    for (int o = 0; o < panel_width<T>(); ++o) {
      if (!tile.is_pair(r, o)) continue;
      const double c = tile.cosines[r * panel_width<T>() + o];
      const int64_t row = tile.row + r, other = tile.other + o;
      if (c < out.least.value || (c == out.least.value && comes_first(row, other, out.least)))
        out.least = {c, row, other};
      if (c > out.largest.value || (c == out.largest.value && comes_first(row, other, out.largest)))
        out.largest = {c, row, other};
    }
  }
}

// Looks closer only where a cosine beats an extreme, or equals one and may come before it.
template <class T>
FASTANISO_INLINE void find_extrema(const CosineTile<T>& tile, const T* cosines, int count, PairSums& out) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  const V least = V{} + T(out.least.value), largest = V{} + T(out.largest.value);
  IntV beats = {}, equals = {};
  for_each_vector(cosines, count, [&](V c, auto keep) {
    beats |= ((c < least) | (c > largest)) & keep;
    equals |= ((c == least) | (c == largest)) & keep;
  });
  const bool may_come_first = tile.row <= out.least.row || tile.row <= out.largest.row;
  if (any(beats) || (may_come_first && any(equals))) settle_extrema(tile, out);
}

template <class T>
void pairs(const PairBlock& block, PairSums& out) {
  constexpr int panel = panel_width<T>(), vector = kBytes / int(sizeof(T));
  PendingBins<T> pending;
  pending.histogram = out.histogram;
  alignas(64) T compact[tile_pairs<T>() + vector];
  for_each_tile<T>(
      block,
      [&](int64_t k) {
        if (k < pending.count) pending.count_one(k);
      },
      [&](const CosineTile<T>& tile) {
        pending.count_from(block.dim);
        const T* cosines = tile.cosines;
        int count = tile_pairs<T>();
        if (!tile.whole) {
          count = 0;
          for (int r = 0; r < tile_rows<T>(); ++r)
            for (int o = 0; o < panel; ++o)
              if (tile.is_pair(r, o)) compact[count++] = tile.cosines[r * panel + o];
          for (int lane = 0; lane < vector; ++lane) compact[count + lane] = 0;
          cosines = compact;
        }
        if (out.bins) find_bins(cosines, count, out.bins, pending);
        if (out.moments) add_powers(cosines, count, out);
        add_exponentials(cosines, count, out);
        count_above(cosines, count, out);
        if (out.extrema) find_extrema(tile, cosines, count, out);
      });
  pending.count_from(0);
}

}  // namespace
}  // namespace fastaniso
