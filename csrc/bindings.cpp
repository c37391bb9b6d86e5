// The only file that knows Python: addresses and sizes in, totals out, the lock released while kernels run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "gram.h"
#include "group_moments.h"
#include "kernels.h"
#include "moments.h"

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

template <class Run>
RowTotals run(const Run& kernel) {
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

  m.def("isa", [] { return std::string(kernels().name); }, "The instruction set in use.");
  m.def("available_isas", &available_isas, "The instruction sets this CPU can run, best first.");
  m.def("use_isa", &use_isa, "Use another instruction set; for tests and benchmarks.");
  m.attr("GRAM_ROWS") = kGramRows;
}
