#include "pool.h"

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace apml::cpu {

#if defined(APML_NO_POOL)

// For AddressSanitizer, which sees neither an array's end in a rounded block nor the use of one given back to a
// pool: every block exactly as long as asked for and returned to the system at once.
void* take(size_t& bytes) {
  void* block = nullptr;
  if (posix_memalign(&block, 64, bytes) != 0) throw std::bad_alloc();
  return block;
}

void give(void* block, size_t) { std::free(block); }

#else

namespace {

constexpr size_t LINE = 64, SMALL = size_t{16} << 10, LARGE_PAGE = size_t{1} << 21;

struct Kept {
  void* block;
  size_t bytes;
};

struct Pool {
  std::mutex mutex;
  std::deque<Kept> blocks;  // in the order in which they were given back
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
  while (step <= bytes / 16) step *= 2;
  return (bytes + LINE + step - 1) / step * step;
}

}  // namespace

void* take(size_t& bytes) {
  bytes = rounded(bytes);
  if (bytes >= SMALL) {
    Pool& p = pool();
    const std::lock_guard<std::mutex> lock(p.mutex);
    // The one given back last is the warmest; a quarter more than is asked for will do.
    for (auto it = p.blocks.rbegin(); it != p.blocks.rend(); ++it) {
      if (it->bytes < bytes || it->bytes > bytes + bytes / 4) continue;
      const Kept found = *it;
      p.blocks.erase(std::next(it).base());
      p.kept -= found.bytes;
      bytes = found.bytes;
      return found.block;
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
  if (bytes < SMALL || bytes > KEPT_BYTES) return std::free(block);
  Pool& p = pool();
  const std::lock_guard<std::mutex> lock(p.mutex);
  p.blocks.push_back({block, bytes});
  p.kept += bytes;
  while (p.kept > KEPT_BYTES) {  // what has not been asked for the longest time goes
    p.kept -= p.blocks.front().bytes;
    std::free(p.blocks.front().block);
    p.blocks.pop_front();
  }
}

#endif

}  // namespace apml::cpu
