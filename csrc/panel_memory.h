// Memory for packed panels, on huge pages where there are any: products stream through it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastaniso {

class PanelMemory {
 public:
  explicit PanelMemory(int64_t bytes) {
    // Small panels share no huge page: clearing one costs more than a product of theirs.
    const int64_t page = bytes < kHugePage ? kLine : kHugePage;
    bytes = (bytes + page - 1) / page * page;
    data_ = std::aligned_alloc(page, bytes ? bytes : page);
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (page == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  }
  ~PanelMemory() { std::free(data_); }
  PanelMemory(const PanelMemory&) = delete;
  PanelMemory& operator=(const PanelMemory&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  static constexpr int64_t kLine = 64, kHugePage = 2 << 20;
  void* data_;
};

}  // namespace fastaniso
