// What every layer of the CPU kernels speaks about: rows in memory, their totals, and one table of kernels an ISA.
// Plain data only: instruction-set files include this header and must not emit inline functions.
#pragma once

#include <cstdint>

namespace fastaniso {

enum DType : int { kFloat32 = 0, kFloat64 = 1, kFloat16 = 2, kBFloat16 = 3, kDTypes = 4 };

constexpr int64_t kNoRow = INT64_MAX;

// outer × inner rows of dim numbers at two strides, in bytes; the numbers of a row lie side by side.
struct Rows {
  const char* data;
  int64_t outer, inner, dim;
  int64_t outer_stride, inner_stride;
  const uint8_t* mask;  // (outer × inner), nonzero keeps a row; null keeps all
  DType dtype;
};

struct RowTotals {
  int64_t kept, masked, zero, nonfinite, first_invalid;
  double norm, norm_squared, norm_min, norm_max, unit_fourth;
};

// The four sums over rows, in the order of the state: Σx, Σx², Σu, Σu².
constexpr int kSums = 4;
constexpr int64_t kPadding = 16;    // the widest vector, in floats
constexpr int kTileRows = 128;      // rows that moments takes at a time: at most,
constexpr int kLeastTileRows = 16;  // and at least, however wide

// One thread's share of a moments pass. Unit rows are summed as u − pivot, which keeps the digits of a collapsed cloud.
struct MomentsPartial {
  int64_t padded;     // dim rounded up to kPadding
  double* sums;       // kSums × padded
  const void* pivot;  // float or double like what the kernel computes in, padded with zeros
  RowTotals totals;
};

// A block of rows for the Gram product, stored as panels [dim / width][rows][width].
struct Panels {
  void* data;
  int64_t rows;    // rows packed
  int64_t stride;  // rows of storage in a panel
};

struct Kernels {
  const char* name;
  // Columns in a panel, for float and for double products.
  int panel_width[2];

  // Adds rows begin..end to the partial; norms (end − begin), if given, gets each norm and 0 for a dropped row.
  void (*moments[kDTypes])(const Rows&, int64_t begin, int64_t end, MomentsPartial&, double* norms);
  // Only the norms and totals of rows begin..end.
  void (*norms[kDTypes])(const Rows&, int64_t begin, int64_t end, RowTotals&, double* norms);
  // unit_sum[group] += x/‖x‖ over columns column_begin..column_end of the rows whose norm is not 0.
  void (*add_units[kDTypes])(const Rows&, int64_t begin, int64_t end, const double* norms, const int64_t* groups,
                             int64_t column_begin, int64_t column_end, double* unit_sum);
  // Packs rows begin..end into panels: x·scale − shift, or, with norms, x/‖x‖ − shift. `shift` is float or double like
  // the panels, zero from dim to the end of the last panel.
  void (*pack[kDTypes])(const char* const* rows, const double* norms, double scale, const void* shift, int64_t begin,
                        int64_t end, int64_t dim, const Panels&);
  // out[i, j] += factor·Σ_k panel_i[k]·panel_j[k] over the block of panel i and panel j (i ≤ j).
  void (*multiply[2])(const Panels&, int64_t panel_i, int64_t panel_j, int64_t dim, double factor, double* out);
  // sums[j] += factor·Σ_k panel[k] over the columns of a panel; `sums` reaches to the end of the last panel.
  void (*add_columns[2])(const Panels&, int64_t panel, double factor, double* sums);
};

}  // namespace fastaniso
