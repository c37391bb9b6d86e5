// Rows into panels [count / width][dim][width], whose last is filled up with zeros: squares of numbers are transposed
// in registers, because numbers stored one by one take as long as hundreds of products.
#pragma once

#include "lanes.inl"
#include "product.inl"

namespace fastaniso {
namespace {

// Rows of numbers become rows of lanes: a perfect shuffle for every bit of their index.
template <class V, int... LANES>
FASTANISO_INLINE void transpose(V (&rows)[sizeof...(LANES)], std::integer_sequence<int, LANES...> lanes) {
  constexpr int width = sizeof...(LANES), half = width / 2;
#pragma GCC unroll 4
  for (int stage = 1; stage < width; stage *= 2) {
    V shuffled[width];
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      shuffled[2 * i] = in_turns<0>(rows[i], rows[half + i], lanes);
      shuffled[2 * i + 1] = in_turns<half>(rows[i], rows[half + i], lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) rows[i] = shuffled[i];
  }
}

// pack(first, count, to) for as many rows as a vector has lanes, which go to the lanes from `to` on; `count` of them
// are there.
template <class T, class Pack>
FASTANISO_INLINE void for_each_lanes(int64_t count, int64_t dim, void* panels, const Pack& pack) {
  constexpr int width = kBytes / int(sizeof(T)), panel = panel_width<T>();
  const int64_t end = (count + panel - 1) / panel * panel;
  for (int64_t r = 0; r < end; r += width) {
    T* const to = static_cast<T*>(panels) + r / panel * panel * dim + r % panel;
    pack(r, count - r < width ? (count > r ? int(count - r) : 0) : width, to);
  }
}

// Puts change(i, numbers) of each row i into lane i, and zeros into lanes without a row.
template <class S, class T, class Change>
FASTANISO_INLINE void pack_lanes(const char* const* rows, int count, int64_t dim, T* to, const Change& change) {
  typedef typename Compute<S>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>();
  if (count == 0) {
    for (int64_t k = 0; k < dim; ++k) store(to + k * panel, V{});
    return;
  }
  const S* of[width];
  IntV there = {};
  for (int i = 0; i < width; ++i) of[i] = reinterpret_cast<const S*>(rows[i < count ? i : 0]);
  for (int i = 0; i < count; ++i) there[i] = -1;
  for (int64_t k = 0; k < dim; k += width) {
    const int numbers = dim - k < width ? int(dim - k) : width;
    V square[width];
    if (numbers == width) {
#pragma GCC unroll 16
      for (int i = 0; i < width; ++i) square[i] = change(i, load(of[i] + k));
    } else {
      for (int i = 0; i < width; ++i) square[i] = change(i, load_first(of[i] + k, numbers));
    }
    transpose(square, std::make_integer_sequence<int, width>{});
    if (numbers == width) {
#pragma GCC unroll 16
      for (int i = 0; i < width; ++i) store(to + (k + i) * panel, masked(square[i], there));
    } else {
      for (int i = 0; i < numbers; ++i) store(to + (k + i) * panel, masked(square[i], there));
    }
  }
}

}  // namespace
}  // namespace fastaniso
