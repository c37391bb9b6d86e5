// Pack rows into panels as they are normalised and converted, then multiply panel by panel with hundreds of rows
// summed in registers before they are added to the float64 result.
#pragma once

#include "product.inl"

namespace fastaniso {
namespace {

constexpr int64_t kRowsInFloat = 256;  // products summed in float32 before they go to float64

template <class S>
void pack(const char* const* rows, const double* norms, double scale, const void* shift_data, int64_t begin,
          int64_t end, int64_t dim, const Panels& panels) {
  typedef typename Compute<S>::T T;
  typedef typename Compute<S>::V V;
  const T* shift = static_cast<const T*>(shift_data);
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>();
  const int64_t panel_stride = panels.stride * panel;
  for (int64_t r = begin; r < end; ++r) {
    const S* row = reinterpret_cast<const S*>(rows[r]);
    T* to = static_cast<T*>(panels.data) + r * panel;
    const double factor = norms ? exact_inverse_norm(row, dim, norms[r]) : scale;
    // In two parts: with a rounded factor, rows close to the pivot would differ from it by rounding alone.
    const T rounded = T(factor), rest = T(factor - rounded);
    for (int64_t first = 0; first < dim; first += panel, to += panel_stride) {
      if (factor == 0) {
        for (int64_t k = 0; k < panel; ++k)
          to[k] = first + k < dim ? T(to_double(row[first + k]) / norms[r] - shift[first + k]) : T(0);
        continue;
      }
      for (int v = 0; v < kPanelVectors; ++v) {
        const int64_t k = first + v * width, left = dim - k;
        V x = {};
        if (left > 0) x = left >= width ? load(row + k) : load_first(row + k, left);
        const V difference = x * rounded - load(shift + k);
        store(to + v * width, x * rest + difference);
      }
    }
  }
}

// Adds one tile: the columns a..a+tile_rows of a panel against the columns of panel b, without its first SKIP vectors.
template <int SKIP, class T>
void multiply_tile(const T* a, const T* b, int64_t rows, double factor, double* out, int64_t stride, int64_t rows_left,
                   int64_t columns_left) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>(), height = tile_rows<T>();
  constexpr int vectors = kPanelVectors - SKIP, first = SKIP * width;
  V sums[height][vectors] = {};
  add_products(a, b + first, rows, sums, [](int64_t) {});
  out += first;
  if (rows_left >= height && columns_left >= panel) {
    for (int i = 0; i < height; ++i)
      for (int v = 0; v < vectors; ++v)
        for (int lane = 0; lane < width; ++lane) out[i * stride + v * width + lane] += factor * sums[i][v][lane];
    return;
  }
  for (int i = 0; i < height && i < rows_left; ++i)
    for (int j = 0; j < vectors * width && first + j < columns_left; ++j)
      out[i * stride + j] += factor * sums[i][j / width][j % width];
}

template <class T>
void multiply(const Panels& panels, int64_t panel_i, int64_t panel_j, int64_t dim, double factor, double* out) {
  constexpr int panel = panel_width<T>(), height = tile_rows<T>(), width = panel / kPanelVectors;
  static_assert(panel % height == 0);
  const T* data = static_cast<const T*>(panels.data);
  const int64_t column = panel_j * panel;
  for (int64_t k = 0; k < panels.rows; k += kRowsInFloat) {
    const int64_t rows = panels.rows - k < kRowsInFloat ? panels.rows - k : kRowsInFloat;
    const T* a = data + (panel_i * panels.stride + k) * panel;
    const T* b = data + (panel_j * panels.stride + k) * panel;
    for (int i = 0; i < panel && panel_i * panel + i < dim; i += height) {
      const int64_t row = panel_i * panel + i;
      // A panel against itself: columns left of the diagonal are their transposes.
      const auto tile = panel_i != panel_j || i < width ? multiply_tile<0, T>
                        : i < 2 * width                 ? multiply_tile<1, T>
                                                        : multiply_tile<2, T>;
      tile(a + i, b, rows, factor, out + row * dim + column, dim, dim - row, dim - column);
    }
  }
}

template <class T>
void add_panel_columns(const Panels& panels, int64_t panel_index, double factor, double* sums) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>(), run = 32;
  const T* row = static_cast<const T*>(panels.data) + panel_index * panels.stride * panel;
  double total[panel] = {};
  for (int64_t k = 0; k < panels.rows;) {
    V sum[kPanelVectors] = {};
    for (const int64_t stop = k + run < panels.rows ? k + run : panels.rows; k < stop; ++k, row += panel)
      for (int v = 0; v < kPanelVectors; ++v) sum[v] += load(row + v * width);
    for (int v = 0; v < kPanelVectors; ++v) add_to(total + v * width, sum[v]);
  }
  for (int j = 0; j < panel; ++j) sums[panel_index * panel + j] += factor * total[j];
}

}  // namespace
}  // namespace fastaniso
