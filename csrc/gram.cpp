#include "gram.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "panel_memory.h"

namespace fastaniso {

namespace {

constexpr int64_t kPieceRows = 128;  // rows normed or packed by a thread at a time
constexpr int64_t kPivotMeans = 5, kRowsPerMean = 5;
constexpr int64_t kWorkForThreads = 1 << 20;  // multiply-adds below which a second thread costs more than it brings

float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float magnitude = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return bits & 0x8000 ? -magnitude : magnitude;
}

double number_at(const char* row, DType dtype, int64_t k) {
  switch (dtype) {
    case kFloat32:
      return reinterpret_cast<const float*>(row)[k];
    case kFloat64:
      return reinterpret_cast<const double*>(row)[k];
    case kFloat16:
      return half_to_float(reinterpret_cast<const uint16_t*>(row)[k]);
    default: {
      const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(row)[k]} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
  }
}

// x rounded to the last of `bits` digits of `largest`.
double round_to_grid(double x, double largest, int bits) {
  if (largest == 0) return 0;
  const int last = std::ilogb(largest) - bits + 1;
  return std::ldexp(std::nearbyint(std::ldexp(x, -last)), last);
}

// One scatter under construction. Products are of rows minus a pivot close to their mean, so that a mean far from zero
// does not drown what is summed; `finish` moves the scatter from the pivot to the mean.
class Scatter {
 public:
  // Of the unit rows about the given pivot, or, without one, of the rows about theirs.
  Scatter(const Rows& rows, double* out, const UnitPivot* unit_pivot) : rows_(rows), out_(out), unit_(unit_pivot) {
    const bool wide = computes_in_double(rows.dtype);
    width_ = kernels().panel_width[wide];
    panels_ = (rows.dim + width_ - 1) / width_;
    if (unit_) pivot_ = unit_pivot->values();
    pivot_.resize(panels_ * width_, 0.0);
    sum_.assign(panels_ * width_, 0.0);
    shift_.assign(panels_ * width_ * (wide ? 8 : 4), 0);
    std::fill_n(out_, rows.dim * rows.dim, 0.0);
  }

  // The pivot of the rows: by dimension the median of five means of the first rows, which one row that towers over the
  // rest does not move. That of 16-bit rows is rounded to the grid of their largest: differences then have few digits,
  // and their products add up without rounding for long, or at least do not all round alike.
  void set_pivot(const std::vector<const char*>& rows) {
    if (unit_) return;
    const int64_t count = rows.size(), each = std::max<int64_t>(std::min(kRowsPerMean, count / kPivotMeans), 1);
    const int64_t means = std::min(kPivotMeans, count);
    for (int64_t k = 0; k < rows_.dim; ++k) {
      double mean[kPivotMeans] = {}, largest = 0;
      for (int64_t m = 0; m < means; ++m) {
        for (int64_t r = 0; r < each; ++r) {
          const double x = number_at(rows[m * each + r], rows_.dtype, k);
          mean[m] += x / each;
          largest = std::max(largest, std::fabs(x));
        }
      }
      std::nth_element(mean, mean + means / 2, mean + means);
      const double pivot = mean[means / 2];
      pivot_[k] = computes_in_double(rows_.dtype) ? pivot : float(pivot);
      if (rows_.dtype == kFloat16) pivot_[k] = round_to_grid(pivot, largest, 11);
      if (rows_.dtype == kBFloat16) pivot_[k] = round_to_grid(pivot, largest, 8);
      largest_pivot_ = std::max(largest_pivot_, std::fabs(pivot_[k]));
    }
  }

  void add_block(const std::vector<const char*>& rows, const std::vector<double>& norms, double largest_norm,
                 const Panels& panels, int threads, Interrupt& interrupt) {
    const bool wide = computes_in_double(rows_.dtype);
    // A power of two brings the block's entries to at most 1, so that squares of 1e30 do not overflow; exact.
    const double scale = unit_ ? 1.0
                               : std::ldexp(1.0, std::clamp(-std::ilogb(std::max(largest_norm, largest_pivot_)),
                                                            wide ? -1000 : -126, wide ? 1000 : 126));
    set_shift(scale);
    const int64_t count = rows.size();
    for_each_piece((count + kPieceRows - 1) / kPieceRows, threads, interrupt, [&](int64_t piece, int) {
      kernels().pack[rows_.dtype](rows.data(), unit_ ? norms.data() : nullptr, scale, shift_.data(), piece * kPieceRows,
                                  std::min((piece + 1) * kPieceRows, count), rows_.dim, panels);
    });
    const double factor = 1 / scale / scale;
    for_each_piece(panels_ * (panels_ + 1) / 2, threads, interrupt, [&](int64_t piece, int) {
      // Column by column of the upper triangle: neighbours in this order share panel j. Largest columns first.
      const int64_t t = panels_ * (panels_ + 1) / 2 - 1 - piece;
      int64_t j = int64_t((std::sqrt(8.0 * t + 1) - 1) / 2);
      while (j * (j + 1) / 2 > t) --j;
      while ((j + 1) * (j + 2) / 2 <= t) ++j;
      const int64_t i = t - j * (j + 1) / 2;
      kernels().multiply[wide](panels, i, j, rows_.dim, factor, out_);
      if (i == j) kernels().add_columns[wide](panels, j, 1 / scale, sum_.data());
    });
  }

  // With v = x − pivot: Σ(x − x̄)(x − x̄)ᵀ = Σvvᵀ − (Σv)(Σv)ᵀ/n, then the lower triangle.
  void finish(int64_t count, int threads, Interrupt& interrupt) {
    const int64_t dim = rows_.dim;
    if (count == 0) return;
    for_each_piece(dim, threads, interrupt, [&](int64_t i, int) {
      const double mean = sum_[i] / count;
      for (int64_t j = i; j < dim; ++j) out_[i * dim + j] -= mean * sum_[j];
    });
    constexpr int64_t tile = 32;  // a square at a time, so that the transposed writes stay in cache
    const int64_t tiles = (dim + tile - 1) / tile;
    for_each_piece(tiles, threads, interrupt, [&](int64_t tile_j, int) {
      for (int64_t tile_i = 0; tile_i <= tile_j; ++tile_i)
        for (int64_t j = tile_j * tile; j < std::min((tile_j + 1) * tile, dim); ++j)
          for (int64_t i = tile_i * tile; i < std::min((tile_i + 1) * tile, j); ++i)
            out_[j * dim + i] = out_[i * dim + j];
    });
  }

 private:
  void set_shift(double scale) {
    for (size_t k = 0; k < pivot_.size(); ++k) {
      if (computes_in_double(rows_.dtype))
        reinterpret_cast<double*>(shift_.data())[k] = pivot_[k] * scale;
      else
        reinterpret_cast<float*>(shift_.data())[k] = float(pivot_[k] * scale);
    }
  }

  const Rows& rows_;
  double* out_;
  bool unit_;
  int64_t width_, panels_;
  double largest_pivot_ = 0;
  std::vector<double> pivot_, sum_;  // sum_: Σ(x − pivot)
  std::vector<char> shift_;
};

}  // namespace

RowTotals gram(const Rows& rows, double* sums, double* scatter, double* unit_scatter, int threads,
               Interrupt& interrupt) {
  const int64_t count = rows.outer * rows.inner, block = std::min(kGramRows, std::max<int64_t>(count, 1));
  const bool wide = computes_in_double(rows.dtype);
  if (count * rows.dim * rows.dim < kWorkForThreads) threads = 1;

  std::vector<Scatter> scatters;
  const UnitPivot unit_pivot(rows);
  if (scatter) scatters.emplace_back(rows, scatter, nullptr);
  if (unit_scatter) scatters.emplace_back(rows, unit_scatter, &unit_pivot);
  const int64_t width = kernels().panel_width[wide];
  const int64_t panel_bytes = (rows.dim + width - 1) / width * width * block * (wide ? 8 : 4);
  const PanelMemory memory(panel_bytes);
  std::vector<MomentsBuffer> buffers = moments_buffers(rows.dim, unit_pivot, threads);

  std::fill_n(sums, kSums * rows.dim, 0.0);
  RowTotals totals = no_rows();
  std::vector<double> norms(block);
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t end = std::min(begin + block, count);
    RowTotals here = no_rows();
    add_moments(rows, begin, end, kPieceRows, buffers.data(), threads, interrupt, sums, here, norms.data());

    std::vector<const char*> kept;
    std::vector<double> kept_norms;
    for (int64_t i = begin; i < end; ++i) {
      if (norms[i - begin] == 0) continue;
      kept.push_back(rows.data + i / rows.inner * rows.outer_stride + i % rows.inner * rows.inner_stride);
      kept_norms.push_back(norms[i - begin]);
    }
    for (Scatter& s : scatters) {
      if (kept.empty()) continue;
      if (totals.kept == 0) s.set_pivot(kept);
      s.add_block(kept, kept_norms, here.norm_max, {memory.data(), int64_t(kept.size()), block}, threads, interrupt);
    }
    add(totals, here);
  }
  move_to_origin(sums, rows.dim, unit_pivot, totals.kept);
  for (Scatter& s : scatters) s.finish(totals.kept, threads, interrupt);
  return totals;
}

}  // namespace fastaniso
