// Chooses the pipeline by what the processor says. APML_CPU=baseline|avx2|avx512 overrides it, for tests.
#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

#include "entry.h"

namespace apml::cpu {
namespace {

bool runs(const std::string& name) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (name == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
  return name == "baseline";
}

const Entry& choose() {
  const char* asked = std::getenv("APML_CPU");
  const std::string wanted = asked == nullptr ? "" : asked;
  TORCH_CHECK(wanted.empty() || runs(wanted), "APML_CPU=", wanted,
              " is unknown or not supported by this processor: use baseline, avx2 or avx512, or leave it out");
  if (wanted == "avx512" || (wanted.empty() && runs("avx512"))) return entry_avx512();
  if (wanted == "avx2" || (wanted.empty() && runs("avx2"))) return entry_avx2();
  return entry_default();
}

}  // namespace

const Entry& entry() {
  static const Entry& chosen = choose();
  return chosen;
}

}  // namespace apml::cpu
