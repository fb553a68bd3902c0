// Nearest neighbours of a cloud, and the Chamfer distance with its gradients.
#pragma once

#include "entry.h"
#include "parallel.h"
#include "search.h"

namespace apml::cpu {
namespace APML_ISA {

// The nearest of `to` for every sorted point of `from`: squared distance and sorted position.
template <typename T>
void nearest_of(const Tree<T>& from, const Tree<T>& to, Array<double>& squared, Array<int32_t>& at) {
  squared.allocate(from.size);
  at.allocate(from.size);
  parallel(from.leaves, chunks_for(from.leaves, 8), [&](int64_t, int64_t begin, int64_t end) {
    Walk<T> walk;
    Two two[LANES];
    for (int64_t leaf = begin; leaf < end; ++leaf) {
      two_nearest(from, leaf, to, 1, walk, two);
      const int64_t stop = std::min(from.size, (leaf + 1) * LANES);
      for (int64_t i = leaf * LANES; i < stop; ++i) {
        squared[i] = two[i - leaf * LANES].first;
        at[i] = two[i - leaf * LANES].at_first;
      }
    }
  });
}

template <typename T, typename Given>
void nearest_in(const Pair<Given>& p, Given* squared, int64_t* index) {
  Tree<T> x, y;
  build_both(p, x, y);
  Array<double> d;
  Array<int32_t> at;
  nearest_of(x, y, d, at);
  for (int64_t i = 0; i < p.n; ++i) {
    squared[x.order[i]] = static_cast<Given>(d[i]);
    index[x.order[i]] = at[i] < 0 ? -1 : y.order[at[i]];
  }
}

// What the nearest pairs of one direction add: `scale` times the distance or its square, to the loss and to both
// gradients, (n, 3) in sorted order. Serial, in order: several points may share their nearest.
template <typename T>
double add_direction(const Tree<T>& from, const Tree<T>& to, const Array<double>& squared, const Array<int32_t>& at,
                     bool squares, double scale, double* from_grad, double* to_grad) {
  double total = 0;
  for (int64_t i = 0; i < from.size; ++i) {
    const int32_t j = at[i];
    if (j < 0) return std::numeric_limits<double>::quiet_NaN();  // NaN has no nearest point
    const double d = squares ? squared[i] : std::sqrt(squared[i]);
    total += d;
    if (from_grad == nullptr) continue;
    const double weight = squares ? 2.0 * scale : (d > 0 ? scale / d : 0.0);
    for (int k = 0; k < 3; ++k) {
      const double step = weight * (double(from.x[k][i]) - double(to.x[k][j]));
      from_grad[i * 3 + k] += step;
      to_grad[int64_t{j} * 3 + k] -= step;
    }
  }
  return total * scale;
}

template <typename T, typename Given>
void put_back(const Tree<T>& tree, const Array<double>& sorted, Given* out, int d) {
  for (int64_t i = 0; i < tree.size; ++i)
    for (int k = 0; k < d; ++k) out[tree.order[i] * int64_t{d} + k] = static_cast<Given>(sorted[i * 3 + k]);
}

template <typename T, typename Given>
double chamfer_in(const Pair<Given>& p, bool squares) {
  Tree<T> x, y;
  build_both(p, x, y);
  Array<double> there, back, x_grad, y_grad;
  Array<int32_t> at_there, at_back;
  nearest_of(x, y, there, at_there);
  nearest_of(y, x, back, at_back);
  if (p.pred_grad != nullptr) {
    x_grad.allocate(p.n * 3, 0.0);
    y_grad.allocate(p.m * 3, 0.0);
  }
  const double half = squares ? 1.0 : 0.5;
  double loss = add_direction(x, y, there, at_there, squares, half / double(p.n), x_grad.data(), y_grad.data());
  loss += add_direction(y, x, back, at_back, squares, half / double(p.m), y_grad.data(), x_grad.data());
  if (p.pred_grad != nullptr) {
    put_back(x, x_grad, p.pred_grad, p.d);
    put_back(y, y_grad, p.gt_grad, p.d);
  }
  return loss;
}

}  // namespace APML_ISA
}  // namespace apml::cpu
