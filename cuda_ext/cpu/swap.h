// Step 2 of the fast matching: partners are exchanged between neighbours while that makes the sum of costs smaller.
#pragma once

#include "bisect.h"
#include "near.h"

namespace apml::cpu {
namespace APML_ISA {

template <bool SQUARED>
inline float cost_between(const Point& a, const Point& b) {
  const float squared = squared_distance(a.x, b.x);
  return SQUARED ? squared : std::sqrt(squared);
}

// The smaller cloud takes part in slots: one a point, or, where a point has several partners, one for each of them.
struct Slots {
  int64_t points = 0, count = 0;
  int64_t least = 1, most = 1;  // slots of a point
  Array<Point> at;              // where each slot lies; the index is that of its point in the sorted cloud
  Array<int32_t> of, number;    // of each point: its slots, `most` apart, and how many they are; unused for most = 1

  // Shares `count` slots evenly among sorted points.
  Slots(const Point* sorted, int64_t points_, int64_t count_) : points(points_), count(count_), at(count_) {
    least = count / points;
    most = (count + points - 1) / points;
    if (most > 1) {
      of.allocate(points * most);
      number.allocate(points);
    }
    for (int64_t p = 0, slot = 0; p < points; ++p) {
      const int64_t stop = count * (p + 1) / points;
      if (most > 1) number[p] = static_cast<int32_t>(stop - slot);
      for (int64_t k = 0; slot < stop; ++slot, ++k) {
        at[slot] = sorted[p];
        if (most > 1) of[p * most + k] = static_cast<int32_t>(slot);
      }
    }
  }

  // Makes a slot of one point a slot of another, which must have room for it.
  void transfer(int32_t slot, const Point& there) {
    const int64_t from = at[slot].index, to = there.index;
    int32_t* last = of.data() + from * most + --number[from];
    for (int32_t* k = of.data() + from * most;; ++k)
      if (*k == slot) {
        *k = *last;
        break;
      }
    of[to * most + number[to]++] = slot;
    at[slot] = there;
  }
};

// A partner for every slot: a column, which is a point of the larger cloud.
struct Matching {
  Array<int32_t> column, owner;  // of each slot; of each column, -1 where it is free
  Array<float> cost;             // of each slot
  Array<uint8_t> waiting;        // slots that may have something to gain: those whose partner changed, or was drawn

  Matching(int64_t slots, int64_t columns) : column(slots), cost(slots) {
    owner.allocate(columns, -1);
    waiting.allocate(slots, 1);
  }
};

// Both clouds in sorted order, and the lists of near points of the smaller one.
struct Neighbourhood {
  const Point *a, *b;
  NearLists to_b, to_a;
};

// The best that one slot can do, if there is anything: exchange columns with another slot, take a free column, or
// become a slot of another point.
struct Move {
  float gain, mine, theirs;
  int32_t slot, column, point;
};

// `copies`: points have several slots; `turn` varies which of them is looked at. `transfers`: slots may change their
// points.
template <bool SQUARED, bool COPIES>
inline Move best_move(const Slots& slots, const Neighbourhood& near, const Matching& m, int32_t slot, int turn,
                      bool transfers) {
  const Point a = slots.at[slot], b = near.b[m.column[slot]];
  const float own = m.cost[slot];
  const int64_t point = COPIES ? a.index : slot;
  Move best{own * 1e-6f, 0, 0, -1, -1, -1};  // what rounding could feign is no gain
  auto exchange = [&](int32_t other, int32_t column, float mine) {
    const float most = own + m.cost[other] - mine;
    if (most <= best.gain) return;
    const float theirs = cost_between<SQUARED>(slots.at[other], b);
    if (most - theirs > best.gain) best = {most - theirs, mine, theirs, other, column, -1};
  };
  const int32_t* at = near.to_b.of(point);
  const float* cost = near.to_b.cost.data() + point * near.to_b.length;
  for (int k = 0; k < near.to_b.length; ++k) {
    const int32_t owner = m.owner[at[k]];
    if (owner >= 0) {
      if (owner != slot) exchange(owner, at[k], cost[k]);
    } else if (own - cost[k] > best.gain) {
      best = {own - cost[k], cost[k], 0, -1, at[k], -1};
    }
  }
  at = near.to_a.of(point);
  for (int k = 0; k < near.to_a.length; ++k) {
    int32_t other = at[k];
    if constexpr (COPIES) {
      const int64_t number = slots.number[other];
      if (transfers && number < slots.most && slots.number[point] > slots.least) {
        const float mine = cost_between<SQUARED>(near.a[other], b);
        if (own - mine > best.gain) best = {own - mine, mine, 0, -1, -1, other};
      }
      if (number == 0) continue;
      other = slots.of[other * slots.most + (slot + turn) % number];
    }
    const int32_t column = m.column[other];
    const float squared = squared_distance(a.x, near.b[column].x), limit = own + m.cost[other] - best.gain;
    if (SQUARED ? squared < limit : squared < limit * limit) exchange(other, column, SQUARED ? squared : std::sqrt(squared));
  }
  return best;
}

inline void apply(const Move& move, int32_t slot, Slots& slots, const Neighbourhood& near, Matching& m) {
  m.cost[slot] = move.mine;
  m.waiting[slot] = 1;
  if (move.point >= 0) {
    slots.transfer(slot, near.a[move.point]);
    return;
  }
  const int32_t left = m.column[slot];
  m.column[slot] = move.column;
  m.owner[move.column] = slot;
  m.owner[left] = move.slot;
  if (move.slot < 0) return;
  m.column[move.slot] = left;
  m.cost[move.slot] = move.theirs;
  m.waiting[move.slot] = 1;
}

// Rounds of moves of the slots that are waiting.
template <bool SQUARED, bool COPIES>
void swap_waiting(Slots& slots, const Neighbourhood& near, Matching& m, int64_t passes,
                  bool transfers) {
  for (int64_t pass = 0; pass < passes; ++pass) {
    bool moved = false;
    for (int64_t s = 0; s < slots.count; ++s) {
      if (!m.waiting[s]) continue;
      m.waiting[s] = 0;
      const int32_t slot = static_cast<int32_t>(s);
      const Move move = best_move<SQUARED, COPIES>(slots, near, m, slot, static_cast<int>(pass), transfers);
      if (move.slot < 0 && move.column < 0 && move.point < 0) continue;
      apply(move, slot, slots, near, m);
      moved = true;
    }
    if (!moved) return;
  }
}

}  // namespace APML_ISA
}  // namespace apml::cpu
