// The best candidates of each row and of each other of a block: nearly all cosines fall to one comparison with what a
// row's list already holds.
#pragma once

#include "pairs.inl"

namespace fastaniso {
namespace {

// A list that several threads may add to, one after the other. What it holds at the end does not depend on their order.
template <class T>
class LockedList {
 public:
  LockedList(const NeighborLists& lists, int64_t row, int64_t k)
      : lock_(lists.locks + lists.slot[row] % kLocks),
        cosines_(static_cast<T*>(lists.cosines) + lists.slot[row] * k),
        indices_(lists.indices + lists.slot[row] * k),
        k_(k) {
    while (__atomic_test_and_set(lock_, __ATOMIC_ACQUIRE)) {
    }
  }
  ~LockedList() { __atomic_clear(lock_, __ATOMIC_RELEASE); }

  T worst() const { return cosines_[k_ - 1]; }

  void add(T cosine, int64_t index) {
    int64_t place = k_;
    while (place > 0 &&
           (cosine > cosines_[place - 1] || (cosine == cosines_[place - 1] && index < indices_[place - 1])))
      --place;
    if (place == k_) return;
    std::memmove(cosines_ + place + 1, cosines_ + place, (k_ - 1 - place) * sizeof(T));
    std::memmove(indices_ + place + 1, indices_ + place, (k_ - 1 - place) * sizeof(int64_t));
    cosines_[place] = cosine;
    indices_[place] = index;
  }

 private:
  uint8_t* lock_;
  T* cosines_;
  int64_t* indices_;
  int64_t k_;
};

// The least cosine that may still enter the list of each of `count` rows from `begin` on; none may beyond them, or
// where there is no list. Another thread may raise it later, which costs a closer look and nothing else.
template <class T>
void read_thresholds(const NeighborLists& lists, int64_t begin, int64_t count, int64_t k, int64_t size, T* thresholds) {
  for (int64_t i = 0; i < size; ++i)
    thresholds[i] = lists.locks && i < count ? LockedList<T>(lists, begin + i, k).worst() : T(__builtin_inf());
}

template <class T>
FASTANISO_INLINE void offer(const NeighborLists& lists, int64_t row, int64_t k, T cosine, int64_t index, T& threshold) {
  LockedList<T> list(lists, row, k);
  list.add(cosine, index);
  threshold = list.worst();
}

// Of one row of a tile the cosines that may enter a list.
template <class T>
__attribute__((noinline)) void take(const CosineTile<T>& tile, int r, const NeighborLists& rows,
                                    const NeighborLists& others, int64_t k, T& row_threshold, T* other_threshold) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>();
  static_assert(panel <= 64, "a bit for each other");
  const T* const cosines = tile.cosines + r * panel;
  uint64_t lanes = 0;
  for (int v = 0; v < kPanelVectors; ++v) {
    const V c = load(cosines + v * width);
    const auto close = (c >= V{} + row_threshold) | (c >= load(other_threshold + v * width));
    lanes |= uint64_t(lane_bits(close)) << (v * width);
  }
  for (; lanes; lanes &= lanes - 1) {
    const int o = __builtin_ctzll(lanes);
    if (!tile.is_pair(r, o)) continue;
    const int64_t row = tile.row + r, other = tile.other + o;
    const T c = cosines[o];
    if (c >= row_threshold) offer(rows, row, k, c, others.slot[other] + others.start, row_threshold);
    if (c >= other_threshold[o]) offer(others, other, k, c, rows.slot[row] + rows.start, other_threshold[o]);
  }
}

template <class T>
void neighbors(const PairBlock& block, const NeighborLists& rows, const NeighborLists& others, int64_t k) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = sizeof(V) / sizeof(T), panel = panel_width<T>(), height = tile_rows<T>();
  T row_thresholds[kMaxBlockRows], other_threshold[panel];
  read_thresholds(rows, 0, block.row_count, k, kMaxBlockRows, row_thresholds);
  for_each_tile<T>(
      block, [](int64_t) {},
      [&](const CosineTile<T>& tile) {
        if (tile.row == 0) read_thresholds(others, tile.other, tile.others, k, panel, other_threshold);
        T* const row_threshold = row_thresholds + tile.row;
        for (int r = 0; r < height; ++r) {
          const T* cosines = tile.cosines + r * panel;
          const V for_row = V{} + row_threshold[r];
          IntV close = {};
          for (int v = 0; v < kPanelVectors; ++v) {
            const V c = load(cosines + v * width);
            close |= (c >= for_row) | (c >= load(other_threshold + v * width));
          }
          if (any(close)) take(tile, r, rows, others, k, row_threshold[r], other_threshold);
        }
      });
}

}  // namespace
}  // namespace fastaniso
