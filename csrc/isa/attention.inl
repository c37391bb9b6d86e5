// Attention of some queries of a head: their scores with all keys that they see, in the second-level cache, then what
// is taken from them row by row.
#pragma once

#include "attention_rows.inl"
#include "pair_tiles.inl"

namespace fastaniso {
namespace {

constexpr int kCountsAStep = 6;  // as many as the scalar units have time for beside a step of a tile's product

// Counts the places in the histogram that wait, from the first on.
struct Counting {
  const uint16_t* next;
  const uint16_t* end;
  uint32_t* histogram;

  FASTANISO_INLINE void some() {
    if (end - next < kCountsAStep) return;
    for (int c = 0; c < kCountsAStep; ++c) ++histogram[next[c] * kHistograms + c % kHistograms];
    next += kCountsAStep;
  }
  FASTANISO_INLINE void rest() {
    for (; next < end; ++next) ++histogram[*next * kHistograms + (end - next) % kHistograms];
  }
};

// Scores of one tile of queries with one panel of keys: scale·Σ_k a[k]·b[k].
template <class T>
FASTANISO_INLINE void score_tile(const T* a, const T* b, int64_t dim, T scale, T* to, int64_t stride,
                                 Counting& counting) {
  typedef typename Compute<T>::V V;
  constexpr int width = kBytes / sizeof(T), panel = panel_width<T>(), height = tile_rows<T>();
  for (int64_t k = 0; k < dim; k += kStepsInRegisters) {
    const int64_t left = dim - k, steps = left < kStepsInRegisters ? left : kStepsInRegisters;
    V sums[height][kPanelVectors] = {};
    add_products(a + k * panel, b + k * panel, steps, sums, [&](int64_t) { counting.some(); });
    for (int i = 0; i < height; ++i) {
      for (int v = 0; v < kPanelVectors; ++v) {
        T* const at = to + i * stride + v * width;
        V s = sums[i][v];
        if (k > 0) s += load(at);
        if (steps == left) s *= scale;
        store(at, s);
      }
    }
  }
}

template <class T>
void attention(const AttentionBlock& block, AttentionSums& out) {
  constexpr int panel = panel_width<T>(), height = tile_rows<T>(), tiles = int(kAttentionRows) / height;
  static_assert(kAttentionRows % height == 0 && panel % height == 0);
  // Keys that any row of a tile sees, and any of all.
  int64_t from[tiles], until[tiles], first = INT64_MAX, stop = 0;
  for (int64_t row = 0; row < block.row_count; ++row) {
    const int64_t tile = row / height;
    if (row % height == 0) {
      from[tile] = INT64_MAX;
      until[tile] = 0;
    }
    if (block.first[row] >= block.stop[row]) {
      ++out.keyless;
      continue;
    }
    from[tile] = block.first[row] < from[tile] ? block.first[row] : from[tile];
    until[tile] = block.stop[row] > until[tile] ? block.stop[row] : until[tile];
    first = from[tile] < first ? from[tile] : first;
    stop = until[tile] > stop ? until[tile] : stop;
  }
  if (first >= stop) return;
  Counting counting{out.places, out.places + out.waiting, out.histogram};

  first = first / panel * panel;
  T* const scores = static_cast<T*>(block.scores);
  const T* queries = static_cast<const T*>(block.queries);
  for (int64_t key = first; key < stop; key += panel) {
    const T* keys = static_cast<const T*>(block.keys) + key * block.dim;
    for (int64_t row = 0; row < block.row_count; row += height) {
      if (key + panel <= from[row / height] || key >= until[row / height]) continue;
      score_tile(queries + row / panel * panel * block.dim + row % panel, keys, block.dim, T(block.scale),
                 scores + row * block.stride + key - first, block.stride, counting);
    }
  }
  counting.rest();
  out.waiting = 0;
  for (int64_t row = 0; row < block.row_count; ++row) {
    const int64_t begin = block.first[row], count = block.stop[row] - begin;
    if (count > 0) add_row(scores + row * block.stride + begin - first, begin, count, out);
  }
}

template <class S>
void pack_vectors(const char* const* vectors, int64_t count, int64_t dim, void* panels) {
  typedef typename Compute<S>::T T;
  typedef typename Compute<S>::V V;
  for_each_lanes<T>(count, dim, panels, [&](int64_t first, int some, T* to) {
    pack_lanes<S>(vectors + first, some, dim, to, [](int, V x) { return x; });
  });
}

}  // namespace
}  // namespace fastaniso
