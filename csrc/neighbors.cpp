#include "neighbors.h"

#include <limits>

namespace fastaniso {

namespace {

// The index of an empty place, behind any candidate with a cosine as large.
constexpr int64_t kNobody = std::numeric_limits<int64_t>::max();

// Empty lists, whose places have the least cosine that may take one.
template <class T>
void begin(int64_t rows, int64_t k, const NeighborResults& lists) {
  T* const cosines = static_cast<T*>(lists.cosines);
  const T* const least = static_cast<const T*>(lists.least);
  for (int64_t row = 0; row < rows; ++row)
    std::fill_n(cosines + row * k, k, least ? least[row] : -std::numeric_limits<T>::infinity());
  std::fill_n(lists.indices, rows * k, kNobody);
}

// What the caller sees of places that stayed empty.
template <class T>
void end(int64_t rows, int64_t k, const NeighborResults& lists) {
  T* const cosines = static_cast<T*>(lists.cosines);
  for (int64_t i = 0; i < rows * k; ++i) {
    if (lists.indices[i] != kNobody) continue;
    cosines[i] = -std::numeric_limits<T>::infinity();
    lists.indices[i] = -1;
  }
}

}  // namespace

PairCounts neighbors(const Rows& rows, const Rows* other, int64_t k, const NeighborResults& lists,
                     const NeighborResults& other_lists, int threads, Interrupt& interrupt) {
  PairGrid grid(rows, other, threads);
  const bool wide = computes_in_double(rows.dtype);
  const auto of_each = [&](const auto& change) {
    change(rows.outer * rows.inner, k, lists);
    if (other && other_lists.cosines) change(other->outer * other->inner, k, other_lists);
  };
  of_each(wide ? begin<double> : begin<float>);
  std::vector<uint8_t> locks(2 * kLocks);
  const NeighborResults& theirs = other ? other_lists : lists;
  uint8_t* const other_locks = !theirs.cosines ? nullptr : locks.data() + (other ? kLocks : 0);

  const auto visit = kernels().neighbors[wide];
  PairCounts counts = grid.for_each_block(
      interrupt,
      [&](const PairBlock& block, const int64_t* places, const int64_t* other_places, int64_t, int) {
        visit(block, {lists.cosines, lists.indices, places, lists.start, locks.data()},
              {theirs.cosines, theirs.indices, other_places, theirs.start, other_locks}, k);
      },
      [](int64_t) {});
  of_each(wide ? end<double> : end<float>);
  if (!other) {  // each is a row and a candidate in turn
    counts.pairs *= 2;
    counts.masked *= 2;
    counts.invalid *= 2;
  }
  return counts;
}

}  // namespace fastaniso
