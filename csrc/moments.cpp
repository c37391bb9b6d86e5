#include "moments.h"

#include <algorithm>
#include <limits>

namespace fastaniso {

namespace {
constexpr int64_t kPieceBytes = 1 << 20;       // long beside a merge, short beside a second
constexpr int64_t kBytesForThreads = 2 << 20;  // below this a second thread costs more than it brings
}  // namespace

RowTotals no_rows() {
  constexpr double inf = std::numeric_limits<double>::infinity();
  return {0, 0, 0, 0, kNoRow, 0, 0, inf, -inf, 0};
}

void add(RowTotals& to, const RowTotals& from) {
  to.kept += from.kept;
  to.masked += from.masked;
  to.zero += from.zero;
  to.nonfinite += from.nonfinite;
  to.first_invalid = std::min(to.first_invalid, from.first_invalid);
  to.norm += from.norm;
  to.norm_squared += from.norm_squared;
  to.norm_min = std::min(to.norm_min, from.norm_min);
  to.norm_max = std::max(to.norm_max, from.norm_max);
  to.unit_fourth += from.unit_fourth;
}

int64_t bytes_of(DType dtype) {
  static constexpr int64_t bytes[kDTypes] = {4, 8, 2, 2};
  return bytes[dtype];
}

bool computes_in_double(DType dtype) { return dtype == kFloat64; }

MomentsBuffer::MomentsBuffer(int64_t dim) {
  const int64_t padded = (dim + kPadding - 1) / kPadding * kPadding;
  memory_.assign(kSums * padded, 0.0);
  partial = {padded, memory_.data(), no_rows()};
}

void MomentsBuffer::clear() {
  std::fill(memory_.begin(), memory_.end(), 0.0);
  partial.totals = no_rows();
}

void add_moments(const Rows& rows, int64_t begin, int64_t end, int64_t piece_rows, MomentsBuffer* buffers, int threads,
                 Interrupt& interrupt, double* sums, RowTotals& totals, double* norms) {
  const auto kernel = kernels().moments[rows.dtype];
  reduce_in_order((end - begin + piece_rows - 1) / piece_rows, threads, interrupt,
                  [&](int64_t piece, int thread) {
                    const int64_t from = begin + piece * piece_rows, to = std::min(from + piece_rows, end);
                    kernel(rows, from, to, buffers[thread].partial, norms ? norms + (from - begin) : nullptr);
                  },
                  [&](int64_t, int thread) {
                    MomentsPartial& part = buffers[thread].partial;
                    for (int s = 0; s < kSums; ++s)
                      for (int64_t k = 0; k < rows.dim; ++k) sums[s * rows.dim + k] += part.sums[s * part.padded + k];
                    add(totals, part.totals);
                    buffers[thread].clear();
                  });
}

RowTotals moments(const Rows& rows, double* sums, int threads, Interrupt& interrupt) {
  const int64_t count = rows.outer * rows.inner, row_bytes = rows.dim * bytes_of(rows.dtype);
  const int64_t piece_rows = std::max<int64_t>(kPieceBytes / row_bytes / kTileRows, 1) * kTileRows;
  if (count * row_bytes < kBytesForThreads) threads = 1;
  threads = int(std::min<int64_t>(threads, count / piece_rows + 1));
  std::vector<MomentsBuffer> buffers;
  for (int t = 0; t < threads; ++t) buffers.emplace_back(rows.dim);
  std::fill_n(sums, kSums * rows.dim, 0.0);
  RowTotals totals = no_rows();
  add_moments(rows, 0, count, piece_rows, buffers.data(), threads, interrupt, sums, totals, nullptr);
  return totals;
}

}  // namespace fastaniso
