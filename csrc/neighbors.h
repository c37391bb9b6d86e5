// The neighbors op: the candidates with the largest cosines of every row.
#pragma once

#include "pair_blocks.h"

namespace fastaniso {

// Lists of k cosines (float, or double for rows of double) and indices, largest first, for every row of a set.
struct NeighborResults {
  void* cosines = nullptr;
  int64_t* indices = nullptr;
  int64_t start = 0;            // index in its source of the first row
  const void* least = nullptr;  // of each row: candidates below it are left out; of the type of the cosines
};

// Of the rows among themselves; or among those of `other`, and, where it has lists, of `other` among the rows.
PairCounts neighbors(const Rows& rows, const Rows* other, int64_t k, const NeighborResults& lists,
                     const NeighborResults& other_lists, int threads, Interrupt& interrupt);

}  // namespace fastaniso
