// Integers beside the lanes of float and double, and what masks of whole lanes are used for.
#pragma once

#include "vec.h"

namespace fastaniso {
namespace {

template <class T>
struct IntLanes;
template <>
struct IntLanes<float> {
  typedef int32_t Int;
  typedef int32_t V __attribute__((vector_size(kBytes)));
  typedef uint16_t Narrow __attribute__((vector_size(kBytes / 2)));
};
template <>
struct IntLanes<double> {
  typedef int64_t Int;
  typedef int64_t V __attribute__((vector_size(kBytes)));
  typedef uint16_t Narrow __attribute__((vector_size(kBytes / 4)));
};

template <class V, class IntV>
FASTANISO_INLINE V masked(V v, IntV keep) {
  return bits_as<V>(bits_as<IntV>(v) & keep);
}

template <class V>
FASTANISO_INLINE bool any(V mask) {
  uint64_t words[kBytes / 8], together = 0;
  std::memcpy(words, &mask, sizeof words);
  for (uint64_t word : words) together |= word;
  return together != 0;
}

}  // namespace
}  // namespace fastaniso
