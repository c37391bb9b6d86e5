// e^x of vectors of numbers that are not above 0, by the series of what is left of x beside a multiple of ln 2.
#pragma once

#include "vec.h"

namespace fastaniso {
namespace {

// Below, e^x would be smaller than any normal number.
template <class T>
constexpr T least_exponent() {
  return sizeof(T) == 4 ? T(-87) : T(-708);
}

typedef uint64_t VecU64 __attribute__((vector_size(kBytes)));

// To two units in the last place for least_exponent ≤ x ≤ 0: 2^n·e^r with |r| ≤ ½·ln 2, whose series ends after six
// terms in float and thirteen in double.
FASTANISO_INLINE VecF exp_in_range(VecF x) {
  constexpr float log2e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f, round = 0x1.8p23f;
  const VecF shifted = x * log2e + round, n = shifted - round;
  const VecF r = x - n * ln2_high - n * ln2_low;
  constexpr float terms[] = {1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f, 1.0f, 1.0f};
  VecF series = VecF{} + 1 / 720.0f;
  for (const float term : terms) series = series * r + term;
  return bits_as<VecF>(bits_as<VecU32>(series) + (bits_as<VecU32>(shifted) << 23));
}
FASTANISO_INLINE VecD exp_in_range(VecD x) {
  // The high part of ln 2 has few enough digits for its product with n to be exact.
  constexpr double log2e = 0x1.71547652b82fep0, ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33,
                   round = 0x1.8p52;
  const VecD shifted = x * log2e + round, n = shifted - round;
  const VecD r = x - n * ln2_high - n * ln2_low;
  constexpr double terms[] = {
      1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0, 1 / 720.0,
      1 / 120.0,       1 / 24.0,       1 / 6.0,       0.5,          1.0,         1.0};
  VecD series = VecD{} + 1 / 6227020800.0;
  for (const double term : terms) series = series * r + term;
  return bits_as<VecD>(bits_as<VecU64>(series) + (bits_as<VecU64>(shifted) << 52));
}

template <class V>
FASTANISO_INLINE V exp_of_negative(V x) {
  const V least = V{} + least_exponent<typename std::remove_reference<decltype(x[0])>::type>();
  return exp_in_range(x < least ? least : x);
}

}  // namespace
}  // namespace fastaniso
