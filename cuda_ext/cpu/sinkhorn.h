// Sinkhorn in scaling form: the plan is diag(r) S diag(c), an iteration is one product with S by row and one by
// column. Exact, eps included. Points of the uniform tie rule are a rank-one part that needs only sums.
#pragma once

#include "slices.h"

namespace apml::cpu {
namespace APML_ISA {

// Iterations between two absorptions of r and c into S. A row cut off from its partners grows by up to 1/eps an
// iteration; between absorptions it may reach 1e120, far inside double.
inline int64_t absorb_every(double eps) {
  const double decades = -std::log10(eps);
  return decades <= 15.0 ? 8 : std::max<int64_t>(1, static_cast<int64_t>(120.0 / decades));
}

struct Scaling {
  Array<double> r, c;              // since the last absorption
  Array<double> r_whole, c_whole;  // over all iterations: what the rank-one part and the bound are scaled by
};

// Sums over the cloud that the rank-one part adds to every product.
struct RankOne {
  double all = 0, spread = 0;
  RankOne(const Balls& balls, const Array<double>& whole, const Array<double>& recent, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const double w = whole[i] * recent[i];
      all += w;
      spread += balls.radius[i] < 0 ? balls.uniform_share * w : 0.0;
    }
  }
};

// One half of an iteration: own <- own / (own * (S other) + eps).
template <typename V>
void rescale(Side<V>& side, const Balls& balls, const Array<double>& whole, Array<double>& own,
             const Array<double>& other, const RankOne* rank_one, double eps) {
  const double* with = other.data();
  side.each([&](int64_t i, const int32_t* index, const V* value, int64_t count) {
    double sum = dot(index, value, count, with);
    if (rank_one != nullptr) {
      const double share = balls.radius[i] < 0 ? balls.uniform_share : 0.0;
      sum += whole[i] * (share * rank_one->all + rank_one->spread);
    }
    own[i] = own[i] / (own[i] * sum + eps);
  });
}

template <typename V>
void absorb(Side<V>& side, const Array<double>& own, const Array<double>& other) {
  side.each([&](int64_t i, const int32_t* index, V* value, int64_t count) {
    for (int64_t k = 0; k < count; ++k) value[k] = static_cast<V>(own[i] * value[k] * other[index[k]]);
  });
}

inline void finish(Scaling& s, int64_t n, int64_t m) {
  for (int64_t i = 0; i < n; ++i) s.r_whole[i] *= s.r[i];
  for (int64_t j = 0; j < m; ++j) s.c_whole[j] *= s.c[j];
}

// The usual case: nothing to absorb, no rank-one part, short rows.
template <typename V>
void sliced_sinkhorn(Side<V>& rows, Side<V>& columns, const Settings& settings, Scaling& s) {
  Side<V>* side[2] = {&rows, &columns};
  double *own[2] = {s.r.data(), s.c.data()}, *other[2] = {s.c.data(), s.r.data()};
  std::unique_ptr<Slices<V>[]> slices[2];
  for (int k = 0; k < 2; ++k) {
    slices[k] = std::unique_ptr<Slices<V>[]>(new Slices<V>[static_cast<size_t>(side[k]->chunks)]);
    side[k]->each_chunk([&](int64_t c) { fill_slices(*side[k], side[k]->chunk[c], slices[k][c]); });
  }
  for (int64_t step = 0; step < settings.iterations; ++step)
    for (int k = 0; k < 2; ++k)
      side[k]->each_chunk([&](int64_t c) { rescale_slices(slices[k][c], own[k], other[k], settings.eps); });
}

// `absorbing` wants V = double. Leaves the last factors in r and c: the plan is r_i S_ij c_j.
template <typename V>
void sinkhorn(Side<V>& rows, Side<V>& columns, const Balls& x, const Balls& y, const Settings& settings,
              bool absorbing, Scaling& s) {
  const int64_t n = rows.size, m = columns.size;
  const bool uniform = x.without_ball + y.without_ball > 0;
  for (auto* a : {&s.r, &s.r_whole}) a->allocate(n, 1.0);
  for (auto* a : {&s.c, &s.c_whole}) a->allocate(m, 1.0);
  if (!absorbing && !uniform && rows.entries() <= LONG_ROWS * std::min(n, m)) {
    sliced_sinkhorn(rows, columns, settings, s);
    return finish(s, n, m);
  }
  const int64_t every = absorb_every(settings.eps);
  for (int64_t step = 1; step <= settings.iterations; ++step) {
    if (uniform) {
      const RankOne from_columns(y, s.c_whole, s.c, m);
      rescale(rows, x, s.r_whole, s.r, s.c, &from_columns, settings.eps);
      const RankOne from_rows(x, s.r_whole, s.r, n);
      rescale(columns, y, s.c_whole, s.c, s.r, &from_rows, settings.eps);
    } else {
      rescale(rows, x, s.r_whole, s.r, s.c, nullptr, settings.eps);
      rescale(columns, y, s.c_whole, s.c, s.r, nullptr, settings.eps);
    }
    if (!absorbing || step % every != 0 || step == settings.iterations) continue;
    absorb(rows, s.r, s.c);
    absorb(columns, s.c, s.r);
    double level = 0;
    for (int64_t i = 0; i < n; ++i) {
      s.r_whole[i] *= s.r[i];
      s.r[i] = 1.0;
      level = s.r_whole[i] > level ? s.r_whole[i] : level;
    }
    // r and 1/c drift together; only their product counts.
    if (!uniform || !(level > 0)) level = 1.0;
    for (int64_t i = 0; i < n; ++i) s.r_whole[i] /= level;
    for (int64_t j = 0; j < m; ++j) {
      s.c_whole[j] *= s.c[j] * level;
      s.c[j] = 1.0;
    }
  }
  finish(s, n, m);
}

// The mass that entries below the thresholds could carry at most under the same scaling.
template <typename V>
double dropped_mass(const Side<V>& rows, const Balls& x, const double* r_whole, const Side<V>& columns, const Balls& y,
                    const double* c_whole) {
  double r = 0, r_left_out = 0, c = 0, c_left_out = 0;
  for (int64_t i = 0; i < rows.size; ++i) {
    r += r_whole[i];
    r_left_out += r_whole[i] * rows.scale[i] * x.threshold[i];
  }
  for (int64_t j = 0; j < columns.size; ++j) {
    c += c_whole[j];
    c_left_out += c_whole[j] * columns.scale[j] * y.threshold[j];
  }
  const double bound = 0.5 * (r_left_out * c + r * c_left_out);
  return bound <= std::numeric_limits<double>::max() ? bound : std::numeric_limits<double>::infinity();
}

// Lowers the thresholds of the points on one side whose left-out entries could carry too much. Returns whether any was.
template <typename V>
bool lower_thresholds(const Side<V>& side, const Array<double>& own, const Side<V>& other_side,
                      const Array<double>& other, double most, Balls& balls) {
  double others = 0;
  for (int64_t j = 0; j < other_side.size; ++j) others += other[j];
  bool lowered = false;
  for (int64_t i = 0; i < side.size; ++i) {
    const double now = balls.threshold[i], next = next_threshold(now, most, own[i], side.scale[i], others);
    if (next < now) balls.set_threshold(i, next);
    lowered = lowered || next < now;
  }
  return lowered;
}

}  // namespace APML_ISA
}  // namespace apml::cpu
