// How a batch lies on the device: the 2 B clouds of B pairs in one array of slots, pred clouds first.
//
// Each cloud is sorted along a Morton curve and cut into clusters of 32 points with a bounding box; 32 clusters
// make a block with a box of its own. A cloud takes a whole number of clusters; slots past its length are padding.
// Both directions of a search, and the rows and the columns of the plan, are thus the same code on other clouds.
#pragma once

#include <cstdint>

#include "../common/temperature.h"

namespace apml::cuda {

constexpr int CLUSTER = 32;
constexpr int BLOCK = CLUSTER * CLUSTER;  // points in 32 clusters

enum class Side { PRED, GT, BOTH };

// Coordinates, 0 where there are fewer than three, and the point's own squared radius of support, rounded up.
template <typename T>
struct alignas(16) Point {
  T at[4];
};

// Bounds of a cluster or a block relative to its pair's frame, rounded outwards.
struct alignas(16) Box {
  float low[3];
  float reach;  // largest radius of support of its points, rounded up
  float high[3];
  float tied;  // 1 if one of its points spreads over the whole other cloud (uniform ties), else 0
};

struct Bounds {
  double low[3], high[3];
};

// Where a pair of clouds lies: the lowest corner of its bounds and the number of Morton cells per unit length.
struct Frame {
  double low[3];
  double cells;
};

// The one-sided softmin of a point: exp(-(d - nearest) * inverse) / total for d < radius.
struct alignas(16) Rule {
  double nearest, inverse, radius, total;
};

// The two nearest points of the other cloud, as slots counted from that cloud's first; -1 where there is none.
struct Nearest {
  int first, second;
};

struct Cloud {
  int64_t pair;
  int64_t base;   // its first slot
  int64_t box;    // its first cluster
  int64_t block;  // its first block
  int length;     // valid points
  int points;     // points given, padding included
  bool is_pred;

  APML_HD int clusters() const { return (length + CLUSTER - 1) / CLUSTER; }
  APML_HD int blocks() const { return (length + BLOCK - 1) / BLOCK; }
};

struct Layout {
  int64_t pairs;
  int dims;
  int pred_points, gt_points;
  const int64_t* pred_lengths;  // (B,) or null
  const int64_t* gt_lengths;

  APML_HD static int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }
  APML_HD int64_t pred_slots() const { return up(pred_points, CLUSTER) * CLUSTER; }
  APML_HD int64_t gt_slots() const { return up(gt_points, CLUSTER) * CLUSTER; }
  APML_HD int64_t slots() const { return pairs * (pred_slots() + gt_slots()); }
  APML_HD int64_t blocks() const { return pairs * (up(pred_points, BLOCK) + up(gt_points, BLOCK)); }
  APML_HD int64_t most_slots(Side side) const {
    if (side == Side::PRED) return pred_slots();
    if (side == Side::GT || gt_points > pred_points) return gt_slots();
    return pred_slots();
  }

  // Clouds [first, last) are those of a side.
  APML_HD int64_t first(Side side) const { return side == Side::GT ? pairs : 0; }
  APML_HD int64_t last(Side side) const { return side == Side::PRED ? pairs : 2 * pairs; }
  APML_HD int64_t other(int64_t cloud) const { return cloud < pairs ? cloud + pairs : cloud - pairs; }

  APML_HD Cloud cloud(int64_t c) const {
    Cloud own;
    own.is_pred = c < pairs;
    own.pair = own.is_pred ? c : c - pairs;
    own.points = own.is_pred ? pred_points : gt_points;
    own.base = own.is_pred ? own.pair * pred_slots() : pairs * pred_slots() + own.pair * gt_slots();
    own.box = own.base / CLUSTER;
    const int64_t pred_blocks = up(pred_points, BLOCK);
    own.block = own.is_pred ? own.pair * pred_blocks : pairs * pred_blocks + own.pair * up(gt_points, BLOCK);
    const int64_t* lengths = own.is_pred ? pred_lengths : gt_lengths;
    own.length = lengths ? static_cast<int>(lengths[own.pair]) : own.points;
    return own;
  }
};

// Sorted clouds, ready to be searched.
template <typename T>
struct Tree {
  Layout layout;
  Frame* frames;     // (B,)
  Point<T>* points;  // (slots,)
  int* origin;       // (slots,) index in the cloud as it was given
  Box* clusters;     // (slots / 32,)
  Box* blocks;       // (layout.blocks(),)
};

// A sparse plan, its entries kept twice: by row under the pred slots and by column under the gt slots.
template <typename T, typename V>
struct Plan {
  Tree<T> tree;
  double eps;
  const int64_t* offsets;  // (slots + 1,) where the entries of a slot begin
  const int* partner;      // (entries,) slot in the other cloud, counted from its first
  V* values;               // (entries,) the similarities S
  Rule* rules;             // (slots,)
  double* threshold;       // (slots,) similarities at or below it are left out
  double* share;           // (slots,) 1 / total, or 0 where nothing was left out
  double* scale;           // (slots,) r and c since the last absorption into the values
  double* absorbed;        // (slots,) r and c absorbed before, or null
  double* spread;          // (slots,) share of each pair of a tied point (uniform ties), or null
  double* sums;            // (2 B, 2) of each cloud: sum of r or c; the same weighted by spread. Null without spread.
  double* force;           // (slots, 4) loss and pull of the uniform part, or null without spread

  APML_HD double full_scale(int64_t slot) const { return absorbed ? absorbed[slot] * scale[slot] : scale[slot]; }
};

// What differentiating the plan adds.
template <typename T>
struct Adjoint {
  Plan<T, double> plan;
  const double* gap;       // (slots,) second nearest minus nearest cost
  const Nearest* nearest;  // (slots,)
  double* values_bar;      // (entries,) derivative by S
  double* log_bar;         // (slots,) derivative by log r and log c
  double* product_bar;     // (slots,) derivative by S c and by its transposed twin
  double* weight;          // (slots,) sum over a point's own softmin of its weighted derivatives
  double* gap_bar;         // (slots,)
};

}  // namespace apml::cuda
