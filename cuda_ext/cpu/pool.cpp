#include "pool.h"

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace apml::cpu {
namespace {

constexpr size_t LINE = 64, SMALL = size_t{256} << 10, LARGE_PAGE = size_t{1} << 21;

struct Pool {
  std::mutex mutex;
  std::map<size_t, std::vector<void*>> blocks;
  size_t kept = 0;
};

// Never destroyed: threads may give memory back while the process ends.
Pool& pool() {
  static Pool* const p = new Pool;
  return *p;
}

// Sizes in steps of an eighth, so that nearly equal requests share blocks.
size_t rounded(size_t bytes) {
  if (bytes < SMALL) return (bytes + 2 * LINE - 1) / LINE * LINE;  // room for one vector past the end
  size_t step = SMALL / 8;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + LINE + step - 1) / step * step;
}

}  // namespace

void* take(size_t& bytes) {
  bytes = rounded(bytes);
  if (bytes >= SMALL) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> lock(p.mutex);
    const auto found = p.blocks.find(bytes);
    if (found != p.blocks.end() && !found->second.empty()) {
      void* block = found->second.back();
      found->second.pop_back();
      p.kept -= bytes;
      return block;
    }
  }
  void* block = std::aligned_alloc(bytes >= 2 * LARGE_PAGE ? LARGE_PAGE : LINE,
                                   bytes >= 2 * LARGE_PAGE ? (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE : bytes);
  if (block == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= 2 * LARGE_PAGE) madvise(block, bytes, MADV_HUGEPAGE);  // a wish; refused, nothing is lost
#endif
  return block;
}

void give(void* block, size_t bytes) {
  if (block == nullptr) return;
  if (bytes >= SMALL) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> lock(p.mutex);
    if (p.kept + bytes <= KEPT_BYTES) {
      p.blocks[bytes].push_back(block);
      p.kept += bytes;
      return;
    }
  }
  std::free(block);
}

}  // namespace apml::cpu
