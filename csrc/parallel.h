// Threads over fixed pieces of work: which thread takes a piece changes nothing in the result.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace fastaniso {

// Thrown on the calling thread once every thread has stopped.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// How a long kernel learns that it should stop: the calling thread asks now and then, the others watch a flag.
class Interrupt {
 public:
  using Poll = bool (*)();
  explicit Interrupt(Poll poll, std::chrono::milliseconds interval = std::chrono::milliseconds(50))
      : poll_(poll), interval_(interval) {}

  bool raised() const { return raised_.load(std::memory_order_relaxed); }

  void poll() {
    const auto now = std::chrono::steady_clock::now();
    if (!poll_ || now - last_ < interval_) return;
    last_ = now;
    if (poll_()) raised_.store(true, std::memory_order_relaxed);
  }

  void check() const {
    if (raised()) throw Interrupted();
  }

 private:
  Poll poll_;
  std::chrono::milliseconds interval_;
  std::atomic<bool> raised_{false};
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// After a fork the child has none of its parent's threads, and an OpenMP region there would wait for them for ever.
inline std::atomic<bool>& in_forked_child() {
  static std::atomic<bool> forked{false};
  return forked;
}

inline void watch_forks() {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, [] { in_forked_child() = true; });
  (void)registered;
#endif
}

// Runs body(thread) on `threads` threads, the calling one as 0. With torch imported first, OpenMP is the runtime that
// torch loaded, so its workers serve both and none is left spinning beside ours.
template <class Body>
void on_threads(int threads, const Body& body) {
  if (threads <= 1 || in_forked_child()) {
    body(0);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num());
#else
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back([&, t] { body(t); });
  body(0);
  for (auto& other : others) other.join();
#endif
}

// work(piece, thread) for every piece, in any order.
template <class Work>
void for_each_piece(int64_t pieces, int threads, Interrupt& interrupt, const Work& work) {
  std::atomic<int64_t> next{0};
  on_threads(threads < pieces ? threads : int(pieces), [&](int thread) {
    for (int64_t piece; (piece = next.fetch_add(1)) < pieces && !interrupt.raised();) {
      work(piece, thread);
      if (thread == 0) interrupt.poll();
    }
  });
  interrupt.check();
}

// Partial results that reduce_in_order takes turns with: enough that no thread waits for a slower one.
inline int64_t partials_for(int threads) { return threads == 1 ? 1 : 4 * threads; }

// work(piece, partial, thread) in any order, then merge(piece, partial) strictly in the order of the pieces: sums are
// added in one order whatever the number of threads. `partial` is one of partials_for(threads).
template <class Work, class Merge>
void reduce_in_order(int64_t pieces, int threads, Interrupt& interrupt, const Work& work, const Merge& merge) {
  const int64_t partials = partials_for(threads);
  std::vector<std::atomic<bool>> finished(partials);
  std::atomic<int64_t> merged{0};
  std::atomic<bool> merging{false};
  const auto merge_what_is_next = [&] {
    if (merging.exchange(true, std::memory_order_acquire)) return;
    for (int64_t next = merged; next < pieces && finished[next % partials].load(std::memory_order_acquire); ++next) {
      merge(next, next % partials);
      finished[next % partials].store(false, std::memory_order_relaxed);
      merged.store(next + 1, std::memory_order_release);
    }
    merging.store(false, std::memory_order_release);
  };
  for_each_piece(pieces, threads, interrupt, [&](int64_t piece, int thread) {
    while (piece - merged.load(std::memory_order_acquire) >= partials) {
      if (interrupt.raised()) return;
      if (thread == 0) interrupt.poll();
      merge_what_is_next();
      std::this_thread::yield();
    }
    work(piece, piece % partials, thread);
    finished[piece % partials].store(true, std::memory_order_release);
    merge_what_is_next();
  });
  merge_what_is_next();
}

}  // namespace fastaniso
