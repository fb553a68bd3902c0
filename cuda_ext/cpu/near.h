// Lists of near points for every point of a cloud: the candidates of the swaps. A heuristic reads them, so a search
// that has seen enough boxes stops.
#pragma once

#include "../common/bisection.h"
#include "parallel.h"
#include "search.h"

namespace apml::cpu {
namespace APML_ISA {

// For each sorted point of `from`, sorted positions of points of `to` near it, `length` each.
struct NearLists {
  int length = 0;
  Array<int32_t> at;
  Array<float> cost;  // squared distances

  const int32_t* of(int64_t point) const { return at.data() + point * length; }
};

// What a list's walk keeps between groups.
struct NearWalk {
  Walk<float> walk;
  Lanes<float> best[MOST_NEIGHBOURS + 1];
};

// Keeps the smallest values of each lane, ascending: FIXED of them, or `wanted`.
template <int FIXED>
inline void insert(Lanes<float> value, Lanes<float>* best, int wanted) {
#pragma GCC unroll 16
  for (int k = 0; k < (FIXED > 0 ? FIXED : wanted); ++k) {
    const Lanes<float> worse = upper(best[k], value);
    best[k] = lower(best[k], value);
    value = worse;
  }
}

// The `wanted` smallest distances of each query of a leaf, and the leaves in which they were found.
template <int FIXED>
void find_limits(const Group<float>& g, const Tree<float>& points, int wanted, NearWalk& near) {
  const float inf = std::numeric_limits<float>::infinity();
  Walk<float>& walk = near.walk;
  for (int k = 0; k < wanted; ++k) near.best[k] = spread(inf);
  float bound = inf;
  walk.found = 0;
  const int64_t most = 8 * wanted;  // leaves: several times what even a volume needs
  int64_t visited = 0;
  int top = 0;
  walk.stack[top++] = {0.0f, points.height, 0};
  while (top > 0) {
    const auto node = walk.stack[--top];
    if (node.distance >= bound) continue;
    const int64_t first = int64_t{node.index} * LANES;
    const Level<float>& level = points.level[node.height - 1];
    const Lanes<float> d = to_boxes(g, level, first);
    unsigned open = at_most(d, spread(bound));
    const int room = static_cast<int>(std::min<int64_t>(LANES, level.count - first));
    open &= (1u << room) - 1;
    int child[LANES];
    const int number = __builtin_popcount(open);
    nearest_first<float>(to_centres(g, level, first), open, child);
    if (node.height > 1) {
      for (int c = number; c-- > 0;)
        walk.stack[top++] = {d[child[c]], node.height - 1, static_cast<int32_t>(first + child[c])};
      continue;
    }
    walk.leaves.reserve(walk.found + LANES);
    for (int c = 0; c < number; ++c) {
      if (d[child[c]] >= bound) continue;
      const int64_t at = first + child[c];
      ++visited;
      bool nearer = false;
      for (int k = 0; k < LANES; ++k) {
        const Lanes<float> squared = to_point(g, points, at * LANES + k);
        if (at_most(squared, near.best[wanted - 1]) == 0) continue;
        insert<FIXED>(squared, near.best, wanted);
        nearer = true;
      }
      if (!nearer) continue;
      walk.leaves[walk.found++] = {d[child[c]], static_cast<int32_t>(at)};
      bound = largest<float>(near.best[wanted - 1]);
    }
    if (visited >= most && bound < inf) return;
  }
}

// `length` must be smaller than the number of points if the lists are of the cloud itself, whose points are left out
// of their own lists, and at most that number otherwise.
inline void find_near(const Tree<float>& from, const Tree<float>& to, int length, NearLists& out) {
  const bool itself = &from == &to;
  const int wanted = length + itself;
  out.length = length;
  out.at.allocate(from.leaves * LANES * length);
  out.cost.allocate(from.leaves * LANES * length);
  parallel(from.leaves, chunks_for(from.leaves, 8), [&](int64_t, int64_t begin, int64_t end) {
    NearWalk near;
    for (int64_t leaf = begin; leaf < end; ++leaf) {
      const Group<float> g(from, leaf);
      if (wanted == 8)
        find_limits<8>(g, to, wanted, near);
      else if (wanted == 9)
        find_limits<9>(g, to, wanted, near);
      else
        find_limits<0>(g, to, wanted, near);
      const Lanes<float> limit = near.best[wanted - 1];
      const float bound = largest<float>(limit);
      int count[LANES] = {};
      int32_t* at = out.at.data() + leaf * LANES * length;
      float* squared_distances = out.cost.data() + leaf * LANES * length;
      for (int64_t v = 0; v < near.walk.found; ++v) {
        if (near.walk.leaves[v].distance > bound) continue;
        const int64_t start = int64_t{near.walk.leaves[v].index} * LANES;
        for (int p = 0; p < LANES && start + p < to.size; ++p) {
          const Lanes<float> squared = to_point(g, to, start + p);
          for (unsigned close = at_most(squared, limit); close != 0; close &= close - 1) {
            const int q = __builtin_ctz(close);
            if (count[q] == length || (itself && start + p == g.first + q)) continue;
            squared_distances[q * length + count[q]] = squared[q];
            at[q * length + count[q]++] = static_cast<int32_t>(start + p);
          }
        }
      }
    }
  });
}

}  // namespace APML_ISA
}  // namespace apml::cpu
