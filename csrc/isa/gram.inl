// Pack rows into panels as they are normalised and converted, then multiply panel by panel with the whole block of rows
// summed in registers and added to the float64 result.
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

template <class S>
void pack(const char* const* rows, const double* norms, const double* multipliers, const void* shift_data, int64_t begin,
          int64_t end, int64_t dim, const Panels& panels) {
  typedef typename Compute<S>::T T;
  typedef typename Compute<S>::V V;
  const T* shift = static_cast<const T*>(shift_data);
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>();
  for (int64_t r = begin; r < end; ++r) {
    const S* row = reinterpret_cast<const S*>(rows[r]);
    T* to = static_cast<T*>(panels.data) + r * panel;
    const int64_t panel_stride = panels.stride * panel;
    for (int64_t first = 0; first < dim; first += panel, to += panel_stride) {
      if (multipliers[r] == 0) {
        for (int64_t k = 0; k < panel; ++k)
          to[k] = first + k < dim ? T(to_double(row[first + k]) / norms[r] - shift[first + k]) : T(0);
        continue;
      }
      // In two parts: with a rounded multiplier, rows close to the pivot would differ from it by rounding alone.
      const T multiplier = T(multipliers[r]), rest = T(multipliers[r] - multiplier);
      for (int v = 0; v < kPanelVectors; ++v) {
        const int64_t k = first + v * width, left = dim - k;
        V x = {};
        if (left > 0) x = left >= width ? load(row + k) : load_first(row + k, left);
        const V rounded = x * multiplier - load(shift + k);
        store(to + v * width, x * rest + rounded);
      }
    }
  }
}

// Adds one tile: the columns a..a+tile_rows of a panel against all columns of panel b.
template <class T>
FASTANISO_INLINE void multiply_tile(const T* a, const T* b, int64_t rows, double factor, double* out, int64_t stride,
                                    int64_t rows_left, int64_t columns_left) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>(), height = tile_rows<T>();
  V sums[height][kPanelVectors] = {};
  for (int64_t k = 0; k < rows; ++k, a += panel, b += panel) {
    V column[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) {
      __builtin_prefetch(b + 16 * panel + v * width);
      column[v] = load(b + v * width);
    }
    for (int i = 0; i < height; ++i)
      for (int v = 0; v < kPanelVectors; ++v) sums[i][v] += a[i] * column[v];
  }
  if (rows_left >= height && columns_left >= panel) {
    for (int i = 0; i < height; ++i)
      for (int v = 0; v < kPanelVectors; ++v)
        for (int lane = 0; lane < width; ++lane) out[i * stride + v * width + lane] += factor * sums[i][v][lane];
    return;
  }
  for (int i = 0; i < height && i < rows_left; ++i)
    for (int j = 0; j < panel && j < columns_left; ++j)
      out[i * stride + j] += factor * sums[i][j / width][j % width];
}

template <class T>
void multiply(const Panels& panels, int64_t panel_i, int64_t panel_j, int64_t dim, double factor, double* out) {
  constexpr int panel = panel_width<T>(), height = tile_rows<T>();
  static_assert(panel % height == 0);
  const T* data = static_cast<const T*>(panels.data);
  const T* a = data + panel_i * panels.stride * panel;
  const T* b = data + panel_j * panels.stride * panel;
  const int64_t column = panel_j * panel;
  for (int i = 0; i < panel; i += height) {
    const int64_t row = panel_i * panel + i;
    if (row >= dim) return;
    multiply_tile(a + i, b, panels.rows, factor, out + row * dim + column, dim, dim - row, dim - column);
  }
}

}  // namespace
}  // namespace fastaniso
