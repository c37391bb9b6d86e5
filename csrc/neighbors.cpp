#include "neighbors.h"

#include <limits>

namespace fastaniso {

namespace {

void clear(const Rows& rows, int64_t k, const NeighborResults& lists) {
  if (!lists.cosines) return;
  constexpr double worst = -std::numeric_limits<double>::infinity();
  const int64_t size = rows.outer * rows.inner * k;
  if (computes_in_double(rows.dtype))
    std::fill_n(static_cast<double*>(lists.cosines), size, worst);
  else
    std::fill_n(static_cast<float*>(lists.cosines), size, float(worst));
  std::fill_n(lists.indices, size, int64_t{-1});
}

}  // namespace

PairCounts neighbors(const Rows& rows, const Rows* other, int64_t k, const NeighborResults& lists,
                     const NeighborResults& other_lists, int threads, Interrupt& interrupt) {
  PairGrid grid(rows, other, threads);
  clear(rows, k, lists);
  if (other) clear(*other, k, other_lists);
  std::vector<uint8_t> locks(2 * kLocks);
  const NeighborResults& theirs = other ? other_lists : lists;
  uint8_t* const other_locks = !theirs.cosines ? nullptr : locks.data() + (other ? kLocks : 0);

  const auto visit = kernels().neighbors[computes_in_double(rows.dtype)];
  PairCounts counts = grid.for_each_block(
      interrupt,
      [&](const PairBlock& block, const int64_t* places, const int64_t* other_places, int64_t, int) {
        visit(block, {lists.cosines, lists.indices, places, lists.start, locks.data()},
              {theirs.cosines, theirs.indices, other_places, theirs.start, other_locks}, k);
      },
      [](int64_t) {});
  if (!other) {  // each is a row and a candidate in turn
    counts.pairs *= 2;
    counts.masked *= 2;
    counts.invalid *= 2;
  }
  return counts;
}

}  // namespace fastaniso
