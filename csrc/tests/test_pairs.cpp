// pairs and neighbors without Python, for sanitizers: every instruction set × dtype against plain float64 loops, in
// heap blocks of exactly the rows' size.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "kernels.h"
#include "neighbors.h"
#include "pairs.h"
#include "sample.h"

using namespace fastaniso;

namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

// Cosines (n, m), kNone where there is no pair.
struct Table {
  int64_t n, m;
  std::vector<double> cosines;

  Table(const Sample& rows, const Sample* other) : n(rows.rows.inner), m(other ? other->rows.inner : n) {
    const Sample& others = other ? *other : rows;
    const int64_t dim = rows.rows.dim;
    cosines.assign(n * m, kNone);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < m; ++j) {
        if ((!other && i == j) || !rows.keeps(i) || !others.keeps(j)) continue;
        const double *x = rows.numbers.data() + i * dim, *y = others.numbers.data() + j * dim;
        double xx = 0, yy = 0, xy = 0;
        for (int64_t k = 0; k < dim; ++k) {
          xx += x[k] * x[k];
          yy += y[k] * y[k];
          xy += x[k] * y[k];
        }
        cosines[i * m + j] = xy / std::sqrt(xx * yy);
      }
    }
  }
};

struct Results {
  std::vector<int64_t> histogram = std::vector<int64_t>(64), above = std::vector<int64_t>(1),
                       extrema_at = std::vector<int64_t>(4);
  std::vector<double> moments = std::vector<double>(5), exponentials = std::vector<double>(1),
                      extrema = std::vector<double>(2);
  PairCounts counts;

  Results(const Sample& rows, const Sample* other, int threads) {
    Interrupt interrupt(nullptr);
    PairResults results;
    results.bins = histogram.size();
    results.histogram = histogram.data();
    results.moments = moments.data();
    results.uniformity_t = {2.0};
    results.thresholds = {0.25};
    results.exponentials = exponentials.data();
    results.above = above.data();
    results.extrema = extrema.data();
    results.extrema_at = extrema_at.data();
    counts = pairs(rows.rows, other ? &other->rows : nullptr, results, threads, interrupt);
  }
};

void check_pairs(const Sample& rows, const Sample* other, double tolerance) {
  const Table table(rows, other);
  std::vector<double> cosines;
  for (int64_t i = 0; i < table.n; ++i)
    for (int64_t j = other ? 0 : i + 1; j < table.m; ++j)
      if (table.cosines[i * table.m + j] != kNone) cosines.push_back(table.cosines[i * table.m + j]);
  const Results results(rows, other, 2);
  const int64_t count = cosines.size();
  CHECK(results.counts.pairs == count);
  int64_t counted = 0;
  for (int64_t bin : results.histogram) counted += bin;
  CHECK(counted == count);
  double sum = 0, exponentials = 0;
  for (double c : cosines) {
    sum += c;
    exponentials += std::exp(4 * (c - 1));
  }
  CHECK(std::fabs(results.moments[0] - sum) <= tolerance * (count + 1));
  CHECK(std::fabs(results.exponentials[0] - exponentials) <= 8 * tolerance * (count + 1));
  double central[5] = {};
  for (double c : cosines)
    for (int p = 2; p < 5; ++p) central[p] += std::pow(c - sum / count, p);
  for (int p = 2; p < 5; ++p) CHECK(std::fabs(results.moments[p - 1] - central[p]) <= 16 * tolerance * (count + 1));
  if (count == 0) return;
  const auto [least, largest] = std::minmax_element(cosines.begin(), cosines.end());
  CHECK(std::fabs(results.extrema[0] - *least) <= tolerance);
  CHECK(std::fabs(results.extrema[1] - *largest) <= tolerance);
  for (int e = 0; e < 2; ++e) {
    const double there = table.cosines[results.extrema_at[2 * e] * table.m + results.extrema_at[2 * e + 1]];
    CHECK(std::fabs(results.extrema[e] - there) <= tolerance);
  }
}

template <class T>
void check_list(const T* cosines, const int64_t* indices, int64_t k, std::vector<double> right, double tolerance) {
  for (int64_t place = 0; place < k; ++place) {
    CHECK((indices[place] < 0) == (cosines[place] == T(kNone)));
    if (indices[place] >= 0) CHECK(std::fabs(cosines[place] - right[indices[place]]) <= tolerance);
  }
  right.resize(std::max<size_t>(right.size(), k), kNone);
  std::partial_sort(right.begin(), right.begin() + k, right.end(), std::greater<>());
  for (int64_t place = 0; place < k; ++place)
    CHECK(cosines[place] == T(right[place]) || std::fabs(cosines[place] - right[place]) <= tolerance);
}

template <class T>
void check_neighbors(const Sample& rows, const Sample* other, double tolerance) {
  const Table table(rows, other);
  const int64_t k = 4;
  std::vector<T> cosines(table.n * k), other_cosines(table.m * k);
  std::vector<int64_t> indices(table.n * k), other_indices(table.m * k);
  Interrupt interrupt(nullptr);
  NeighborResults theirs;
  if (other) theirs = {other_cosines.data(), other_indices.data(), 0};
  neighbors(rows.rows, other ? &other->rows : nullptr, k, {cosines.data(), indices.data(), 0}, theirs, 2, interrupt);
  for (int64_t i = 0; i < table.n; ++i) {
    const double* row = table.cosines.data() + i * table.m;
    check_list(cosines.data() + i * k, indices.data() + i * k, k, std::vector<double>(row, row + table.m), tolerance);
  }
  for (int64_t j = 0; other && j < table.m; ++j) {
    std::vector<double> column;
    for (int64_t i = 0; i < table.n; ++i) column.push_back(table.cosines[i * table.m + j]);
    check_list(other_cosines.data() + j * k, other_indices.data() + j * k, k, column, tolerance);
  }
}

void test_against_loops(DType dtype) {
  const double tolerance = dtype == kFloat64 ? 1e-12 : 4e-6;
  for (int64_t n : {0, 1, 2, 5, 130, 311}) {
    for (int64_t dim : {1, 3, 16, 97}) {
      Sample rows(n, dim, dtype, 3), other(57, dim, dtype);
      if (n == 130) {
        rows.mask.assign(n, 1);
        for (int64_t i = 0; i < n; i += 3) rows.mask[i] = 0;
        rows.rows.mask = rows.mask.data();
      }
      for (const Sample* against : {static_cast<const Sample*>(nullptr), static_cast<const Sample*>(&other)}) {
        check_pairs(rows, against, tolerance);
        if (dtype == kFloat64)
          check_neighbors<double>(rows, against, tolerance);
        else
          check_neighbors<float>(rows, against, tolerance);
      }
    }
  }
}

void test_same_bits_for_any_number_of_threads(DType dtype) {
  const Sample sample(3000, 40, dtype);
  const Results once(sample, nullptr, 1);
  for (int threads : {2, 3, 7}) {
    const Results again(sample, nullptr, threads);
    CHECK(again.histogram == once.histogram);
    CHECK(again.moments == once.moments);
    CHECK(again.exponentials == once.exponentials);
    CHECK(again.above == once.above);
    CHECK(again.extrema == once.extrema);
    CHECK(again.extrema_at == once.extrema_at);
  }
}

void test_interrupt_stops_every_thread() {
  const Sample sample(6000, 64, kFloat32);
  std::vector<float> cosines(6000 * 4);
  std::vector<int64_t> indices(6000 * 4);
  for (int threads : {1, 2}) {
    Interrupt interrupt([] { return true; }, std::chrono::milliseconds(0));
    bool stopped = false;
    try {
      neighbors(sample.rows, nullptr, 4, {cosines.data(), indices.data(), 0}, {}, threads, interrupt);
    } catch (const Interrupted&) {
      stopped = true;
    }
    CHECK(stopped);
  }
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
    test_interrupt_stops_every_thread();
  }
  std::printf("%d failures\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
