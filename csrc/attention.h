// The attention op: what is taken from the scores and the softmax of every query, summed by head.
#pragma once

#include "moments.h"

namespace fastaniso {

// Queries or keys (batch, heads, length, dim) at three strides in bytes; the numbers of a vector lie side by side.
struct Vectors {
  const char* data;
  int64_t batch, heads, length, dim;
  int64_t batch_stride, head_stride, length_stride;
  const uint8_t* mask;  // (batch, length), nonzero keeps; null keeps all
  DType dtype;

  const char* vector(int64_t b, int64_t head, int64_t i) const {
    return data + b * batch_stride + head * head_stride + i * length_stride;
  }
  bool keeps(int64_t b, int64_t i) const { return !mask || mask[b * length + i]; }
};

// What is asked for, and where sums by head go; all that is given is overwritten.
struct AttentionResults {
  double scale;
  int64_t first, stop;  // query i sees keys i + first ≤ j < i + stop
  int64_t bins;
  double low, high;
  int64_t positions;
  int64_t* counts;     // (heads, 8): measured, masked, without a key, not finite, with one key; scores, below, above
  int64_t* histogram;  // (heads, bins)
  double* scores;      // (heads, 4): Σs, central Σ(s − s̄)², least, largest
  double* rows;        // (heads, 5): as in AttentionSums
  double* received;    // (heads, positions)
  int64_t* visible;    // (heads, positions)
};

// Head h of the queries reads keys h / (heads of the queries / heads of the keys).
void attention(const Vectors& queries, const Vectors& keys, const AttentionResults& results, int threads,
               Interrupt& interrupt);

}  // namespace fastaniso
