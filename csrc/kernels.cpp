#include "kernels.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fastaniso {

#if defined(__x86_64__)
extern const Kernels kernels_avx512, kernels_avx2, kernels_scalar;
#elif defined(__aarch64__)
extern const Kernels kernels_neon, kernels_scalar;
#else
extern const Kernels kernels_scalar;
#endif

namespace {

struct Isa {
  const Kernels* kernels;
  bool (*supported)();
};

bool always() { return true; }

#if defined(__x86_64__)
// Features one by one: not every compiler knows the names of levels, or that of F16C.
bool has_avx2() {
  unsigned eax, ebx, ecx = 0, edx;
  const bool has_f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c;
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
const Isa kIsas[] = {{&kernels_avx512, has_avx512}, {&kernels_avx2, has_avx2}, {&kernels_scalar, always}};
#elif defined(__aarch64__)
const Isa kIsas[] = {{&kernels_neon, always}, {&kernels_scalar, always}};
#else
const Isa kIsas[] = {{&kernels_scalar, always}};
#endif

std::string listed() {
  std::string names;
  for (const auto& name : available_isas()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

const Kernels& find(const std::string& name, const char* asked_by) {
  for (const Isa& isa : kIsas) {
    if (name != isa.kernels->name) continue;
    if (!isa.supported())
      throw std::invalid_argument(std::string(asked_by) + ": this CPU cannot run '" + name + "'; it can run " +
                                  listed());
    return *isa.kernels;
  }
  throw std::invalid_argument(std::string(asked_by) + ": no instruction set '" + name + "'; this CPU can run " +
                              listed());
}

std::atomic<const Kernels*> in_use{nullptr};

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas)
    if (isa.supported()) names.emplace_back(isa.kernels->name);
  return names;
}

const Kernels& kernels() {
  if (const Kernels* chosen = in_use.load(std::memory_order_acquire)) return *chosen;
  const char* asked = std::getenv("FASTANISO_ISA");
  const Kernels& chosen = find(asked && *asked ? asked : available_isas().front(), "FASTANISO_ISA");
  in_use.store(&chosen, std::memory_order_release);
  return chosen;
}

void use_isa(const std::string& name) { in_use.store(&find(name, "isa"), std::memory_order_release); }

}  // namespace fastaniso
