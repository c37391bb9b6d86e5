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

// A block of the pair grid: unit rows packed as panels [rows / width][dim][width], each row of `rows` against each of
// `others`. In a triangle both are of one set, and a pair counts if its row comes before its other.
struct PairBlock {
  const void* rows;
  const void* others;
  int64_t row_count, other_count, dim;
  bool triangle;
  int64_t first_row, first_other;  // places of the first of each in their set, for the triangle
};

constexpr int64_t kMaxBlockRows = 960;  // of `rows`; a multiple of every panel's width

// A cosine and where in the block it was found.
struct Extreme {
  double value;
  int64_t row, other;
};

constexpr int64_t kMaxBins = 8192;
constexpr int kHistograms = 2;  // of which neighbouring pairs take turns: equal cosines would wait for one another

// What is asked for of the cosines of a block, and, zero at first, what was found.
struct PairSums {
  int64_t bins, exponents, thresholds;  // how many; 0 for none
  bool moments, extrema;
  double pivot;
  const double* uniformity_t;
  const double* threshold;

  uint32_t* histogram;  // (bins + 1, kHistograms): a cosine of 1 is in a bin of its own; of all blocks of a thread
  double powers[5];     // Σ(c − pivot)^p for p = 1..4, Σ|c|
  double* exponentials;
  int64_t* above;
  Extreme least, largest;
};

// Best candidates so far, largest cosine first: `cosines` (float or double) and `indices`, both (n, k).
struct NeighborLists {
  void* cosines;
  int64_t* indices;
  const int64_t* slot;  // of each row of the block, its list
  int64_t start;        // index in its source of the row whose list is the first
  uint8_t* locks;       // kLocks, shared by all threads; null for no lists
};
constexpr int64_t kLocks = 4096;

constexpr int64_t kAttentionRows = 48;  // queries at a time at most; a multiple of every tile's rows

// Some queries of one head and the keys of their sequence, both packed as panels [count / width][dim][width]: query i
// sees the keys first[i]..stop[i] of those packed.
struct AttentionBlock {
  const void* queries;
  const void* keys;
  int64_t row_count, dim;
  const int64_t *first, *stop;
  double scale;
  void* scores;    // (row_count up to whole tiles, stride), for the kernel to write to
  int64_t stride;  // the keys that any of the queries sees, up to whole panels, and room for two vectors
};

// What was asked for of a head's attention, and, zero at first, what was found.
struct AttentionSums {
  int64_t bins, positions;
  double low, high;

  uint16_t* places;  // of scores that wait to be counted in the histogram, and how many they are
  int64_t waiting;
  uint32_t* histogram;  // (bins + 2, kHistograms): scores below the range, in its bins, above it
  double* received;     // (positions, and room for a vector)
  int64_t* visible;     // (positions + 1): rows that begin to see a key there less those that do no longer
  int64_t measured, keyless, nonfinite, lonely, scores;
  double sum, square, least, largest;  // of scores; square is central, least and largest ±inf at first
  double rows[5];                      // Σ entropy, Σ entropy / log(keys), Σ of the softmax's largest, median, least
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
  // Packs `count` rows as unit rows, normed in norms, into panels, whose last is filled up with zeros.
  void (*pack_units[kDTypes])(const char* const* rows, const double* norms, int64_t count, int64_t dim, void* panels);
  // Visits the pairs of a block.
  void (*pairs[2])(const PairBlock&, PairSums&);
  void (*neighbors[2])(const PairBlock&, const NeighborLists& rows, const NeighborLists& others, int64_t k);
  // Packs `count` vectors as they are into panels, whose last is filled up with zeros.
  void (*pack_vectors[kDTypes])(const char* const* vectors, int64_t count, int64_t dim, void* panels);
  // Adds the attention of a block's queries.
  void (*attention[2])(const AttentionBlock&, AttentionSums&);
  // sums[j] += factor·Σ_k panel[k] over the columns of a panel; `sums` reaches to the end of the last panel.
  void (*add_columns[2])(const Panels&, int64_t panel, double factor, double* sums);
};

}  // namespace fastaniso
