// The kernels without Python, for sanitizers: every instruction set × dtype against plain float64 loops, in heap blocks
// of exactly the rows' size, so that a read past their end is seen.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "gram.h"
#include "group_moments.h"
#include "kernels.h"
#include "moments.h"
#include "sample.h"

using namespace fastaniso;

namespace {

struct Expected {
  std::vector<double> sums, scatter, unit_scatter;
  int64_t kept = 0;

  explicit Expected(const Sample& sample) {
    const int64_t n = sample.rows.inner, dim = sample.rows.dim;
    sums.assign(kSums * dim, 0);
    std::vector<double> x, u;
    for (int64_t i = 0; i < n; ++i) {
      const double* row = sample.numbers.data() + i * dim;
      double squares = 0;
      for (int64_t k = 0; k < dim; ++k) squares += row[k] * row[k];
      if (!sample.keeps(i) || squares == 0) continue;
      ++kept;
      for (int64_t k = 0; k < dim; ++k) {
        x.push_back(row[k]);
        u.push_back(row[k] / std::sqrt(squares));
        const double terms[] = {x.back(), x.back() * x.back(), u.back(), u.back() * u.back()};
        for (int s = 0; s < kSums; ++s) sums[s * dim + k] += terms[s];
      }
    }
    scatter = central(x, dim, 0);
    unit_scatter = central(u, dim, 2);
  }

  std::vector<double> central(const std::vector<double>& rows, int64_t dim, int sum) const {
    std::vector<double> out(dim * dim, 0);
    for (int64_t r = 0; r < kept; ++r)
      for (int64_t i = 0; i < dim; ++i)
        for (int64_t j = 0; j < dim; ++j)
          out[i * dim + j] +=
              (rows[r * dim + i] - sums[sum * dim + i] / kept) * (rows[r * dim + j] - sums[sum * dim + j] / kept);
    return out;
  }
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::fabs(a[i] - b[i]));
    size = std::max(size, std::fabs(b[i]));
  }
  return size ? difference / size : difference;
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

void test_against_loops(DType dtype) {
  const double tolerance = dtype == kFloat64 ? 1e-12 : 4e-6;
  for (int64_t n : {0, 1, 2, 5, 130, 1100}) {
    for (int64_t dim : {1, 3, 16, 48, 97}) {
      for (int64_t gap : {0, 3}) {
        Sample sample(n, dim, dtype, gap);
        if (n == 130) {
          sample.mask.assign(n, 1);
          for (int64_t i = 0; i < n; i += 3) sample.mask[i] = 0;
          sample.rows.mask = sample.mask.data();
        }
        const Expected expected(sample);
        Interrupt interrupt(nullptr);

        std::vector<double> sums(kSums * dim), scatter(dim * dim), unit_scatter(dim * dim);
        RowTotals totals = moments(sample.rows, sums.data(), 2, interrupt);
        CHECK(totals.kept == expected.kept);
        CHECK(totals.kept + totals.masked + totals.zero == n);
        CHECK(distance(sums, expected.sums) < tolerance);

        totals = gram(sample.rows, sums.data(), scatter.data(), unit_scatter.data(), 2, interrupt);
        CHECK(totals.kept == expected.kept);
        CHECK(distance(sums, expected.sums) < tolerance);
        if (totals.kept > 2 && dim > 1) {
          CHECK(distance(scatter, expected.scatter) < 10 * tolerance);
          CHECK(distance(unit_scatter, expected.unit_scatter) < 10 * tolerance);
        }

        std::vector<int64_t> groups(n), counts(3);
        for (int64_t i = 0; i < n; ++i) groups[i] = i % 4;  // 3 is no group
        std::vector<double> unit_sum(3 * dim), unit_squared(3);
        int64_t outside = 0;
        totals = group_moments(sample.rows, groups.data(), 3, counts.data(), unit_sum.data(), unit_squared.data(),
                               &outside, 2, interrupt);
        CHECK(counts[0] + counts[1] + counts[2] == totals.kept);
        CHECK(totals.kept + totals.masked + totals.zero + outside == n);
      }
    }
  }
}

void test_same_bits_for_any_number_of_threads(DType dtype) {
  const int64_t n = 9000, dim = 130;
  const Sample sample(n, dim, dtype);
  std::vector<double> first_sums, first_scatter;
  for (int threads : {1, 2, 3, 7}) {
    Interrupt interrupt(nullptr);
    std::vector<double> sums(kSums * dim), scatter(dim * dim);
    gram(sample.rows, sums.data(), scatter.data(), nullptr, threads, interrupt);
    if (threads == 1) {
      first_sums = sums;
      first_scatter = scatter;
    }
    CHECK(same_bits(sums, first_sums));
    CHECK(same_bits(scatter, first_scatter));
  }
}

void test_rows_that_cannot_be_normalised() {
  Sample sample(8, 4, kFloat32);
  float* row = reinterpret_cast<float*>(sample.memory.data());
  std::fill_n(row + 2 * 4, 4, 0.0f);
  row[5 * 4 + 1] = std::numeric_limits<float>::quiet_NaN();
  row[6 * 4 + 3] = std::numeric_limits<float>::infinity();
  std::vector<double> sums(kSums * 4);
  Interrupt interrupt(nullptr);
  const RowTotals totals = moments(sample.rows, sums.data(), 1, interrupt);
  CHECK(totals.kept == 5);
  CHECK(totals.zero == 1);
  CHECK(totals.nonfinite == 2);
  CHECK(totals.first_invalid == 2);
}

void test_interrupt_stops_every_thread() {
  const Sample sample(20000, 64, kFloat32);
  std::vector<double> sums(kSums * 64), scatter(64 * 64);
  for (int threads : {1, 2}) {
    Interrupt interrupt([] { return true; }, std::chrono::milliseconds(0));
    bool stopped = false;
    try {
      gram(sample.rows, sums.data(), scatter.data(), nullptr, threads, interrupt);
    } catch (const Interrupted&) {
      stopped = true;
    }
    CHECK(stopped);
  }
}

void test_isa_names_are_checked() {
  bool refused = false;
  try {
    use_isa("no-such-isa");
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  CHECK(refused);
}

}  // namespace

int main() {
  watch_forks();
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    std::printf("%s\n", isa.c_str());
    for (DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
      test_against_loops(dtype);
      test_same_bits_for_any_number_of_threads(dtype);
    }
    test_rows_that_cannot_be_normalised();
    test_interrupt_stops_every_thread();
  }
  test_isa_names_are_checked();
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
