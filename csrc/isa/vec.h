// Vectors of FASTANISO_VECTOR_BYTES bytes in the compiler's own vector extension, and loads that widen half precision.
// Everything is in an anonymous namespace: an instruction-set file must not export what another could link to.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "../rows.h"

#define FASTANISO_INLINE inline __attribute__((always_inline))

namespace fastaniso {
namespace {

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

constexpr int kBytes = FASTANISO_VECTOR_BYTES;
typedef float VecF __attribute__((vector_size(kBytes)));
typedef double VecD __attribute__((vector_size(kBytes)));
typedef uint32_t VecU32 __attribute__((vector_size(kBytes)));
typedef uint16_t HalfVecU16 __attribute__((vector_size(kBytes / 2)));

// Storage type S of the rows → type T that the kernel computes in.
template <class S>
struct Compute {
  typedef float T;
  typedef VecF V;
};
template <>
struct Compute<double> {
  typedef double T;
  typedef VecD V;
};

template <class To, class From>
FASTANISO_INLINE To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class V>
FASTANISO_INLINE V load_bytes(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
FASTANISO_INLINE void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

FASTANISO_INLINE VecF load(const float* p) { return load_bytes<VecF>(p); }
FASTANISO_INLINE VecD load(const double* p) { return load_bytes<VecD>(p); }
// 16 bits as 32, by the one instruction that compilers split in two. (The masked forms: unmasked, GCC 12 warns.)
FASTANISO_INLINE VecU32 load_u16(const void* p) {
#if defined(__AVX512F__) && FASTANISO_VECTOR_BYTES == 64
  return bits_as<VecU32>(_mm512_maskz_cvtepu16_epi32(0xffff, load_bytes<__m256i>(p)));
#elif defined(__AVX2__) && FASTANISO_VECTOR_BYTES == 32
  return bits_as<VecU32>(_mm256_cvtepu16_epi32(load_bytes<__m128i>(p)));
#else
  return __builtin_convertvector(load_bytes<HalfVecU16>(p), VecU32);
#endif
}
FASTANISO_INLINE VecF load(const BFloat* p) { return bits_as<VecF>(load_u16(p) << 16); }
FASTANISO_INLINE VecF load(const Half* p) {
#if defined(__AVX512F__) && FASTANISO_VECTOR_BYTES == 64
  return bits_as<VecF>(_mm512_maskz_cvtph_ps(0xffff, load_bytes<__m256i>(p)));
#elif defined(__F16C__) && FASTANISO_VECTOR_BYTES == 32
  return bits_as<VecF>(_mm256_cvtph_ps(load_bytes<__m128i>(p)));
#elif defined(__ARM_NEON) && FASTANISO_VECTOR_BYTES == 16
  return bits_as<VecF>(vcvt_f32_f16(load_bytes<float16x4_t>(p)));
#else
  // The exponent moves up by 112; multiplying, not adding, also gets subnormals right. Inf and NaN keep all ones.
  const VecU32 half = load_u16(p);
  const VecU32 magnitude = (half & 0x7fffu) << 13;
  const VecF scaled = bits_as<VecF>(magnitude) * 0x1p112f;
  const VecU32 special = (VecU32)(magnitude >= (0x7c00u << 13)) & 0x7f800000u;
  return bits_as<VecF>(bits_as<VecU32>(scaled) | special | ((half & 0x8000u) << 16));
#endif
}

// The first `count` numbers, the rest zero; AVX-512 leaves out the rest as it loads.
template <class S>
FASTANISO_INLINE typename Compute<S>::V load_first(const S* p, int64_t count) {
  S padded[kBytes / sizeof(typename Compute<S>::T)] = {};
  std::memcpy(padded, p, count * sizeof(S));
  return load(padded);
}
#if defined(__AVX512F__) && FASTANISO_VECTOR_BYTES == 64
template <>
FASTANISO_INLINE VecF load_first(const float* p, int64_t count) {
  return bits_as<VecF>(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p));
}
#endif

// A vector of float as two of double; one of double is a single part. (Compilers split the wide conversion in two.)
FASTANISO_INLINE VecD part_as_double(VecD v, int) { return v; }
FASTANISO_INLINE VecD part_as_double(VecF v, int part) {
#if defined(__AVX512F__) && FASTANISO_VECTOR_BYTES == 64
  const __m512 all = bits_as<__m512>(v);
  const __m256 half = part ? _mm512_maskz_extractf32x8_ps(0xff, all, 1) : _mm512_maskz_extractf32x8_ps(0xff, all, 0);
  return bits_as<VecD>(_mm512_maskz_cvtps_pd(0xff, half));
#else
  typedef float HalfVecF __attribute__((vector_size(kBytes / 2)));
  HalfVecF parts[2];
  std::memcpy(parts, &v, sizeof v);
  return __builtin_convertvector(parts[part], VecD);
#endif
}

// to[i] += v[i] in float64.
template <class V>
FASTANISO_INLINE void add_to(double* to, V v) {
  constexpr int lanes = kBytes / 8;
  for (int part = 0; part < int(sizeof(v) / sizeof(v[0])) / lanes; ++part)
    store(to + part * lanes, load(to + part * lanes) + part_as_double(v, part));
}

// Two vectors of a row at once, in an order of their own: with bfloat16, even and odd numbers are a shift and a mask of
// one load, where widening one vector after the other takes two steps each.
template <class S, class V>
FASTANISO_INLINE void load_pair(const S* p, V& first, V& second) {
  first = load(p);
  second = load(p + sizeof(V) / sizeof(first[0]));
}
FASTANISO_INLINE void load_pair(const BFloat* p, VecF& first, VecF& second) {
  const VecU32 both = load_bytes<VecU32>(p);
  first = bits_as<VecF>(both << 16);
  second = bits_as<VecF>(both & 0xffff0000u);
}

// Two vectors of float or double in the order that load_pair gives rows of S, and back into the order of the row.
template <class S, class V, class T>
FASTANISO_INLINE void load_like_pair(const T* p, V& first, V& second) {
  load_pair(p, first, second);
}
template <>
FASTANISO_INLINE void load_like_pair<BFloat>(const float* p, VecF& first, VecF& second) {
  float even[kBytes / 4], odd[kBytes / 4];
  for (int i = 0; i < kBytes / 4; ++i) {
    even[i] = p[2 * i];
    odd[i] = p[2 * i + 1];
  }
  first = load(even);
  second = load(odd);
}
template <class S, class V>
FASTANISO_INLINE void add_pair(double* to, V first, V second) {
  add_to(to, first);
  add_to(to + sizeof(V) / sizeof(first[0]), second);
}
// Lanes of a and b in turns, from lane FIRST of each on. (Through memory, compilers take them one by one.)
template <int FIRST, class V, int... LANES>
FASTANISO_INLINE V in_turns(V a, V b, std::integer_sequence<int, LANES...>) {
  return __builtin_shufflevector(a, b, (FIRST + LANES / 2 + LANES % 2 * int(sizeof...(LANES)))...);
}
template <>
FASTANISO_INLINE void add_pair<BFloat>(double* to, VecF first, VecF second) {
  constexpr int width = kBytes / 4;
  constexpr std::make_integer_sequence<int, width> lanes;
  add_to(to, in_turns<0>(first, second, lanes));
  add_to(to + width, in_turns<width / 2>(first, second, lanes));
}

FASTANISO_INLINE double to_double(float x) { return x; }
FASTANISO_INLINE double to_double(double x) { return x; }
FASTANISO_INLINE double to_double(BFloat x) { return bits_as<float>(uint32_t{x.bits} << 16); }
FASTANISO_INLINE double to_double(Half x) {
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  float value = bits_as<float>(magnitude) * 0x1p112f;
  if (magnitude >= (0x7c00u << 13)) value = bits_as<float>(magnitude | 0x7f800000u);
  return x.bits & 0x8000u ? -value : value;
}

// By halves, which takes a few steps where one lane after the other takes as many as there are.
template <class V>
FASTANISO_INLINE auto lane_sum(V v) {
  typedef typename std::remove_reference<decltype(v[0])>::type T;
  if constexpr (sizeof(V) > 16) {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    return lane_sum(halves[0] + halves[1]);
  } else {
    T sum = v[0];
    for (unsigned i = 1; i < sizeof(V) / sizeof(T); ++i) sum += v[i];
    return sum;
  }
}

// Walks the rows from `index` on, masked ones included.
struct Cursor {
  const char* row;
  int64_t index, inner;
};

FASTANISO_INLINE Cursor cursor_at(const Rows& rows, int64_t index) {
  const int64_t outer = index / rows.inner, inner = index % rows.inner;
  return {rows.data + outer * rows.outer_stride + inner * rows.inner_stride, index, inner};
}

FASTANISO_INLINE void advance(const Rows& rows, Cursor& at) {
  ++at.index;
  at.row += rows.inner_stride;
  if (++at.inner == rows.inner) {
    at.inner = 0;
    at.row += rows.outer_stride - rows.inner * rows.inner_stride;
  }
}

}  // namespace
}  // namespace fastaniso
