// One-to-one matching of a pair at the price of a neighbour search: random trees, swaps, the better of several.
#pragma once

#include "entry.h"
#include "swap.h"

namespace apml::cpu {
namespace APML_ISA {

// Coordinates of both clouds with the origin in their midst and 1 as the largest: float32 holds them, their squares
// and their differences, whatever the unit and however far away they are.
struct Frame {
  double centre[3] = {0, 0, 0}, scale = 1;  // a power of 2
  bool finite = true;

  template <typename Given>
  explicit Frame(const Pair<Given>& p) {
    double most = 0;
    for (int k = 0; k < p.d; ++k) {
      double lo = std::numeric_limits<double>::infinity(), hi = -lo, off = 0;
      auto widen = [&](const Given* cloud, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
          const double v = cloud[i * p.d + k];
          lo = v < lo ? v : lo;
          hi = v > hi ? v : hi;
          off += v - v;  // NaN unless v is finite
        }
      };
      widen(p.pred, p.n);
      widen(p.gt, p.m);
      finite = finite && off == 0;
      centre[k] = 0.5 * lo + 0.5 * hi;
      most = std::max(most, 0.5 * hi - 0.5 * lo);
    }
    if (!finite || most == 0) return;
    int exponent;
    std::frexp(most, &exponent);
    scale = std::ldexp(1.0, std::min(-exponent, 1000));
  }
};

// A cloud in its frame, sorted.
struct Sorted {
  Tree<float> tree;
  Array<Point> points;

  template <typename Given>
  void fill(const Frame& frame, const Given* cloud, int64_t n, int d) {
    Array<float> framed(n * 3);
    for (int64_t i = 0; i < n; ++i)
      for (int k = 0; k < 3; ++k)
        framed[i * 3 + k] = k < d ? static_cast<float>((cloud[i * d + k] - frame.centre[k]) * frame.scale) : 0.0f;
    build(tree, framed.data(), n, 3);
    points.allocate(n);
    for (int64_t i = 0; i < n; ++i)
      points[i] = {{tree.x[0][i], tree.x[1][i], tree.x[2][i]}, static_cast<int32_t>(i)};
  }
};

// Step 1 and step 2, with the trees of `key`.
template <bool SQUARED, bool COPIES>
void match_once(Slots& slots, int64_t columns, const Neighbourhood& near, uint64_t key, int64_t passes, bool transfers,
                Matching& m) {
  Array<Point> a(slots.count), b(columns);
  for (int64_t s = 0; s < slots.count; ++s) {
    a[s] = slots.at[s];
    a[s].index = static_cast<int32_t>(s);
  }
  std::memcpy(b.data(), near.b, static_cast<size_t>(columns) * sizeof(Point));
  match_trees(a.data(), slots.count, b.data(), columns, key, m.column.data());
  for (int64_t s = 0; s < slots.count; ++s) {
    m.owner[m.column[s]] = static_cast<int32_t>(s);
    m.cost[s] = cost_between<SQUARED>(slots.at[s], near.b[m.column[s]]);
  }
  swap_waiting<SQUARED, COPIES>(slots, near, m, passes, transfers);
}

// Step 3: the union of two matchings falls into cycles, and into paths where columns are free. On each of them either
// matching can be had, and `m` gets the cheaper one.
inline void take_cheaper(Matching& m, const Matching& other, int64_t slots, int64_t columns) {
  Array<uint8_t> seen;
  seen.allocate(slots, 0);
  // From a slot to the one that the other matching drives out, until none is or the cycle closes.
  auto settle = [&](int32_t start) {
    double gain = 0;
    for (int32_t s = start; s >= 0 && !seen[s]; s = m.owner[other.column[s]]) {
      seen[s] = 1;
      gain += double(m.cost[s]) - double(other.cost[s]);
    }
    if (!(gain > 0)) return;
    for (int32_t s = start; s >= 0;) {
      const int32_t column = other.column[s], next = m.owner[column], left = m.column[s];
      if (m.owner[left] == s) m.owner[left] = -1;
      m.owner[column] = s;
      m.column[s] = column;
      m.cost[s] = other.cost[s];
      m.waiting[s] = 1;
      if (next == start || next == s) break;
      s = next;
    }
  };
  for (int64_t c = 0; c < columns; ++c)  // a path begins at a column that only `m` uses
    if (m.owner[c] >= 0 && other.owner[c] < 0) settle(m.owner[c]);
  for (int64_t s = 0; s < slots; ++s)
    if (!seen[s]) settle(static_cast<int32_t>(s));
}

// The whole matching. Its trees and first swaps are independent of each other and done side by side; what comes out does
// not depend on how many are.
template <bool SQUARED, bool COPIES>
std::unique_ptr<Matching> match_framed(Slots& slots, int64_t columns, const Neighbourhood& near,
                                       const FastSettings& settings) {
  constexpr int64_t WIDE = 8, WORTH = 4096;
  const int64_t restarts = settings.restarts, threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t group = slots.count < WORTH ? 1 : std::min(std::min(threads, restarts), WIDE);
  std::unique_ptr<Matching> best, made[WIDE];
  int64_t first = 0;
  if (COPIES) {  // the first one may change what the slots are, and the others are merged into it
    best.reset(new Matching(slots.count, columns));
    match_once<SQUARED, COPIES>(slots, columns, near, key_of(settings.seed, first++), settings.passes, true, *best);
  }
  for (; first < restarts; first += group) {
    const int64_t number = std::min(group, restarts - first);
    parallel(number, number, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        made[k].reset(new Matching(slots.count, columns));
        match_once<SQUARED, COPIES>(slots, columns, near, key_of(settings.seed, first + k), settings.passes, false,
                                    *made[k]);
      }
    });
    for (int64_t k = 0; k < number; ++k) {
      if (best == nullptr) {
        best = std::move(made[k]);
        continue;
      }
      take_cheaper(*best, *made[k], slots.count, columns);
      if (first + k < restarts - 1) swap_waiting<SQUARED, COPIES>(slots, near, *best, settings.passes, false);
    }
  }
  if (restarts == 1 && !COPIES) return best;
  // Once more for all: what is near a slot has changed, too.
  for (int64_t s = 0; s < slots.count; ++s) best->waiting[s] = 1;
  swap_waiting<SQUARED, COPIES>(slots, near, *best, settings.passes, COPIES);
  return best;
}

// Distances of partners in the given coordinates, in double: the loss, and each partner's share of the gradients.
template <typename Given>
double add_up(const Pair<Given>& p, const Frame& frame, const int64_t* pairs, int64_t count, bool squares) {
  double total = 0;
  const double back = 1.0 / frame.scale, share = 1.0 / static_cast<double>(count);
  for (int64_t k = 0; k < count; ++k) {
    const int64_t i = pairs[2 * k] * p.d, j = pairs[2 * k + 1] * p.d;
    double apart[3], squared = 0;
    for (int c = 0; c < p.d; ++c) {
      apart[c] = p.pred[i + c] * frame.scale - p.gt[j + c] * frame.scale;
      squared += apart[c] * apart[c];
    }
    const double distance = std::sqrt(squared);
    total += squares ? squared : distance;
    if (p.pred_grad == nullptr) continue;
    const double weight = squares ? 2.0 * share * back : (distance > 0 ? share / distance : 0.0);
    for (int c = 0; c < p.d; ++c) {
      const Given step = static_cast<Given>(weight * apart[c]);
      p.pred_grad[i + c] += step;
      p.gt_grad[j + c] -= step;
    }
  }
  return total * share * back * (squares ? back : 1.0);
}

// What entry.h offers. `pairs`: (pred point, gt point) of every match, in the order of the larger cloud's points or,
// where its surplus stays out, of the smaller one's.
template <typename Given>
double fast_emd(const Pair<Given>& p, const FastSettings& settings, int64_t* pairs) {
  const Frame frame(p);
  if (!frame.finite) return std::numeric_limits<double>::quiet_NaN();
  const bool turned = p.n > p.m;  // a is the smaller cloud
  const int64_t points = std::min(p.n, p.m), columns = std::max(p.n, p.m);
  Sorted a, b;
  parallel(2, at::in_parallel_region() ? 1 : 2, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t side = begin; side < end; ++side)
      turned == (side == 0) ? (side == 0 ? a : b).fill(frame, p.gt, p.m, p.d)
                            : (side == 0 ? a : b).fill(frame, p.pred, p.n, p.d);
  });
  Slots slots(a.points.data(), points, settings.injective ? points : columns);
  Neighbourhood near;
  near.a = a.points.data();
  near.b = b.points.data();
  find_near(a.tree, b.tree, static_cast<int>(std::min(settings.neighbours, columns)), near.to_b);
  find_near(a.tree, a.tree, static_cast<int>(std::min(settings.neighbours, points - 1)), near.to_a);
  if (!settings.squares)
    for (int64_t k = 0; k < points * near.to_b.length; ++k) near.to_b.cost[k] = std::sqrt(near.to_b.cost[k]);
  const bool copies = slots.most > 1;
  const std::unique_ptr<Matching> m =
      settings.squares ? (copies ? match_framed<true, true>(slots, columns, near, settings)
                                 : match_framed<true, false>(slots, columns, near, settings))
                       : (copies ? match_framed<false, true>(slots, columns, near, settings)
                                 : match_framed<false, false>(slots, columns, near, settings));
  for (int64_t s = 0; s < slots.count; ++s) {
    const int64_t mine = a.tree.order[slots.at[s].index], theirs = b.tree.order[m->column[s]];
    int64_t* pair = pairs + 2 * (settings.injective ? mine : theirs);
    pair[0] = turned ? theirs : mine;
    pair[1] = turned ? mine : theirs;
  }
  return add_up(p, frame, pairs, slots.count, settings.squares);
}

}  // namespace APML_ISA
}  // namespace apml::cpu
