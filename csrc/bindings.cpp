// The only file that knows Python: addresses and sizes in, totals out, the lock released while kernels run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "attention.h"
#include "gram.h"
#include "group_moments.h"
#include "kernels.h"
#include "moments.h"
#include "neighbors.h"
#include "pairs.h"

namespace py = pybind11;

namespace {

using namespace fastaniso;

// Asks Python for a pending signal; the lock is held only for the question.
bool signal_pending() {
  py::gil_scoped_acquire lock;
  return PyErr_CheckSignals() != 0;
}

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// A view of the caller's rows: nothing is owned here.
struct PyRows : Rows {
  PyRows(uintptr_t data, int dtype, int64_t outer, int64_t inner, int64_t dim, int64_t outer_stride,
         int64_t inner_stride, uintptr_t mask)
      : Rows{at<const char>(data),
             outer,
             inner,
             dim,
             outer_stride * bytes_of(DType(dtype)),
             inner_stride * bytes_of(DType(dtype)),
             at<const uint8_t>(mask),
             DType(dtype)} {}
};

// A view of the caller's queries or keys, likewise.
struct PyVectors : Vectors {
  PyVectors(uintptr_t data, int dtype, int64_t batch, int64_t heads, int64_t length, int64_t dim, int64_t batch_stride,
            int64_t head_stride, int64_t length_stride, uintptr_t mask)
      : Vectors{at<const char>(data),
                batch,
                heads,
                length,
                dim,
                batch_stride * bytes_of(DType(dtype)),
                head_stride * bytes_of(DType(dtype)),
                length_stride * bytes_of(DType(dtype)),
                at<const uint8_t>(mask),
                DType(dtype)} {}
};

template <class Run>
auto run(const Run& kernel) {
  Interrupt interrupt(signal_pending);
  try {
    py::gil_scoped_release unlock;
    return kernel(interrupt);
  } catch (const Interrupted&) {
    throw py::error_already_set();  // the signal's handler has set the exception
  }
}

void write_totals(const RowTotals& t, const Rows& rows, int64_t start, const double* sums, int64_t* counts,
                  double* totals) {
  double unit_squared = 0;  // of the unit rows as they were summed: near zero mean, the rounding is what matters
  for (int64_t k = 0; k < rows.dim; ++k) unit_squared += sums[3 * rows.dim + k];
  const int64_t first = t.first_invalid == kNoRow ? kNoRow : t.first_invalid + start;
  const int64_t count[] = {t.kept, t.masked, t.zero, t.nonfinite, first};
  const double total[] = {t.norm, t.norm_squared, t.norm_min, t.norm_max, unit_squared, t.unit_fourth};
  std::copy(std::begin(count), std::end(count), counts);
  std::copy(std::begin(total), std::end(total), totals);
}

void write_counts(PairCounts c, int64_t start, int64_t other_start, int64_t* counts) {
  const auto moved = [](int64_t first, int64_t by) { return first == kNoRow ? kNoRow : first + by; };
  const int64_t count[] = {c.pairs, c.masked, c.invalid, moved(c.first_invalid, start),
                           moved(c.first_invalid_other, other_start)};
  std::copy(std::begin(count), std::end(count), counts);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of fastaniso: addresses and sizes in, totals out.";
  watch_forks();

  py::class_<PyRows>(m, "Rows").def(py::init<uintptr_t, int, int64_t, int64_t, int64_t, int64_t, int64_t, uintptr_t>());

  m.def("moments",
        [](const PyRows& rows, int64_t start, int threads, uintptr_t counts, uintptr_t totals, uintptr_t sums) {
          const RowTotals t = run([&](Interrupt& i) { return moments(rows, at<double>(sums), threads, i); });
          write_totals(t, rows, start, at<double>(sums), at<int64_t>(counts), at<double>(totals));
        });

  m.def("gram", [](const PyRows& rows, int64_t start, int threads, uintptr_t counts, uintptr_t totals, uintptr_t sums,
                   uintptr_t scatter, uintptr_t unit_scatter) {
    const RowTotals t = run([&](Interrupt& i) {
      return gram(rows, at<double>(sums), at<double>(scatter), at<double>(unit_scatter), threads, i);
    });
    write_totals(t, rows, start, at<double>(sums), at<int64_t>(counts), at<double>(totals));
  });

  m.def("group_moments", [](const PyRows& rows, uintptr_t groups, int64_t num_groups, int64_t start, int threads,
                            uintptr_t counts, uintptr_t unit_sum, uintptr_t unit_squared, uintptr_t dropped) {
    int64_t outside = 0;
    const RowTotals t = run([&](Interrupt& i) {
      return group_moments(rows, at<int64_t>(groups), num_groups, at<int64_t>(counts), at<double>(unit_sum),
                           at<double>(unit_squared), &outside, threads, i);
    });
    const int64_t first = t.first_invalid == kNoRow ? kNoRow : t.first_invalid + start;
    const int64_t drop[] = {t.masked, t.zero, t.nonfinite, outside, first};
    std::copy(std::begin(drop), std::end(drop), at<int64_t>(dropped));
  });

  m.def("pairs", [](const PyRows& rows, const PyRows* other, int64_t start, int64_t other_start, int threads,
                    std::vector<double> uniformity_t, std::vector<double> thresholds, uintptr_t counts, int64_t bins,
                    uintptr_t histogram, uintptr_t moments, uintptr_t exponentials, uintptr_t above, uintptr_t extrema,
                    uintptr_t extrema_at) {
    const PairResults results{bins,
                              at<int64_t>(histogram),
                              at<double>(moments),
                              std::move(uniformity_t),
                              std::move(thresholds),
                              at<double>(exponentials),
                              at<int64_t>(above),
                              at<double>(extrema),
                              at<int64_t>(extrema_at)};
    const PairCounts c = run([&](Interrupt& i) { return pairs(rows, other, results, threads, i); });
    write_counts(c, start, other_start, at<int64_t>(counts));
    for (int e = 0; extrema && e < 2; ++e) {
      int64_t* const place = results.extrema_at + 2 * e;
      if (place[0] < 0) continue;
      place[0] += start;
      place[1] += other ? other_start : start;
    }
  });

  m.def("neighbors", [](const PyRows& rows, const PyRows* other, uintptr_t least, uintptr_t other_least, int64_t k,
                        int64_t start, int64_t other_start, int threads, uintptr_t counts, uintptr_t cosines,
                        uintptr_t indices, uintptr_t other_cosines, uintptr_t other_indices) {
    const PairCounts c = run([&](Interrupt& i) {
      return neighbors(rows, other, k, {at<void>(cosines), at<int64_t>(indices), start, at<void>(least)},
                       {at<void>(other_cosines), at<int64_t>(other_indices), other_start, at<void>(other_least)},
                       threads, i);
    });
    write_counts(c, start, other_start, at<int64_t>(counts));
  });

  py::class_<PyVectors>(m, "Vectors")
      .def(py::init<uintptr_t, int, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, uintptr_t>());

  m.def("attention", [](const PyVectors& queries, const PyVectors& keys, double scale, int64_t first, int64_t stop,
                        int64_t bins, double low, double high, int64_t positions, int threads, uintptr_t counts,
                        uintptr_t histogram, uintptr_t scores, uintptr_t rows, uintptr_t received, uintptr_t visible) {
    const AttentionResults results{scale,
                                   first,
                                   stop,
                                   bins,
                                   low,
                                   high,
                                   positions,
                                   at<int64_t>(counts),
                                   at<int64_t>(histogram),
                                   at<double>(scores),
                                   at<double>(rows),
                                   at<double>(received),
                                   at<int64_t>(visible)};
    run([&](Interrupt& i) { attention(queries, keys, results, threads, i); });
  });

  m.def("isa", [] { return std::string(kernels().name); }, "The instruction set in use.");
  m.def("available_isas", &available_isas, "The instruction sets this CPU can run, best first.");
  m.def("use_isa", &use_isa, "Use another instruction set; for tests and benchmarks.");
  m.attr("GRAM_ROWS") = kGramRows;
}
