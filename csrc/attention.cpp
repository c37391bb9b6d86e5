#include "attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels.h"
#include "panel_memory.h"

namespace fastaniso {

namespace {

constexpr int64_t kSharedBytes = 12 << 20;    // packed keys of several sequences and heads, in the last-level cache
constexpr int64_t kOwnBytes = 512 << 10;      // scores of a thread, in its second-level cache
constexpr int64_t kLeastRows = 8;             // that a thread takes at a time, however many keys they see
constexpr int64_t kScoresInPiece = 1 << 19;   // enough for what is merged to be little beside it
constexpr int64_t kWorkForThreads = 1 << 20;  // multiply-adds below which a second thread costs more than it brings
constexpr int64_t kKeysPacked = 240;          // by a thread at a time; a multiple of any panel
constexpr int64_t kWidest = 48, kTwoVectors = 32;  // of a panel; in floats
constexpr double kInfinity = std::numeric_limits<double>::infinity();

int64_t whole_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Positions that a mask keeps, one after another, and how many of them are before each.
struct Kept {
  std::vector<int64_t> places, before;

  Kept(const Vectors& vectors, int64_t b) {
    for (int64_t i = 0; i < vectors.length; ++i) {
      before.push_back(places.size());
      if (vectors.keeps(b, i)) places.push_back(i);
    }
    before.push_back(places.size());
  }
  int64_t count() const { return places.size(); }
};

// The sums of some queries of one head, with the memory they point to.
struct HeadSums {
  AttentionSums sums{};
  std::vector<uint32_t> histogram;
  std::vector<double> received;
  std::vector<int64_t> visible;

  explicit HeadSums(const AttentionResults& results)
      : histogram(results.bins ? (results.bins + 2) * kHistograms : 0),
        received(results.positions + kPadding),
        visible(results.positions + 1) {
    sums.bins = results.bins;
    sums.positions = results.positions;
    sums.low = results.low;
    sums.high = results.high;
    clear();
  }
  HeadSums(HeadSums&&) = default;

  void clear() {
    std::fill(histogram.begin(), histogram.end(), 0);
    std::fill(received.begin(), received.end(), 0);
    std::fill(visible.begin(), visible.end(), 0);
    AttentionSums empty{};
    empty.bins = sums.bins;
    empty.positions = sums.positions;
    empty.low = sums.low;
    empty.high = sums.high;
    empty.histogram = histogram.data();
    empty.received = received.data();
    empty.visible = visible.data();
    empty.least = kInfinity;
    empty.largest = -kInfinity;
    sums = empty;
  }
};

void clear(const AttentionResults& to, int64_t heads) {
  std::fill_n(to.counts, heads * 8, 0);
  std::fill_n(to.histogram, heads * to.bins, 0);
  std::fill_n(to.rows, heads * 5, 0);
  std::fill_n(to.received, heads * to.positions, 0);
  std::fill_n(to.visible, heads * to.positions, 0);
  for (int64_t head = 0; head < heads; ++head) {
    const double none[] = {0, 0, kInfinity, -kInfinity};
    std::copy(std::begin(none), std::end(none), to.scores + 4 * head);
  }
}

void add(const AttentionResults& to, int64_t head, const HeadSums& part) {
  const AttentionSums& sums = part.sums;
  int64_t* const counts = to.counts + 8 * head;
  double* const scores = to.scores + 4 * head;
  // Chan, Golub & LeVeque: central squares of both about the mean of both.
  const double ours = double(counts[5]), theirs = double(sums.scores);
  const double apart = ours > 0 && theirs > 0 ? sums.sum / theirs - scores[0] / ours : 0;
  if (theirs > 0) scores[1] += sums.square + apart * apart * ours * (theirs / (ours + theirs));
  scores[0] += sums.sum;
  scores[2] = std::min(scores[2], sums.least);
  scores[3] = std::max(scores[3], sums.largest);
  const int64_t counted[] = {sums.measured, 0, sums.keyless, sums.nonfinite, sums.lonely, sums.scores};
  for (int c = 0; c < 6; ++c) counts[c] += counted[c];
  for (int h = 0; to.bins && h < kHistograms; ++h) {
    const uint32_t* bins = part.histogram.data() + h;
    counts[6] += bins[0];
    counts[7] += bins[(to.bins + 1) * kHistograms];
    for (int64_t bin = 0; bin < to.bins; ++bin) to.histogram[head * to.bins + bin] += bins[(bin + 1) * kHistograms];
  }
  for (int r = 0; r < 5; ++r) to.rows[5 * head + r] += sums.rows[r];
  int64_t seen = 0;
  for (int64_t k = 0; k < to.positions; ++k) {
    to.received[head * to.positions + k] += part.received[k];
    to.visible[head * to.positions + k] += seen += part.visible[k];
  }
}

class HeadPass {
 public:
  HeadPass(const Vectors& queries, const Vectors& keys, const AttentionResults& results, int threads);
  void run(Interrupt& interrupt);

 private:
  // One sequence's keys of one head, packed, and the pieces of queries that read them.
  struct Set {
    int64_t b, group, offset, first_piece;
  };

  int64_t vector_bytes() const { return keys_.dim * number_bytes_; }
  // Of the rows at a time, up to whole tiles of any height.
  int64_t score_bytes() const { return whole_lines((rows_ + kLeastRows) * stride_ * number_bytes_); }
  int64_t query_bytes() const { return whole_lines((kAttentionRows + kWidest) * vector_bytes()); }
  int64_t packed_bytes(int64_t b) const { return whole_lines((kept_keys_[b].count() + kWidest) * vector_bytes()); }
  int64_t pieces_of(int64_t b) const {
    return (kept_queries_[b].count() + piece_rows_ - 1) / piece_rows_ * heads_in_group_;
  }
  void pack_keys(const std::vector<Set>& sets, char* panels, Interrupt& interrupt) const;
  void measure(const Set& set, int64_t piece, const char* panels, char* own, HeadSums& out) const;

  const Vectors &queries_, &keys_;
  const AttentionResults& results_;
  int threads_;
  bool wide_;
  int64_t number_bytes_, heads_in_group_;
  int64_t rows_, piece_rows_, stride_;  // queries at a time, in a piece; scores between those of two queries
  std::vector<Kept> kept_queries_, kept_keys_;
};

HeadPass::HeadPass(const Vectors& queries, const Vectors& keys, const AttentionResults& results, int threads)
    : queries_(queries),
      keys_(keys),
      results_(results),
      threads_(threads),
      wide_(computes_in_double(queries.dtype)),
      number_bytes_(wide_ ? 8 : 4),
      heads_in_group_(queries.heads / keys.heads) {
  // Keys that queries next to each other see, at most.
  const int64_t seen = std::max<int64_t>(std::min(keys.length, results.stop - results.first), 1);
  rows_ = std::clamp(kOwnBytes / (seen * number_bytes_) / kLeastRows * kLeastRows, kLeastRows, kAttentionRows);
  piece_rows_ = rows_ * std::max<int64_t>(kScoresInPiece / (rows_ * seen), 1);
  // A masked query between two others moves what they see apart by more than their number.
  const int64_t span = std::min(keys.length, queries.mask ? keys.length : seen + rows_);
  stride_ = span + 2 * kWidest + kTwoVectors;
  if (double(queries.batch) * queries.heads * queries.length * seen * queries.dim < kWorkForThreads) threads_ = 1;
  for (int64_t b = 0; b < queries.batch; ++b) {
    kept_queries_.emplace_back(queries, b);
    kept_keys_.emplace_back(keys, b);
  }
}

void HeadPass::pack_keys(const std::vector<Set>& sets, char* panels, Interrupt& interrupt) const {
  struct Part {
    const Set* set;
    int64_t begin;
  };
  std::vector<Part> parts;
  for (const Set& set : sets)
    for (int64_t begin = 0; begin < kept_keys_[set.b].count(); begin += kKeysPacked) parts.push_back({&set, begin});
  for_each_piece(parts.size(), threads_, interrupt, [&](int64_t p, int) {
    const auto [set, begin] = parts[p];
    const Kept& kept = kept_keys_[set->b];
    const int64_t count = std::min(kKeysPacked, kept.count() - begin);
    const char* vectors[kKeysPacked];
    for (int64_t i = 0; i < count; ++i) vectors[i] = keys_.vector(set->b, set->group, kept.places[begin + i]);
    kernels().pack_vectors[keys_.dtype](vectors, count, keys_.dim, panels + set->offset + begin * vector_bytes());
  });
}

// The piece'th part of the queries that read a set's keys: head by head, some rows after another.
void HeadPass::measure(const Set& set, int64_t piece, const char* panels, char* own, HeadSums& out) const {
  const Kept &queries = kept_queries_[set.b], &keys = kept_keys_[set.b];
  const int64_t in_head = pieces_of(set.b) / heads_in_group_;
  const int64_t head = set.group * heads_in_group_ + piece / in_head;
  const int64_t begin = piece % in_head * piece_rows_, end = std::min(begin + piece_rows_, queries.count());
  char* const packed = own + score_bytes();
  out.sums.places = reinterpret_cast<uint16_t*>(packed + query_bytes());
  for (int64_t from = begin; from < end; from += rows_) {
    const int64_t count = std::min(rows_, end - from);
    const char* vectors[kAttentionRows];
    int64_t first[kAttentionRows], stop[kAttentionRows];
    for (int64_t r = 0; r < count; ++r) {
      const int64_t i = queries.places[from + r];
      vectors[r] = queries_.vector(set.b, head, i);
      first[r] = keys.before[std::clamp<int64_t>(i + results_.first, 0, keys_.length)];
      stop[r] = keys.before[std::clamp<int64_t>(i + results_.stop, 0, keys_.length)];
    }
    kernels().pack_vectors[queries_.dtype](vectors, count, queries_.dim, packed);
    const AttentionBlock block{packed, panels + set.offset, count, queries_.dim, first,
                               stop,   results_.scale,      own,   stride_};
    kernels().attention[wide_](block, out.sums);
  }
  for (int64_t& left = out.sums.waiting; left > 0; --left)
    ++out.histogram[out.sums.places[left - 1] * kHistograms + left % kHistograms];
}

void HeadPass::run(Interrupt& interrupt) {
  clear(results_, queries_.heads);
  for (int64_t b = 0; b < queries_.batch; ++b)
    for (int64_t head = 0; head < queries_.heads; ++head)
      results_.counts[8 * head + 1] += queries_.length - kept_queries_[b].count();

  const int64_t own_bytes = score_bytes() + query_bytes() + (results_.bins ? whole_lines(2 * rows_ * stride_) : 0);
  const PanelMemory own(threads_ * own_bytes);
  std::vector<HeadSums> partials;
  for (int64_t i = 0; i < partials_for(threads_); ++i) partials.emplace_back(results_);
  std::vector<int64_t> head_of(partials.size());

  const int64_t all = queries_.batch * keys_.heads;
  int64_t largest = 0;
  for (int64_t b = 0; b < queries_.batch; ++b) largest = std::max(largest, packed_bytes(b));
  const PanelMemory panels(std::max(std::min(kSharedBytes, all * largest), largest));
  for (int64_t next = 0; next < all;) {
    // As many sequences' keys as there is room for, and the pieces of all their queries.
    std::vector<Set> sets;
    int64_t used = 0, pieces = 0;
    for (; next < all && (sets.empty() || used + packed_bytes(next / keys_.heads) <= kSharedBytes); ++next) {
      const int64_t b = next / keys_.heads;
      sets.push_back({b, next % keys_.heads, used, pieces});
      used += packed_bytes(b);
      pieces += pieces_of(b);
    }
    pack_keys(sets, panels.data(), interrupt);
    reduce_in_order(
        pieces, threads_, interrupt,
        [&](int64_t piece, int64_t partial, int thread) {
          const auto after = std::upper_bound(sets.begin(), sets.end(), piece,
                                              [](int64_t p, const Set& set) { return p < set.first_piece; });
          const Set& set = *(after - 1);
          const int64_t in_head = pieces_of(set.b) / heads_in_group_;
          head_of[partial] = set.group * heads_in_group_ + (piece - set.first_piece) / in_head;
          measure(set, piece - set.first_piece, panels.data(), own.data() + thread * own_bytes, partials[partial]);
        },
        [&](int64_t, int64_t partial) {
          add(results_, head_of[partial], partials[partial]);
          partials[partial].clear();
        });
  }
}

}  // namespace

void attention(const Vectors& queries, const Vectors& keys, const AttentionResults& results, int threads,
               Interrupt& interrupt) {
  HeadPass(queries, keys, results, threads).run(interrupt);
}

}  // namespace fastaniso
