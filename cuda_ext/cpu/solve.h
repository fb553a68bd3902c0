// One pair of clouds, from coordinates to loss and gradients.
#pragma once

#include "entry.h"
#include "sweep.h"

namespace apml::cpu {
namespace APML_ISA {

// float S holds the numbers as long as nothing has to be absorbed: r and c stay in double's range by themselves.
inline bool float_suffices(const Settings& s) {
  return s.threshold >= 1e-30 && static_cast<double>(s.iterations) * -std::log10(s.eps) <= 240.0;
}

// Squared distances in float32 neither overflow nor lose everything to underflow.
template <typename Given>
bool float_searches(const Pair<Given>& p) {
  if (sizeof(Given) != sizeof(float)) return false;
  double most = 0;
  for (int64_t i = 0; i < p.n * p.d; ++i) most = std::abs(double(p.pred[i])) > most ? std::abs(double(p.pred[i])) : most;
  for (int64_t i = 0; i < p.m * p.d; ++i) most = std::abs(double(p.gt[i])) > most ? std::abs(double(p.gt[i])) : most;
  return most < 1e15;
}

template <typename T, typename Given>
void build_both(const Pair<Given>& p, Tree<T>& x, Tree<T>& y) {
  parallel(2, at::in_parallel_region() ? 1 : 2, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t side = begin; side < end; ++side) {
      if (side == 0) build(x, p.pred, p.n, p.d);
      if (side == 1) build(y, p.gt, p.m, p.d);
    }
  });
}

template <typename T, typename V, typename Given>
void match_with(const Pair<Given>& p, const Settings& settings, bool absorbing, const Tree<T>& x, const Tree<T>& y,
                const Balls& bx, const Balls& by, Result& result) {
  Side<V> rows, columns;
  {
    Array<T> rx, ry;
    squared_radii(bx, x, rx);
    squared_radii(by, y, ry);
    make_support(Ends<T>{x, bx, rx.data()}, Ends<T>{y, by, ry.data()}, rows, columns);
  }
  result.entries = rows.entries();
  Scaling s;
  sinkhorn(rows, columns, bx, by, settings, absorbing, s);
  result.dropped = dropped_mass(rows, columns, s, settings.threshold);
  result.loss = sweep(rows, x, bx, s.r, s.r_whole, y, by, s.c, s.c_whole, p.pred_grad, p.d);
  if (p.gt_grad != nullptr) sweep(columns, y, by, s.c, s.c_whole, x, bx, s.r, s.r_whole, p.gt_grad, p.d);
}

template <typename T, typename Given>
void match_in(const Pair<Given>& p, const Settings& settings, Result& result) {
  Tree<T> x, y;
  build_both(p, x, y);
  Balls bx, by;
  find_balls(x, y, settings, bx);
  find_balls(y, x, settings, by);
  // The other cloud's reach goes into the boxes that rows are searched in.
  Array<T> ry;
  squared_radii(by, y, ry);
  set_reach(y, ry.data());
  const bool uniform = bx.without_ball + by.without_ball > 0;
  if (sizeof(Given) == sizeof(float) && !uniform && float_suffices(settings))
    match_with<T, float>(p, settings, false, x, y, bx, by, result);
  else
    match_with<T, double>(p, settings, true, x, y, bx, by, result);
}

template <typename Given>
void match(const Pair<Given>& p, const Settings& settings, Result& result) {
  if (float_searches(p))
    match_in<float>(p, settings, result);
  else
    match_in<double>(p, settings, result);
}

}  // namespace APML_ISA
}  // namespace apml::cpu
