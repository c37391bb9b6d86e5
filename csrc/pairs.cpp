#include "pairs.h"

#include <cmath>
#include <limits>

namespace fastaniso {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kPivotRows = 64;
constexpr double kPivotGrid = 0x1p-16;  // coarse beside the last digit of a cosine, fine beside a spread that it has
constexpr int64_t kCountsInHistogram = int64_t{1} << 31;  // pairs before 32 bits might overflow

// Σu over the first rows that can be normalised.
struct FirstUnits {
  std::vector<double> sum;
  int64_t kept = 0;

  explicit FirstUnits(const Rows& rows) : sum(rows.dim) {
    double norms[kPivotRows];
    const int64_t one_group[kPivotRows] = {};
    const int64_t count = rows.outer * rows.inner;
    for (int64_t begin = 0; begin < count && kept < 2; begin += kPivotRows) {
      const int64_t end = std::min(begin + kPivotRows, count);
      RowTotals totals = no_rows();
      kernels().norms[rows.dtype](rows, begin, end, totals, norms);
      if (totals.kept == 0) continue;
      kept += totals.kept;
      kernels().add_units[rows.dtype](rows, begin, end, norms, one_group - begin, 0, rows.dim, sum.data());
    }
  }
};

// The mean cosine of the first rows' pairs, on a grid.
double cosine_pivot(const Rows& rows, const Rows* other) {
  const FirstUnits ours(rows), theirs(other ? *other : rows);
  double product = 0;
  for (int64_t k = 0; k < rows.dim; ++k) product += ours.sum[k] * theirs.sum[k];
  const double n = double(ours.kept), pairs = other ? n * double(theirs.kept) : n * (n - 1);
  if (pairs == 0) return 0;
  const double mean = (other ? product : product - n) / pairs;
  return std::nearbyint(mean / kPivotGrid) * kPivotGrid;
}

Extreme none(double worst) { return {worst, kNoRow, kNoRow}; }

// The sums of one block, with the memory they point to.
struct BlockSums {
  PairSums sums{};
  std::vector<double> exponentials;
  std::vector<int64_t> above;

  BlockSums(const PairResults& results, double pivot)
      : exponentials(results.uniformity_t.size()), above(results.thresholds.size()) {
    sums.bins = results.bins;
    sums.exponents = exponentials.size();
    sums.thresholds = above.size();
    sums.moments = results.moments;
    sums.extrema = results.extrema;
    sums.pivot = pivot;
    sums.uniformity_t = results.uniformity_t.data();
    sums.threshold = results.thresholds.data();
    sums.exponentials = exponentials.data();
    sums.above = above.data();
    clear();
  }
  BlockSums(BlockSums&&) = default;  // the vectors' memory moves along

  void clear() {
    std::fill(std::begin(sums.powers), std::end(sums.powers), 0.0);
    std::fill(exponentials.begin(), exponentials.end(), 0.0);
    std::fill(above.begin(), above.end(), 0);
    sums.least = none(kInfinity);
    sums.largest = none(-kInfinity);
  }
};

// 32-bit counts of one thread, added to the result before they can overflow.
struct ThreadHistogram {
  std::vector<uint32_t> counts;
  int64_t pairs = 0;

  void flush(int64_t* histogram, int64_t bins) {
    for (int64_t bin = 0; bin <= bins; ++bin)
      for (int h = 0; h < kHistograms; ++h) histogram[std::min(bin, bins - 1)] += counts[bin * kHistograms + h];
    std::fill(counts.begin(), counts.end(), 0);
    pairs = 0;
  }
};

void keep_first(Extreme& best, const Extreme& found, double sign) {
  const bool better = sign * found.value < sign * best.value;
  const bool before = found.row < best.row || (found.row == best.row && found.other < best.other);
  if (better || (found.value == best.value && before)) best = found;
}

// Sums of powers about the pivot as Σc and sums about the mean.
void make_central(const double powers[5], double pivot, int64_t pairs, double* moments) {
  const double n = double(std::max<int64_t>(pairs, 1)), mean = powers[0] / n;
  moments[0] = powers[0] + pairs * pivot;
  moments[1] = powers[1] - mean * powers[0];
  moments[2] = powers[2] - mean * (3 * powers[1] - 2 * mean * powers[0]);
  moments[3] = powers[3] - mean * (4 * powers[2] - mean * (6 * powers[1] - 3 * mean * powers[0]));
  moments[4] = powers[4];
}

}  // namespace

PairCounts pairs(const Rows& rows, const Rows* other, const PairResults& results, int threads, Interrupt& interrupt) {
  PairGrid grid(rows, other, threads);
  const double pivot = results.moments ? cosine_pivot(rows, other) : 0;
  BlockSums total(results, pivot);
  std::vector<BlockSums> partials;
  for (int64_t i = 0; i < partials_for(grid.threads()); ++i) partials.emplace_back(results, pivot);
  std::vector<ThreadHistogram> histograms(grid.threads());
  for (ThreadHistogram& h : histograms) h.counts.resize(results.bins ? (results.bins + 1) * kHistograms : 0);
  std::atomic_flag adding = ATOMIC_FLAG_INIT;
  std::fill_n(results.histogram, results.bins, 0);

  const auto visit = kernels().pairs[computes_in_double(rows.dtype)];
  const PairCounts counts = grid.for_each_block(
      interrupt,
      [&](const PairBlock& block, const int64_t* places, const int64_t* other_places, int64_t partial, int thread) {
        PairSums& sums = partials[partial].sums;
        ThreadHistogram& histogram = histograms[thread];
        sums.histogram = histogram.counts.data();
        visit(block, sums);
        for (Extreme* extreme : {&sums.least, &sums.largest}) {
          if (extreme->row == kNoRow) continue;
          *extreme = {extreme->value, places[extreme->row], other_places[extreme->other]};
        }
        histogram.pairs += block.row_count * block.other_count;
        if (results.bins && histogram.pairs >= kCountsInHistogram) {
          while (adding.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
          histogram.flush(results.histogram, results.bins);
          adding.clear(std::memory_order_release);
        }
      },
      [&](int64_t partial) {
        BlockSums& part = partials[partial];
        for (int p = 0; p < 5; ++p) total.sums.powers[p] += part.sums.powers[p];
        for (size_t e = 0; e < part.exponentials.size(); ++e) total.exponentials[e] += part.exponentials[e];
        for (size_t t = 0; t < part.above.size(); ++t) total.above[t] += part.above[t];
        keep_first(total.sums.least, part.sums.least, 1);
        keep_first(total.sums.largest, part.sums.largest, -1);
        part.clear();
      });

  if (results.bins)
    for (ThreadHistogram& h : histograms) h.flush(results.histogram, results.bins);
  if (results.moments) make_central(total.sums.powers, pivot, counts.pairs, results.moments);
  std::copy(total.exponentials.begin(), total.exponentials.end(), results.exponentials);
  std::copy(total.above.begin(), total.above.end(), results.above);
  if (results.extrema) {
    const Extreme extremes[] = {total.sums.least, total.sums.largest};
    for (int e = 0; e < 2; ++e) {
      const bool found = extremes[e].row != kNoRow;
      results.extrema[e] = extremes[e].value;
      results.extrema_at[2 * e] = found ? extremes[e].row : -1;
      results.extrema_at[2 * e + 1] = found ? extremes[e].other : -1;
    }
  }
  return counts;
}

}  // namespace fastaniso
