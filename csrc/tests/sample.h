// What the tests without Python share: a check that counts failures, and rows of known numbers.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "moments.h"

namespace fastaniso {

inline int failures = 0;

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                         \
    }                                                                     \
  } while (0)

// Rows in a block of their exact size, and the same numbers in float64.
struct Sample {
  Rows rows;
  std::vector<char> memory;
  std::vector<double> numbers;
  std::vector<uint8_t> mask;

  Sample(int64_t n, int64_t dim, DType dtype, int64_t gap = 0) : numbers(n * dim) {
    const int64_t bytes = bytes_of(dtype), stride = dim + gap;
    memory.resize(n ? ((n - 1) * stride + dim) * bytes : 1);
    std::mt19937_64 random(n * 1000 + dim);
    std::normal_distribution<double> normal(0.5, 1.0);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < dim; ++k) numbers[i * dim + k] = put((i * stride + k) * bytes, normal(random), dtype);
    rows = {memory.data(), 1, n, dim, n * stride * bytes, stride * bytes, nullptr, dtype};
  }

  double put(int64_t offset, double value, DType dtype) {
    char* to = memory.data() + offset;
    if (dtype == kFloat64) {
      std::memcpy(to, &value, 8);
      return value;
    }
    const float single = float(value);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    if (dtype == kFloat32) {
      std::memcpy(to, &single, 4);
      return single;
    }
    uint16_t half;
    float back;
    if (dtype == kBFloat16) {
      half = uint16_t(bits >> 16);
      bits = uint32_t{half} << 16;
      std::memcpy(&back, &bits, 4);
    } else {  // to a multiple of 2⁻⁸ with few digits: exact in half precision
      back = std::round(single * 256) / 256;
      if (std::fabs(back) < 0.25f) back = 0.25f;
      int exponent;
      const float fraction = std::frexp(std::fabs(back), &exponent);
      half = uint16_t((back < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | (int(fraction * 2048) & 1023));
      back = std::ldexp(std::floor(fraction * 2048) / 2048, exponent) * (back < 0 ? -1 : 1);
    }
    std::memcpy(to, &half, 2);
    return back;
  }

  bool keeps(int64_t i) const { return mask.empty() || mask[i]; }
};

}  // namespace fastaniso
