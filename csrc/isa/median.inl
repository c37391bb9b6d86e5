// The middle of some numbers without moving any: how many lie below two pivots is counted a vector at a time, and the
// pivots close in on the middle until so few are left that each can be compared with all.
#pragma once

#include "lanes.inl"

namespace fastaniso {
namespace {

// Numbers that are compared each with all.
template <class T>
constexpr int few_numbers() {
  return 2 * kBytes / int(sizeof(T));
}

constexpr int kGuesses = 8;  // by how the numbers seem to lie; then the bracket is halved, whatever they are

// Numbers in the order of integers: neighbours differ by one.
template <class T>
FASTANISO_INLINE typename IntLanes<T>::Int place_of(T x) {
  typedef typename IntLanes<T>::Int Int;
  const Int bits = bits_as<Int>(x);
  return bits < 0 ? Int(~bits) ^ Int(Int(1) << (8 * sizeof(Int) - 1)) : bits;
}
template <class T>
FASTANISO_INLINE T at_place(typename IntLanes<T>::Int place) {
  typedef typename IntLanes<T>::Int Int;
  return bits_as<T>(place < 0 ? Int(~(place ^ Int(Int(1) << (8 * sizeof(Int) - 1)))) : place);
}

// How many of the numbers are below a, and below b. They fill whole vectors, the last with +inf.
template <class T>
FASTANISO_INLINE void count_below(const T* numbers, int64_t count, T a, T b, int64_t& below_a, int64_t& below_b) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = sizeof(V) / sizeof(T);
  const V for_a = V{} + a, for_b = V{} + b;
  IntV sums[2][2] = {};
  int64_t i = 0;
  for (; i + width < count; i += 2 * width) {
    const V x = load(numbers + i), y = load(numbers + i + width);
    sums[0][0] -= x < for_a;
    sums[1][0] -= x < for_b;
    sums[0][1] -= y < for_a;
    sums[1][1] -= y < for_b;
  }
  if (i < count) {
    const V x = load(numbers + i);
    sums[0][0] -= x < for_a;
    sums[1][0] -= x < for_b;
  }
  below_a = lane_sum(sums[0][0] + sums[0][1]);
  below_b = lane_sum(sums[1][0] + sums[1][1]);
}

// The numbers from low on and below high, with room for a vector behind them; their number.
template <class T>
FASTANISO_INLINE int gather_between(const T* numbers, int64_t count, T low, T high, T* to) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T);
  const V from = V{} + low, until = V{} + high;
  int found = 0;
  for (int64_t i = 0; i < count; i += width) {
    const V x = load(numbers + i);
    found += store_kept(to + found, x, (x >= from) & (x < until));
  }
  return found;
}

template <class T>
FASTANISO_INLINE T least_from(const T* numbers, int64_t count, T low) {
  typedef typename Compute<T>::V V;
  constexpr int width = sizeof(V) / sizeof(T);
  const V from = V{} + low, infinity = V{} + T(__builtin_inf());
  V least = infinity;
  for (int64_t i = 0; i < count; i += width) {
    V x = load(numbers + i);
    x = x >= from ? x : infinity;
    least = x < least ? x : least;
  }
  return lane_least(least);
}

// Of few numbers, those that would be at `rank` and the next place if they were sorted: each is compared with all, so
// that nothing depends on how they lie. +inf where there is no next.
template <class T>
FASTANISO_INLINE void select_two(T* few, int count, int64_t rank, T (&selected)[2]) {
  typedef typename Compute<T>::V V;
  typedef typename IntLanes<T>::V IntV;
  constexpr int width = sizeof(V) / sizeof(T), vectors = few_numbers<T>() / width;
  const V infinity = V{} + T(__builtin_inf());
  for (int i = count; i < few_numbers<T>(); ++i) few[i] = T(__builtin_inf());
  V all[vectors];
  IntV less[vectors] = {}, most[vectors] = {};  // how many are less, and less or equal
  for (int v = 0; v < vectors; ++v) all[v] = load(few + v * width);
  for (int i = 0; i < count; ++i) {
    const V one = V{} + few[i];
    for (int v = 0; v < vectors; ++v) {
      less[v] -= one < all[v];
      most[v] -= one <= all[v];
    }
  }
  for (int place = 0; place < 2; ++place) {
    const IntV at = IntV{} + typename IntLanes<T>::Int(rank + place);
    V there = infinity;
    for (int v = 0; v < vectors; ++v) there = ((less[v] <= at) & (most[v] > at)) ? all[v] : there;
    selected[place] = lane_least(there);
  }
}

// Numbers in the bracket low ≤ x < high, of which the middle is one: `below_low` are below it, `below_high` below high.
template <class T>
struct Bracket {
  T low, high;
  int64_t below_low, below_high;

  int64_t inside() const { return below_high - below_low; }
  // Whether its numbers are all equal to low.
  bool one_value() const { return place_of(low) + 1 >= place_of(high); }

  void narrow(int64_t rank, T pivot, int64_t below) {
    if (below > rank) {
      high = pivot;
      below_high = below;
    } else {
      low = pivot;
      below_low = below;
    }
  }

  // The pivot, or the middle of the bracket where it is not inside.
  T within(T pivot) const { return pivot > low && pivot < high ? pivot : halfway(); }
  T halfway() const {
    const auto first = place_of(low), last = place_of(high);
    return at_place<T>(first + (last / 2 - first / 2 > 0 ? last / 2 - first / 2 : 1));
  }
};

// The two numbers in the middle of `count`, twice the same of an odd count. They lie from least to largest, none is
// NaN, and their vectors are filled up with +inf; the first guess is the mean, to within a share of the deviation.
template <class T>
__attribute__((noinline)) void middle_two(const T* numbers, int64_t count, T mean, T deviation, T least, T largest,
                                          T (&middle)[2]) {
  constexpr T first_share = T(0.2);
  const int64_t rank = (count - 1) / 2;
  Bracket<T> bracket{least, at_place<T>(place_of(largest) + 1), 0, count};
  T a = mean - first_share * deviation, b = mean + first_share * deviation;
  for (int round = 0; bracket.inside() > few_numbers<T>() && !bracket.one_value(); ++round) {
    a = bracket.within(a);
    b = bracket.within(b);
    int64_t below_a, below_b;
    count_below(numbers, count, a, b, below_a, below_b);
    bracket.narrow(rank, a, below_a);
    if (b > bracket.low && b < bracket.high) bracket.narrow(rank, b, below_b);
    if (round < kGuesses) {
      // As if what is left lay evenly in the bracket; its middle is then known to within the root of their number.
      const T size = bracket.high - bracket.low, number = T(bracket.inside());
      const T guess = bracket.low + size * (T(rank - bracket.below_low) + T(0.5)) / number;
      const T margin = size / T(__builtin_sqrt(double(number)));
      a = guess - margin;
      b = guess + margin;
    } else {
      a = b = bracket.halfway();
    }
  }
  if (bracket.one_value()) {
    middle[0] = bracket.low;
    middle[1] = rank + 1 < bracket.below_high ? bracket.low : T(__builtin_inf());
  } else {
    T few[few_numbers<T>() + kBytes / sizeof(T)];
    const int number = gather_between(numbers, count, bracket.low, bracket.high, few);
    select_two(few, number, rank - bracket.below_low, middle);
  }
  if (count % 2)
    middle[1] = middle[0];
  else if (rank + 1 == bracket.below_high)
    middle[1] = least_from(numbers, count, bracket.high);
}

}  // namespace
}  // namespace fastaniso
