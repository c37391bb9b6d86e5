// attention without Python, for sanitizers: every instruction set × dtype against plain float64 loops, in heap blocks
// of exactly the vectors' size.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "attention.h"
#include "kernels.h"
#include "sample.h"

using namespace fastaniso;

namespace {

constexpr int64_t kBatch = 2, kHeads = 4, kGroups = 2, kBins = 32, kPositions = 5;
constexpr double kLow = -3, kHigh = 3, kInfinity = std::numeric_limits<double>::infinity();

// Vectors (batch, heads, length, dim), their numbers, and a mask that leaves out every third of the second sequence.
struct Head {
  Sample sample;
  Vectors vectors;
  std::vector<uint8_t> mask;

  Head(int64_t heads, int64_t length, int64_t dim, DType dtype, bool masked)
      : sample(kBatch * heads * length, dim, dtype), mask(kBatch * length, 1) {
    const int64_t bytes = bytes_of(dtype);
    for (int64_t i = length; masked && i < 2 * length; i += 3) mask[i] = 0;
    vectors = {sample.memory.data(),
               kBatch,
               heads,
               length,
               dim,
               heads * length * dim * bytes,
               length * dim * bytes,
               dim * bytes,
               masked ? mask.data() : nullptr,
               dtype};
  }
  const double* at(int64_t b, int64_t head, int64_t i) const {
    return sample.numbers.data() + ((b * vectors.heads + head) * vectors.length + i) * vectors.dim;
  }
};

struct Results {
  std::vector<int64_t> counts = std::vector<int64_t>(kHeads * 8), histogram = std::vector<int64_t>(kHeads * kBins),
                       visible = std::vector<int64_t>(kHeads * kPositions);
  std::vector<double> scores = std::vector<double>(kHeads * 4), rows = std::vector<double>(kHeads * 5),
                      received = std::vector<double>(kHeads * kPositions);

  AttentionResults of(double scale, int64_t first, int64_t stop) {
    return {scale,         first,         stop,
            kBins,         kLow,          kHigh,
            kPositions,    counts.data(), histogram.data(),
            scores.data(), rows.data(),   received.data(),
            visible.data()};
  }
};

// The same by loops.
void add_row(Results& to, int64_t head, const std::vector<double>& scores, const std::vector<int64_t>& places) {
  int64_t* counts = to.counts.data() + 8 * head;
  double* rows = to.rows.data() + 5 * head;
  const double n = double(scores.size()), largest = *std::max_element(scores.begin(), scores.end());
  double total = 0, entropy = 0;
  for (double s : scores) total += std::exp(s - largest);
  std::vector<double> softmax;
  for (double s : scores) softmax.push_back(std::exp(s - largest) / total);
  for (size_t k = 0; k < scores.size(); ++k) {
    entropy -= softmax[k] > 0 ? softmax[k] * std::log(softmax[k]) : 0;
    to.scores[4 * head] += scores[k];
    to.scores[4 * head + 2] = std::min(to.scores[4 * head + 2], scores[k]);
    to.scores[4 * head + 3] = std::max(to.scores[4 * head + 3], scores[k]);
    if (places[k] >= kPositions) continue;
    to.received[head * kPositions + places[k]] += softmax[k];
    to.visible[head * kPositions + places[k]] += 1;
  }
  std::sort(softmax.begin(), softmax.end());
  rows[0] += entropy;
  rows[1] += scores.size() > 1 ? entropy / std::log(n) : 0;
  rows[2] += softmax.back();
  rows[3] += (softmax[(softmax.size() - 1) / 2] + softmax[softmax.size() / 2]) / 2;
  rows[4] += softmax.front();
  counts[0] += 1;
  counts[4] += scores.size() == 1;
  counts[5] += scores.size();
}

Results by_loops(const Head& queries, const Head& keys, double scale, int64_t first, int64_t stop) {
  Results right;
  for (int64_t head = 0; head < kHeads; ++head) {
    std::vector<double> every;
    right.scores[4 * head + 2] = kInfinity;
    right.scores[4 * head + 3] = -kInfinity;
    for (int64_t b = 0; b < kBatch; ++b) {
      for (int64_t i = 0; i < queries.vectors.length; ++i) {
        if (!queries.vectors.keeps(b, i)) {
          ++right.counts[8 * head + 1];
          continue;
        }
        std::vector<double> scores;
        std::vector<int64_t> places;
        int64_t place = 0;
        for (int64_t j = 0; j < keys.vectors.length; ++j) {
          if (!keys.vectors.keeps(b, j)) continue;
          if (j >= i + first && j < i + stop) {
            double product = 0;
            const double *q = queries.at(b, head, i), *k = keys.at(b, head / (kHeads / kGroups), j);
            for (int64_t d = 0; d < keys.vectors.dim; ++d) product += q[d] * k[d];
            scores.push_back(scale * product);
            places.push_back(place);
          }
          ++place;
        }
        if (scores.empty())
          ++right.counts[8 * head + 2];
        else
          add_row(right, head, scores, places);
        every.insert(every.end(), scores.begin(), scores.end());
      }
    }
    for (double s : every) {
      const double apart = s - right.scores[4 * head] / double(every.size());
      right.scores[4 * head + 1] += apart * apart;
    }
  }
  return right;
}

bool near(const std::vector<double>& ours, const std::vector<double>& right, double tolerance) {
  for (size_t i = 0; i < ours.size(); ++i)
    if (ours[i] != right[i] && !(std::fabs(ours[i] - right[i]) <= tolerance * (1 + std::fabs(right[i])))) return false;
  return true;
}

void test_against_loops(DType dtype) {
  const double tolerance = dtype == kFloat64 ? 1e-11 : 2e-5;
  for (const int64_t length : {0, 1, 7, 61, 150}) {
    for (const int64_t dim : {1, 16, 97}) {
      for (const int64_t window : {0, 1, 20}) {  // 0: all keys
        const Head queries(kHeads, length, dim, dtype, length == 61), keys(kGroups, length, dim, dtype, length != 150);
        const int64_t first = window ? 1 - window : -length, stop = window ? 1 : length;
        const double scale = 1 / std::sqrt(double(dim));
        Results ours;
        Interrupt interrupt(nullptr);
        attention(queries.vectors, keys.vectors, ours.of(scale, first, stop), 2, interrupt);
        const Results right = by_loops(queries, keys, scale, first, stop);
        for (int64_t head = 0; head < kHeads; ++head) {
          const int64_t* counts = ours.counts.data() + 8 * head;
          CHECK(std::equal(counts, counts + 6, right.counts.data() + 8 * head));
          int64_t counted = counts[6] + counts[7];
          for (int64_t bin = 0; bin < kBins; ++bin) counted += ours.histogram[head * kBins + bin];
          CHECK(counted == counts[5]);
        }
        CHECK(ours.visible == right.visible);
        CHECK(near(ours.scores, right.scores, tolerance * 10));
        CHECK(near(ours.rows, right.rows, tolerance));
        CHECK(near(ours.received, right.received, tolerance));
      }
    }
  }
}

void test_same_bits_for_any_number_of_threads(DType dtype) {
  const Head queries(kHeads, 700, 32, dtype, true), keys(kGroups, 700, 32, dtype, true);
  Results alone;
  for (const int threads : {1, 2, 3, 7}) {
    Results results;
    Interrupt interrupt(nullptr);
    attention(queries.vectors, keys.vectors, results.of(0.2, -700, 1), threads, interrupt);
    if (threads == 1) alone = results;
    CHECK(results.counts == alone.counts);
    CHECK(results.histogram == alone.histogram);
    CHECK(results.scores == alone.scores);
    CHECK(results.rows == alone.rows);
    CHECK(results.received == alone.received);
  }
}

void test_interrupt_stops_every_thread() {
  const Head queries(kHeads, 3000, 16, kFloat32, false), keys(kGroups, 3000, 16, kFloat32, false);
  for (const int threads : {1, 2}) {
    Results results;
    Interrupt interrupt([] { return true; }, std::chrono::milliseconds(0));
    bool stopped = false;
    try {
      attention(queries.vectors, keys.vectors, results.of(1, -3000, 3000), threads, interrupt);
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
