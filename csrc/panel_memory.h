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
#if defined(__linux__)
    // Mapped, and given back at once: the heap would keep what is freed, in pieces that the next panels do not fit.
    if (bytes >= kHugePage) {
      mapped_ = bytes + kHugePage;
      base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (base_ == MAP_FAILED) throw std::bad_alloc();
      data_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(base_) + kHugePage - 1) / kHugePage * kHugePage);
      madvise(data_, bytes, MADV_HUGEPAGE);
      return;
    }
#endif
    base_ = std::aligned_alloc(kLine, (bytes / kLine + 1) * kLine);
    if (!base_) throw std::bad_alloc();
    data_ = static_cast<char*>(base_);
  }
  ~PanelMemory() {
#if defined(__linux__)
    if (mapped_) {
      munmap(base_, mapped_);
      return;
    }
#endif
    std::free(base_);
  }
  PanelMemory(const PanelMemory&) = delete;
  PanelMemory& operator=(const PanelMemory&) = delete;
  char* data() const { return data_; }

 private:
  static constexpr int64_t kLine = 64, kHugePage = 2 << 20;
  void* base_;
  char* data_;
  int64_t mapped_ = 0;
};

}  // namespace fastaniso
