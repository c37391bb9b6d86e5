// The product that gram, pairs and neighbors share: a tile of a panel against another panel, in registers.
#pragma once

#include "vec.h"

namespace fastaniso {
namespace {

constexpr int kPanelVectors = 3;

// Rows of accumulators: with kPanelVectors each they leave registers for one row of B and a broadcast, and they divide
// the panel's width.
template <class T>
constexpr int tile_rows() {
#if FASTANISO_VECTOR_BYTES == 64
  return 8;
#elif FASTANISO_VECTOR_BYTES == 32
  return 4;
#elif defined(__ARM_NEON)
  return 6;
#else
  return sizeof(T) == 4 ? 4 : 3;
#endif
}

template <class T>
constexpr int panel_width() {
  return kPanelVectors * kBytes / int(sizeof(T));
}

// sums[i][v] += Σ_k a[k][i]·b[k][v] for one tile: the columns a..a + tile_rows of a panel against VECTORS vectors of
// columns of another, from b on. meanwhile(k) is done on the side, for what the scalar units of a core have time for.
template <int VECTORS, class T, class V, class Meanwhile>
FASTANISO_INLINE void add_products(const T* a, const T* b, int64_t steps, V (&sums)[tile_rows<T>()][VECTORS],
                                   const Meanwhile& meanwhile) {
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>(), height = tile_rows<T>();
  for (int64_t k = 0; k < steps; ++k, a += panel, b += panel) {
    V column[VECTORS];
    for (int p = 0; p < panel; p += 64 / int(sizeof(T))) __builtin_prefetch(b + 16 * panel + p);
    for (int v = 0; v < VECTORS; ++v) column[v] = load(b + v * width);
    for (int i = 0; i < height; ++i)
      for (int v = 0; v < VECTORS; ++v) sums[i][v] += a[i] * column[v];
    meanwhile(k);
  }
}

// 1/‖x‖ with the squares summed in float64: in float32 each row's error would be its own, and rows that differ by less
// than that from each other would seem to differ by it. 0 where the squares might leave the range.
template <class S>
FASTANISO_INLINE double exact_inverse_norm(const S* row, int64_t dim, double norm) {
  if (!(norm > 1e-30 && norm < 1e30)) return 0;
  constexpr int width = kBytes / sizeof(typename Compute<S>::T), lanes = kBytes / 8;
  VecD sum = {};
  for (int64_t k = 0; k < dim; k += width) {
    const auto x = dim - k < width ? load_first(row + k, dim - k) : load(row + k);
    for (int part = 0; part < width / lanes; ++part) {
      const VecD wide = part_as_double(x, part);
      sum += wide * wide;
    }
  }
  return 1 / std::sqrt(lane_sum(sum));
}

}  // namespace
}  // namespace fastaniso
