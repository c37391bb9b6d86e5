#include "group_moments.h"

#include <algorithm>
#include <vector>

namespace fastaniso {

namespace {
// Rows between the two steps: on one thread they stay in its second-level cache; several share the last level, and the
// fewer the blocks, the less they wait for each other. Neither changes a sum.
constexpr int64_t kBlockBytes = 256 << 10, kSharedBlockBytes = 4 << 20;
constexpr int64_t kPiecesInBlock = 16;
constexpr int64_t kColumns = 64;  // a thread's columns, where there are several: whole cache lines of every dtype
}  // namespace

RowTotals group_moments(const Rows& rows, const int64_t* groups, int64_t num_groups, int64_t* counts, double* unit_sum,
                        double* unit_squared, int64_t* outside, int threads, Interrupt& interrupt) {
  const Kernels& isa = kernels();
  const int64_t count = rows.outer * rows.inner, row_bytes = rows.dim * bytes_of(rows.dtype);
  if (count * row_bytes < kBytesForThreads) threads = 1;
  const int64_t block_rows = (threads == 1 ? kBlockBytes : kSharedBlockBytes) / row_bytes;
  const int64_t piece = std::max<int64_t>(block_rows / kPiecesInBlock, 1), block = piece * kPiecesInBlock;
  const int64_t columns = threads == 1 ? rows.dim : kColumns;
  std::fill_n(counts, num_groups, 0);
  std::fill_n(unit_sum, num_groups * rows.dim, 0.0);
  std::fill_n(unit_squared, num_groups, 0.0);
  *outside = 0;

  // One mask for the kernels: wanted, and of a group that exists.
  std::vector<uint8_t> usable(count);
  int64_t masked = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool wanted = !rows.mask || rows.mask[i], inside = groups[i] >= 0 && groups[i] < num_groups;
    usable[i] = wanted && inside;
    masked += !wanted;
    *outside += wanted && !inside;
  }
  Rows used = rows;
  used.mask = usable.data();

  RowTotals totals = no_rows();
  std::vector<RowTotals> parts(partials_for(threads), no_rows());
  std::vector<double> norms(block);
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t end = std::min(begin + block, count);
    reduce_in_order((end - begin + piece - 1) / piece, threads, interrupt,
                    [&](int64_t p, int64_t part, int) {
                      const int64_t from = begin + p * piece, to = std::min(from + piece, end);
                      isa.norms[rows.dtype](used, from, to, parts[part], norms.data() + (from - begin));
                    },
                    [&](int64_t, int64_t part) {
                      add(totals, parts[part]);
                      parts[part] = no_rows();
                    });
    for_each_piece((rows.dim + columns - 1) / columns, threads, interrupt, [&](int64_t p, int) {
      isa.add_units[rows.dtype](used, begin, end, norms.data(), groups, p * columns,
                                std::min((p + 1) * columns, rows.dim), unit_sum);
    });
    for (int64_t i = begin; i < end; ++i) {
      if (norms[i - begin] == 0) continue;
      counts[groups[i]] += 1;
      unit_squared[groups[i]] += 1;  // exactly: the unit rows were summed in float64
    }
  }
  totals.masked = masked;
  return totals;
}

}  // namespace fastaniso
