#include "pair_blocks.h"

namespace fastaniso {

namespace {

// Shared by all threads, in the last-level cache; and a thread's own, most of a second-level cache of 1 MB.
constexpr int64_t kSharedBytes = 12 << 20, kOwnBytes = 720 << 10;
constexpr int64_t kMaxBlockOthers = 4080;
constexpr int64_t kWorkForThreads = 1 << 20;  // multiply-adds below which a second thread costs more than it brings
constexpr int64_t kPieceRows = 240;           // rows counted or packed by a thread at a time; a multiple of any panel

int64_t whole_panels(int64_t rows, int64_t width) { return std::max<int64_t>(rows / width, 1) * width; }

const char* row_at(const Rows& rows, int64_t i) {
  return rows.data + i / rows.inner * rows.outer_stride + i % rows.inner * rows.inner_stride;
}

}  // namespace

PairGrid::PairGrid(const Rows& rows, const Rows* other, int threads)
    : rows_(rows),
      other_(other),
      wide_(computes_in_double(rows.dtype)),
      width_(kernels().panel_width[wide_]),
      count_(rows.outer * rows.inner),
      other_count_(other ? other->outer * other->inner : count_),
      threads_(threads) {
  if (count_ * double(other_count_) * rows.dim < kWorkForThreads) threads_ = 1;
  // Blocks no larger than the rows fill, for every thread to have several.
  const auto filled = [&](int64_t n) { return whole_panels(n + width_ - 1, width_); };
  block_others_ = std::min(
      {whole_panels(kSharedBytes / row_bytes(), width_), whole_panels(kMaxBlockOthers, width_), filled(other_count_)});
  block_rows_ = std::min({whole_panels(kOwnBytes / row_bytes(), width_), whole_panels(kMaxBlockRows, width_),
                          whole_panels(count_ / 16, width_)});
}

// Packs what can be normalised of rows begin..end.
RowTotals PairGrid::pack(const Rows& rows, int64_t begin, int64_t end, UnitRows& to) const {
  double norms[kMaxBlockRows];
  const char* kept[kMaxBlockRows];
  RowTotals totals = no_rows();
  kernels().norms[rows.dtype](rows, begin, end, totals, norms);
  to.places.clear();
  for (int64_t i = begin; i < end; ++i) {
    if (norms[i - begin] == 0) continue;
    kept[to.places.size()] = row_at(rows, i);
    norms[to.places.size()] = norms[i - begin];
    to.places.push_back(i);
  }
  kernels().pack_units[rows.dtype](kept, norms, to.places.size(), rows.dim, to.panels);
  return totals;
}

// The same by all threads: norms of all, then panels of those that are kept.
RowTotals PairGrid::pack_together(const Rows& rows, int64_t begin, int64_t end, UnitRows& to,
                                  Interrupt& interrupt) const {
  const int64_t pieces = (end - begin + kPieceRows - 1) / kPieceRows;
  std::vector<double> norms(end - begin);
  std::vector<RowTotals> totals(pieces, no_rows());
  for_each_piece(pieces, threads_, interrupt, [&](int64_t piece, int) {
    const int64_t from = begin + piece * kPieceRows, stop = std::min(from + kPieceRows, end);
    kernels().norms[rows.dtype](rows, from, stop, totals[piece], norms.data() + (from - begin));
  });
  to.places.clear();
  std::vector<const char*> kept;
  std::vector<double> kept_norms;
  for (int64_t i = begin; i < end; ++i) {
    if (norms[i - begin] == 0) continue;
    kept.push_back(row_at(rows, i));
    kept_norms.push_back(norms[i - begin]);
    to.places.push_back(i);
  }
  const int64_t count = kept.size();
  for_each_piece((count + kPieceRows - 1) / kPieceRows, threads_, interrupt, [&](int64_t piece, int) {
    const int64_t from = piece * kPieceRows;
    kernels().pack_units[rows.dtype](kept.data() + from, kept_norms.data() + from, std::min(kPieceRows, count - from),
                                     rows.dim, to.panels + from * row_bytes());
  });
  RowTotals all = no_rows();
  for (const RowTotals& piece : totals) add(all, piece);
  return all;
}

RowTotals PairGrid::count(const Rows& rows, Interrupt& interrupt) const {
  const int64_t rows_at_once = kMaxBlockRows, pieces = (count_ + rows_at_once - 1) / rows_at_once;
  RowTotals all = no_rows();
  std::vector<RowTotals> totals(partials_for(threads_));
  reduce_in_order(
      pieces, threads_, interrupt,
      [&](int64_t piece, int64_t partial, int) {
        double norms[kMaxBlockRows];
        totals[partial] = no_rows();
        kernels().norms[rows.dtype](rows, piece * rows_at_once, std::min((piece + 1) * rows_at_once, count_),
                                    totals[partial], norms);
      },
      [&](int64_t, int64_t partial) { add(all, totals[partial]); });
  return all;
}

PairCounts PairGrid::counts(const RowTotals& rows, const RowTotals& others) const {
  const auto pairs_of = [&](int64_t n, int64_t m) { return other_ ? n * m : n * (n - 1) / 2; };
  const int64_t everything = pairs_of(count_, other_count_);
  const int64_t unmasked = pairs_of(count_ - rows.masked, other_count_ - others.masked);
  const int64_t kept = pairs_of(rows.kept, others.kept);
  return {kept, everything - unmasked, unmasked - kept, rows.first_invalid, other_ ? others.first_invalid : kNoRow};
}

}  // namespace fastaniso
