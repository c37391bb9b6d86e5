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

// A bit for each lane of a mask.
template <class IntV>
FASTANISO_INLINE unsigned lane_bits(IntV mask) {
  constexpr bool single = sizeof(mask[0]) == 4;
#if defined(__AVX512DQ__) && FASTANISO_VECTOR_BYTES == 64
  const __m512i bits = bits_as<__m512i>(mask);
  return single ? unsigned(_mm512_movepi32_mask(bits)) : unsigned(_mm512_movepi64_mask(bits));
#elif defined(__AVX2__) && FASTANISO_VECTOR_BYTES == 32
  return single ? _mm256_movemask_ps(bits_as<__m256>(mask)) : _mm256_movemask_pd(bits_as<__m256d>(mask));
#else
  if (!any(mask)) return 0;
  unsigned bits = 0;
  for (unsigned lane = 0; lane < kBytes / sizeof(mask[0]); ++lane) bits |= unsigned(mask[lane] & 1) << lane;
  (void)single;
  return bits;
#endif
}

// Writes the lanes of x that the mask keeps side by side, and perhaps anything up to a vector; how many there are.
template <class T, class V, class IntV>
FASTANISO_INLINE int store_kept(T* to, V x, IntV mask) {
  unsigned bits = lane_bits(mask);
#if defined(__AVX512F__) && FASTANISO_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4)
    store(to, _mm512_maskz_compress_ps(__mmask16(bits), bits_as<__m512>(x)));
  else
    store(to, _mm512_maskz_compress_pd(__mmask8(bits), bits_as<__m512d>(x)));
  return __builtin_popcount(bits);
#else
  int count = 0;
  for (; bits; bits &= bits - 1) to[count++] = x[__builtin_ctz(bits)];
  return count;
#endif
}

FASTANISO_INLINE float lesser(float a, float b) { return a < b ? a : b; }
FASTANISO_INLINE double lesser(double a, double b) { return a < b ? a : b; }

// The least of the lanes, by halves.
template <class V>
FASTANISO_INLINE auto lane_least(V v) {
  typedef typename std::remove_reference<decltype(v[0])>::type T;
  if constexpr (sizeof(V) > 16) {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    return lane_least(halves[0] < halves[1] ? halves[0] : halves[1]);
  } else {
    T least = v[0];
    for (unsigned i = 1; i < sizeof(V) / sizeof(T); ++i) least = lesser(least, v[i]);
    return least;
  }
}

}  // namespace
}  // namespace fastaniso
