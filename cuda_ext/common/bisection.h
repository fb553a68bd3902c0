// Where a node of the two matched trees splits: drawn from its key, so that every device builds the same trees.
#pragma once

#include "random.h"

namespace apml {

// What defines a fast matching, as the op's arguments give it.
struct FastSettings {
  uint64_t seed;
  int64_t restarts, neighbours, passes;
  bool squares, injective;
};

constexpr int64_t MOST_NEIGHBOURS = 64;

// Nodes of at most this many points are sorted and paired off.
constexpr int64_t BISECTION_LEAF = 8;

struct Bisection {
  float direction[3];  // inside the unit ball, not near its centre; its length does not matter
  uint64_t lower, upper;  // keys of the two parts

  APML_HD explicit Bisection(uint64_t key) : direction{1, 0, 0}, lower(key_of(key, 1)), upper(key_of(key, 2)) {
    uint64_t draw = key_of(key, 3);
    for (int attempt = 0; attempt < 16; ++attempt) {  // each succeeds with probability 1/2
      float u[3];
      for (int k = 0; k < 3; ++k) u[k] = symmetric(draw = mixed(draw));
      const float squared = u[0] * u[0] + u[1] * u[1] + u[2] * u[2];
      if (squared > 1.0f || squared < 0.01f) continue;
      for (int k = 0; k < 3; ++k) direction[k] = u[k];
      break;
    }
  }
};

// How many of a node's `count` points go to its lower part: between a quarter and three quarters of them.
APML_HD int64_t bisection_rank(uint64_t key, int64_t count) {
  const int64_t least = count / 4;
  return least + static_cast<int64_t>(key_of(key, 4) % static_cast<uint64_t>(count - 2 * least + 1));
}

}  // namespace apml
