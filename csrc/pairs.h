// The pairs op: what is asked for of the cosines of all pairs of rows.
#pragma once

#include "pair_blocks.h"

namespace fastaniso {

// What to take from each cosine, and where its sums go; all that is given is overwritten.
struct PairResults {
  int64_t bins = 0;              // 0 for no histogram
  int64_t* histogram = nullptr;  // (bins)
  double* moments = nullptr;     // (5): Σc, Σ(c − c̄)², Σ(c − c̄)³, Σ(c − c̄)⁴, Σ|c|; null for none
  std::vector<double> uniformity_t, thresholds;
  double* exponentials = nullptr;  // (uniformity_t): Σ exp(2t(c − 1))
  int64_t* above = nullptr;        // (thresholds): how many c > threshold
  double* extrema = nullptr;       // (2): least and largest; null for none
  int64_t* extrema_at = nullptr;   // (2, 2): places of their rows and others
};

// Of the pairs i < j of the rows, or of all pairs of a row and one of `other`.
PairCounts pairs(const Rows& rows, const Rows* other, const PairResults& results, int threads, Interrupt& interrupt);

}  // namespace fastaniso
