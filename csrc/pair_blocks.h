// The grid of pairs cut into blocks whose packed rows stay in the caches: how, depends on shapes alone.
#pragma once

#include <algorithm>
#include <vector>

#include "moments.h"
#include "panel_memory.h"

namespace fastaniso {

// Pairs among all that there are: compared, left out for a masked row, left out for one that cannot be normalised;
// indices of the first such rows.
struct PairCounts {
  int64_t pairs, masked, invalid, first_invalid, first_invalid_other;
};

// Rows that can be normalised, packed as unit rows, and their places among all rows of their set.
struct UnitRows {
  char* panels;
  std::vector<int64_t> places;
};

class PairGrid {
 public:
  // Pairs of the rows, or of a row and one of `other`.
  PairGrid(const Rows& rows, const Rows* other, int threads);

  int threads() const { return threads_; }
  bool triangle() const { return !other_; }

  // visit(block, rows, others, partial, thread) for all blocks in any order, merge(partial) in one order whatever the
  // threads; `partial` is one of partials_for(threads()).
  template <class Visit, class Merge>
  PairCounts for_each_block(Interrupt& interrupt, const Visit& visit, const Merge& merge);

 private:
  int64_t row_bytes() const { return rows_.dim * (wide_ ? 8 : 4); }
  RowTotals pack(const Rows& rows, int64_t begin, int64_t end, UnitRows& to) const;
  RowTotals pack_together(const Rows& rows, int64_t begin, int64_t end, UnitRows& to, Interrupt& interrupt) const;
  RowTotals count(const Rows& rows, Interrupt& interrupt) const;
  PairCounts counts(const RowTotals& rows, const RowTotals& others) const;

  const Rows& rows_;
  const Rows* other_;
  bool wide_;
  int64_t width_, count_, other_count_;
  int64_t block_rows_, block_others_;  // rows that one thread, and others that all threads hold packed
  int threads_;
};

template <class Visit, class Merge>
PairCounts PairGrid::for_each_block(Interrupt& interrupt, const Visit& visit, const Merge& merge) {
  const Rows& others = other_ ? *other_ : rows_;
  const PanelMemory memory(block_others_ * row_bytes());
  const PanelMemory own_memory(threads_ * block_rows_ * row_bytes());
  UnitRows column{memory.data(), {}};
  std::vector<UnitRows> own(threads_);
  for (int t = 0; t < threads_; ++t) own[t].panels = own_memory.data() + t * block_rows_ * row_bytes();

  RowTotals other_totals = no_rows();
  for (int64_t begin = 0; begin < other_count_; begin += block_others_) {
    const int64_t end = std::min(begin + block_others_, other_count_);
    add(other_totals, pack_together(others, begin, end, column, interrupt));
    const int64_t packed = column.places.size();
    // Rows before these, all against all; then, in a triangle, these among themselves, the longest first.
    const int64_t before = other_ ? count_ : begin;
    const int64_t rectangles = (before + block_rows_ - 1) / block_rows_;
    const int64_t triangles = other_ ? 0 : (packed + block_rows_ - 1) / block_rows_;
    reduce_in_order(
        rectangles + triangles, threads_, interrupt,
        [&](int64_t piece, int64_t partial, int thread) {
          if (piece < rectangles) {
            const int64_t from = piece * block_rows_;
            pack(rows_, from, std::min(from + block_rows_, before), own[thread]);
            const PairBlock block{
                own[thread].panels, column.panels, int64_t(own[thread].places.size()), packed, rows_.dim, false, 0, 0};
            visit(block, own[thread].places.data(), column.places.data(), partial, thread);
          } else {
            const int64_t from = (piece - rectangles) * block_rows_;
            const int64_t offset = from * row_bytes();  // block_rows_ is a whole number of panels
            const PairBlock block{column.panels + offset,
                                  column.panels + offset,
                                  std::min(block_rows_, packed - from),
                                  packed - from,
                                  rows_.dim,
                                  true,
                                  from,
                                  from};
            visit(block, column.places.data() + from, column.places.data() + from, partial, thread);
          }
        },
        [&](int64_t, int64_t partial) { merge(partial); });
  }
  return counts(other_ ? count(rows_, interrupt) : other_totals, other_totals);
}

}  // namespace fastaniso
