// Walks a block of the pair grid tile by tile: packs unit rows, and hands each tile's cosines on while they are in the
// first-level cache.
#pragma once

#include "packing.inl"

namespace fastaniso {
namespace {

// Products summed in registers before they are added to the tile: the error of a sum grows with what it has reached.
constexpr int64_t kStepsInRegisters = 192;

template <class V>
FASTANISO_INLINE V within_one(V c) {
  const V one = V{} + 1;
  c = c > one ? one : c;
  return c < -one ? -one : c;
}

template <class T>
constexpr int tile_pairs() {
  return tile_rows<T>() * panel_width<T>();
}

// One tile of cosines, [tile_rows][panel_width], and which of them are pairs of the block.
template <class T>
struct CosineTile {
  alignas(64) T cosines[tile_pairs<T>()];
  int64_t row, other;  // of the first, in the block
  int rows, others;    // how many there are before the end of the block
  int64_t ahead;       // in a triangle: how many places the first other is ahead of the first row; else more than any
  bool whole;

  bool is_pair(int r, int o) const { return r < rows && o < others && o + ahead > r; }
};

// visit(tile) for every tile with a pair in it; meanwhile(k) at each step of the product of the next.
template <class T, class Meanwhile, class Visit>
FASTANISO_INLINE void for_each_tile(const PairBlock& block, const Meanwhile& meanwhile, const Visit& visit) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>(), height = tile_rows<T>();
  const T* rows = static_cast<const T*>(block.rows);
  const T* others = static_cast<const T*>(block.others);
  CosineTile<T> tile;
  // Panel by panel of the others, which stays in the second-level cache, down all rows.
  for (tile.other = 0; tile.other < block.other_count; tile.other += panel) {
    for (tile.row = 0; tile.row < block.row_count; tile.row += height) {
      tile.ahead = block.triangle ? block.first_other + tile.other - block.first_row - tile.row : height;
      if (tile.ahead + panel <= 1) break;
      const T* a = rows + tile.row / panel * panel * block.dim + tile.row % panel;
      const T* b = others + tile.other * block.dim;
      for (int64_t k = 0; k < block.dim; k += kStepsInRegisters) {
        const int64_t left = block.dim - k, steps = left < kStepsInRegisters ? left : kStepsInRegisters;
        V sums[height][kPanelVectors] = {};
        add_products(a + k * panel, b + k * panel, steps, sums, [&](int64_t step) { meanwhile(k + step); });
#pragma GCC unroll 8  // or the sums are not in registers
        for (int i = 0; i < height; ++i) {
#pragma GCC unroll 3
          for (int v = 0; v < kPanelVectors; ++v) {
            T* const to = tile.cosines + i * panel + v * width;
            V c = sums[i][v];
            if (k > 0) c += load(to);
            if (steps == left) c = within_one(c);
            store(to, c);
          }
        }
      }
      tile.rows = block.row_count - tile.row < height ? int(block.row_count - tile.row) : height;
      tile.others = block.other_count - tile.other < panel ? int(block.other_count - tile.other) : panel;
      tile.whole = tile.rows == height && tile.others == panel && tile.ahead >= height;
      visit(tile);
    }
  }
}

template <class S>
void pack_units(const char* const* rows, const double* norms, int64_t count, int64_t dim, void* panels) {
  typedef typename Compute<S>::T T;
  typedef typename Compute<S>::V V;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>();
  for_each_lanes<T>(count, dim, panels, [&](int64_t first, int some, T* to) {
    // In two parts, so that each number of a unit row is rounded by itself and not all of them the same way.
    T rounded[width] = {}, rest[width] = {};
    for (int i = 0; i < some; ++i) {
      const double factor = exact_inverse_norm(reinterpret_cast<const S*>(rows[first + i]), dim, norms[first + i]);
      rounded[i] = T(factor);
      rest[i] = T(factor - rounded[i]);
    }
    pack_lanes<S>(rows + first, some, dim, to, [&](int i, V x) { return x * rounded[i] + x * rest[i]; });
    for (int i = 0; i < some; ++i) {
      if (rounded[i] != 0) continue;
      const S* const row = reinterpret_cast<const S*>(rows[first + i]);
      for (int64_t k = 0; k < dim; ++k) to[k * panel + i] = T(to_double(row[k]) / norms[first + i]);
    }
  });
}

}  // namespace
}  // namespace fastaniso
