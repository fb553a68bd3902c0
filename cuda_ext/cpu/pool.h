// Memory for large arrays, kept between calls: a training loop asks for the same sizes at every step, and pages
// fresh from the system cost more than the work done in them.
#pragma once

#include <cstddef>

namespace apml::cpu {

// A block of at least `bytes`, aligned to a cache line; `bytes` becomes its size. Throws std::bad_alloc.
void* take(size_t& bytes);

// Gives back a block of that size. At most KEPT_BYTES in all are kept; the rest returns to the system.
void give(void* block, size_t bytes);

constexpr size_t KEPT_BYTES = size_t{256} << 20;

}  // namespace apml::cpu
