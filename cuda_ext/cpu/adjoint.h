// Gradients through Sinkhorn, softmin and temperature (differentiate_plan), by going back through the iterations.
//
// With rho = r * dL/dr and gamma = c * dL/dc every quantity keeps its scale. One iteration,
//   r' = r / (r (S c) + eps),   c' = c / (c (S^T r') + eps),
// goes back as
//   b = -gamma' c',  gamma = gamma' eps c'/c,  rho' += r' (S b),    dL/dS_ij += r'_i b_j,
//   a = -rho' r',    rho = rho' eps r'/r,      gamma += c (S^T a),  dL/dS_ij += a_i c_j.
// Only every k-th pair (r, c) is kept, k about the root of the iterations; those between are computed again.
#pragma once

#include "entry.h"
#include "sweep.h"

namespace apml::cpu {
namespace APML_ISA {

// r (n) and c (m) of several steps.
struct Steps {
  int64_t n, m;
  Array<double> r, c;
  Steps(int64_t n, int64_t m, int64_t steps) : n(n), m(m), r(n * steps), c(m * steps) {}
  double* r_at(int64_t step) { return r.data() + step * n; }
  double* c_at(int64_t step) { return c.data() + step * m; }
  void put(int64_t step, const double* r_from, const double* c_from) {
    std::memcpy(r_at(step), r_from, static_cast<size_t>(n) * sizeof(double));
    std::memcpy(c_at(step), c_from, static_cast<size_t>(m) * sizeof(double));
  }
};

// What the rank-one part of the uniform tie rule adds to a product with S: sums over the other side's points.
struct UniformPart {
  double all = 0, spread = 0;
  UniformPart(const Balls& balls, const double* values, int64_t n) {
    if (balls.without_ball == 0) return;
    for (int64_t i = 0; i < n; ++i) spread += balls.radius[i] < 0 ? balls.uniform_share * values[i] : 0.0;
  }
  UniformPart with_sum(const double* values, int64_t n, bool wanted) {
    for (int64_t i = 0; wanted && i < n; ++i) all += values[i];
    return *this;
  }
  double at(const Balls& own, int64_t i) const { return (own.radius[i] < 0 ? own.uniform_share * all : 0.0) + spread; }
};

// own_to = own / (own (S other) + eps), the rank-one part included.
inline void half_step(Side<double>& side, const Balls& own_balls, const Balls& other_balls, const double* own,
                      const double* other, int64_t others, double eps, double* own_to) {
  const UniformPart uniform =
      UniformPart(other_balls, other, others).with_sum(other, others, own_balls.without_ball > 0);
  side.each([&](int64_t i, const int32_t* index, const double* value, int64_t count) {
    own_to[i] = own[i] / (own[i] * (dot(index, value, count, other) + uniform.at(own_balls, i)) + eps);
  });
}

// One side's half of the softmin's adjoint.
struct SoftminAdjoint {
  Array<double> share, mean, gap;  // 1 / denominator; sum of w; dL/dgap
};

// Entry by entry: half the one-sided softmin's own similarity, 0 outside the ball.
inline double similarity(double d, const Balls& balls, int64_t i) {
  return d <= balls.radius[i] ? exp_minus((d - balls.nearest[i]) * balls.inverse_t[i]) : 0.0;
}

template <typename T>
void softmin_adjoint(Side<double>& side, const Tree<T>& from, const Balls& balls, const Tree<T>& to,
                     SoftminAdjoint& out) {
  out.share.allocate(from.size);
  out.mean.allocate(from.size);
  out.gap.allocate(from.size);
  side.each_chunk([&](int64_t c) {
    Chunk<double>& chunk = side.chunk[c];
    for (int64_t i = chunk.begin; i < chunk.end; ++i) {
      double total = 0, mean = 0, weighted = 0, spread = 0;
      for (int64_t e = side.start[i]; e < side.stop[i]; ++e) {
        const double d = std::sqrt(exact_squared(from, i, to, chunk.index[e]));
        const double s = similarity(d, balls, i);
        total += s;
        mean += 0.5 * chunk.other[e] * s;
        weighted += 0.5 * chunk.other[e] * s * (d - balls.nearest[i]);
        spread += s * (d - balls.nearest[i]);
      }
      const double share = total > 0 ? 1.0 / total : 0.0;
      out.share[i] = share;
      out.mean[i] = mean * share;
      // dL/dT = -sum (d - d1) (w - sigma mean), and T = odds / (gap + margin).
      const double by_t = -(weighted * share - spread * share * out.mean[i]);
      out.gap[i] = -by_t * balls.inverse_t[i] / (balls.gap[i] + MARGIN);
    }
  });
}

// Pulls with the whole dL/dd in place of the plan; adds to (n, 3) gradients in sorted order.
template <typename T>
void pull_side(Side<double>& side, const Tree<T>& from, const Balls& balls, const SoftminAdjoint& own, const double* f,
               const Tree<T>& to, const Balls& other_balls, const SoftminAdjoint& other, const double* g,
               double* gradient) {
  const Spreading spreading(other_balls, to.size);
  side.each_chunk([&](int64_t c) {
    Chunk<double>& chunk = side.chunk[c];
    for (int64_t i = chunk.begin; i < chunk.end; ++i) {
      Pull pull;
      for (int64_t e = side.start[i]; e < side.stop[i]; ++e) {
        const int32_t j = chunk.index[e];
        const double d = std::sqrt(exact_squared(from, i, to, j));
        if (!(d > 0)) continue;
        const double half_bar = 0.5 * chunk.other[e];
        const double sigma = similarity(d, balls, i) * own.share[i];
        const double other_sigma = similarity(d, other_balls, j) * other.share[j];
        const double bar = f[i] * chunk.value[e] * g[j] - balls.inverse_t[i] * sigma * (half_bar - own.mean[i]) -
                           other_balls.inverse_t[j] * other_sigma * (half_bar - other.mean[j]);
        for (int k = 0; k < 3; ++k) pull.g[k] += bar / d * (double(from.x[k][i]) - double(to.x[k][j]));
      }
      if (balls.radius[i] < 0) add_uniform(from, i, to, f[i] * balls.uniform_share, g, nullptr, pull);
      if (spreading.any())
        add_uniform(from, i, to, f[i] * other_balls.uniform_share, g, spreading.of(), pull);
      for (int k = 0; k < 3; ++k) gradient[i * 3 + k] += pull.g[k];
    }
  });
}

// The gap's own pull: the second nearest moves with it, the nearest against it. Serial: two points may share one.
template <typename T>
void pull_gaps(const Tree<T>& from, const Balls& balls, const SoftminAdjoint& own, const Tree<T>& to, double* from_grad,
               double* to_grad) {
  for (int64_t i = 0; i < from.size; ++i) {
    if (balls.radius[i] < 0 || balls.at_second[i] < 0 || own.gap[i] == 0) continue;
    for (int which = 0; which < 2; ++which) {
      const int32_t j = which == 0 ? balls.at_first[i] : balls.at_second[i];
      const double d = std::sqrt(exact_squared(from, i, to, j));
      if (!(d > 0)) continue;
      const double weight = (which == 0 ? -own.gap[i] : own.gap[i]) / d;
      for (int k = 0; k < 3; ++k) {
        const double step = weight * (double(from.x[k][i]) - double(to.x[k][j]));
        from_grad[i * 3 + k] += step;
        to_grad[int64_t{j} * 3 + k] -= step;
      }
    }
  }
}

// dL/dS into `other` of both sides, from the last factors f, g and the stored steps.
template <typename T>
void start_adjoint(Side<double>& side, const Tree<T>& from, const Balls& balls, const double* f, const Tree<T>& to,
                   const Balls& other_balls, const double* g, double* log_adjoint) {
  const Spreading spreading(other_balls, to.size);
  side.each_chunk([&](int64_t c) {
    Chunk<double>& chunk = side.chunk[c];
    chunk.other.reserve(chunk.entries);
    for (int64_t i = chunk.begin; i < chunk.end; ++i) {
      Pull pull;
      for (int64_t e = side.start[i]; e < side.stop[i]; ++e) {
        const int32_t j = chunk.index[e];
        const double moved = f[i] * std::sqrt(exact_squared(from, i, to, j)) * g[j];
        chunk.other[e] = moved;
        pull.loss += moved * chunk.value[e];
      }
      if (balls.radius[i] < 0) add_uniform(from, i, to, f[i] * balls.uniform_share, g, nullptr, pull);
      if (spreading.any())
        add_uniform(from, i, to, f[i] * other_balls.uniform_share, g, spreading.of(), pull);
      log_adjoint[i] = pull.loss;
    }
  });
}

// r and c drift apart by M / N an iteration; only their product counts. Divides r by a power of two, multiplies c by
// it, and returns it.
inline double level_out(double* r, int64_t n, double* c, int64_t m) {
  double most = 0;
  for (int64_t i = 0; i < n; ++i) most = r[i] > most ? r[i] : most;
  if (!(most > 0 && most <= std::numeric_limits<double>::max())) return 1.0;
  const double level = std::exp2(std::floor(std::log2(most)));
  for (int64_t i = 0; i < n; ++i) r[i] /= level;
  for (int64_t j = 0; j < m; ++j) c[j] *= level;
  return level;
}

// The iterations from a kept one on: step s in slot s, each levelled out when the next one starts from it.
struct Tape {
  Side<double>&rows, &columns;
  const Balls &x, &y;
  double eps;
  Steps steps;
  Array<double> level;

  Tape(Side<double>& rows, Side<double>& columns, const Balls& x, const Balls& y, double eps, int64_t slots)
      : rows(rows), columns(columns), x(x), y(y), eps(eps), steps(rows.size, columns.size, slots), level(slots) {
    for (int64_t i = 0; i < rows.size; ++i) steps.r_at(0)[i] = 1.0;
    for (int64_t j = 0; j < columns.size; ++j) steps.c_at(0)[j] = 1.0;
  }

  void forward(int64_t slot) {
    double *r = steps.r_at(slot), *c = steps.c_at(slot);
    level[slot] = level_out(r, rows.size, c, columns.size);
    half_step(rows, x, y, r, c, columns.size, eps, steps.r_at(slot + 1));
    half_step(columns, y, x, c, steps.r_at(slot + 1), rows.size, eps, steps.c_at(slot + 1));
    level[slot + 1] = 1.0;
  }
};

// Loss, bound and both gradients in sorted order, (n, 3) and (m, 3). result.in_range is false where the scalings
// leave double's range.
template <typename T>
void differentiate(Side<double>& rows, Side<double>& columns, const Tree<T>& x, const Tree<T>& y, const Balls& bx,
                   const Balls& by, const Settings& settings, Result& result, Array<double>& x_grad,
                   Array<double>& y_grad) {
  const int64_t n = rows.size, m = columns.size, iterations = settings.iterations;
  const double eps = settings.eps;
  int64_t every = 1;
  while (every * every < iterations) ++every;
  Steps kept(n, m, iterations / every + 1);
  Tape tape(rows, columns, bx, by, eps, every + 1);
  Steps& now = tape.steps;
  for (int64_t t = 0; t < iterations; ++t) {
    const int64_t slot = t % every;
    tape.forward(slot);
    if (slot == 0) kept.put(t / every, now.r_at(0), now.c_at(0));  // levelled out
    if (slot + 1 == every) now.put(0, now.r_at(every), now.c_at(every));
  }
  Array<double> r(n), c(m), rho(n), gamma(m), a(n), b(m);
  std::memcpy(r.data(), now.r_at(iterations % every), static_cast<size_t>(n) * sizeof(double));
  std::memcpy(c.data(), now.c_at(iterations % every), static_cast<size_t>(m) * sizeof(double));
  level_out(r.data(), n, c.data(), m);
  result.in_range = true;
  for (int64_t i = 0; i < n; ++i) result.in_range = result.in_range && r[i] < 1e290 && r[i] > 1e-290;
  for (int64_t j = 0; j < m; ++j) result.in_range = result.in_range && c[j] < 1e290 && c[j] > 1e-290;
  if (!result.in_range) return;
  result.dropped = dropped_mass(rows, bx, r.data(), columns, by, c.data());
  start_adjoint(rows, x, bx, r.data(), y, by, c.data(), rho.data());
  start_adjoint(columns, y, by, c.data(), x, bx, r.data(), gamma.data());
  result.loss = 0;
  for (int64_t i = 0; i < n; ++i) result.loss += rho[i];

  int64_t segment = -1;  // the one whose steps are on the tape
  for (int64_t t = iterations - 1; t >= 0; --t) {
    const int64_t slot = t % every;
    if (t / every != segment) {
      segment = t / every;
      now.put(0, kept.r_at(segment), kept.c_at(segment));
      for (int64_t s = 0; s <= slot; ++s) tape.forward(s);
    }
    const double *r0 = now.r_at(slot), *r1 = now.r_at(slot + 1), *c0 = now.c_at(slot), *c1 = now.c_at(slot + 1);
    // Back to the level of r0 and c0.
    const double up = tape.level[slot + 1], down = 1.0 / up;
    for (int64_t j = 0; j < m; ++j) {
      b[j] = -gamma[j] * (c1[j] * down);
      gamma[j] *= eps * (c1[j] * down) / c0[j];
    }
    const UniformPart from_b = UniformPart(by, b.data(), m).with_sum(b.data(), m, bx.without_ball > 0);
    rows.each_chunk([&](int64_t k) {
      Chunk<double>& chunk = rows.chunk[k];
      for (int64_t i = chunk.begin; i < chunk.end; ++i) {
        const int32_t* index = chunk.index.data() + rows.start[i];
        double* bar = chunk.other.data() + rows.start[i];
        const int64_t count = rows.stop[i] - rows.start[i];
        const double after = r1[i] * up;
        const double sum = dot(index, chunk.value.data() + rows.start[i], count, b.data()) + from_b.at(bx, i);
        rho[i] += after * sum;
        a[i] = -rho[i] * after;
        rho[i] *= eps * after / r0[i];
        for (int64_t e = 0; e < count; ++e) bar[e] += after * b[index[e]] + a[i] * c0[index[e]];
      }
    });
    const UniformPart from_a = UniformPart(bx, a.data(), n).with_sum(a.data(), n, by.without_ball > 0);
    columns.each_chunk([&](int64_t k) {
      Chunk<double>& chunk = columns.chunk[k];
      for (int64_t j = chunk.begin; j < chunk.end; ++j) {
        const int32_t* index = chunk.index.data() + columns.start[j];
        double* bar = chunk.other.data() + columns.start[j];
        const int64_t count = columns.stop[j] - columns.start[j];
        gamma[j] += c0[j] * (dot(index, chunk.value.data() + columns.start[j], count, a.data()) + from_a.at(by, j));
        for (int64_t e = 0; e < count; ++e) bar[e] += (r1[index[e]] * up) * b[j] + a[index[e]] * c0[j];
      }
    });
  }

  SoftminAdjoint ax, ay;
  softmin_adjoint(rows, x, bx, y, ax);
  softmin_adjoint(columns, y, by, x, ay);
  x_grad.allocate(n * 3, 0.0);
  y_grad.allocate(m * 3, 0.0);
  pull_side(rows, x, bx, ax, r.data(), y, by, ay, c.data(), x_grad.data());
  pull_side(columns, y, by, ay, c.data(), x, bx, ax, r.data(), y_grad.data());
  pull_gaps(x, bx, ax, y, x_grad.data(), y_grad.data());
  pull_gaps(y, by, ay, x, y_grad.data(), x_grad.data());
}

}  // namespace APML_ISA
}  // namespace apml::cpu
