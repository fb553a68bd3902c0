// The last visit of the plan's entries: the loss, and the pull of every entry on its two points.
#pragma once

#include "sinkhorn.h"

namespace apml::cpu {
namespace APML_ISA {

// Loss of one point and its gradient, sum_j weight_j (x - y_j) with weight = P / d, 0 where d = 0.
struct Pull {
  double loss = 0, g[3] = {0, 0, 0};
};

// The entries of one point: differences to the other points, in place for loops that vectorise.
struct Pulling {
  Growing<double> mass, x[3];

  void reserve(int64_t count) {
    mass.reserve(count);
    for (auto& k : x) k.reserve(count);
  }
};

// Adds `count` entries of the masses given in `p`. d = 0 adds nothing. The loads are kept from becoming vector
// gathers (see support.h), the sums are eight at a time in a fixed order.
template <typename T>
inline void add_entries(const Tree<T>& from, int64_t i, const Tree<T>& to, const int32_t* index, int64_t count,
                        Pulling& p, Pull& pull) {
  const double x = from.x[0][i], y = from.x[1][i], z = from.x[2][i];
  const T *px = to.x[0].data(), *py = to.x[1].data(), *pz = to.x[2].data();
  double *mass = p.mass.data(), *dx = p.x[0].data(), *dy = p.x[1].data(), *dz = p.x[2].data();
  for (int64_t k = 0; k < count; ++k) {
    int32_t j = index[k];
    asm("" : "+r"(j));
    dx[k] = x - px[j];
    dy[k] = y - py[j];
    dz[k] = z - pz[j];
  }
  for (int64_t k = 0; k < count; ++k) {
    const double d = std::sqrt(dx[k] * dx[k] + dy[k] * dy[k] + dz[k] * dz[k]);
    const double weight = d > 0 ? mass[k] / d : 0.0;
    mass[k] *= d;
    dx[k] *= weight;
    dy[k] *= weight;
    dz[k] *= weight;
  }
  pull.loss += sum_of(mass, count);
  for (int k = 0; k < 3; ++k) pull.g[k] += sum_of(p.x[k].data(), count);
}

// A point's uniform share: mass level * with[j] to every point of the other cloud. Without `chosen` to all.
template <typename T>
inline void add_uniform(const Tree<T>& from, int64_t i, const Tree<T>& to, double level, const double* with,
                        const uint8_t* chosen, Pull& pull) {
  const double x = from.x[0][i], y = from.x[1][i], z = from.x[2][i];
  for (int64_t j = 0; j < to.size; ++j) {
    if (chosen != nullptr && chosen[j] == 0) continue;
    const double dx = x - to.x[0][j], dy = y - to.x[1][j], dz = z - to.x[2][j];
    const double d = std::sqrt(dx * dx + dy * dy + dz * dz);
    const double p = level * with[j];
    const double weight = d > 0 ? p / d : 0.0;
    pull.loss += p * d;
    pull.g[0] += weight * dx;
    pull.g[1] += weight * dy;
    pull.g[2] += weight * dz;
  }
}

// Which points spread over the whole other cloud (the uniform rule's ties); nothing where none does.
class Spreading {
 public:
  Spreading(const Balls& balls, int64_t n) : any_(balls.without_ball > 0) {
    if (!any_) return;
    of_.allocate(n);
    for (int64_t i = 0; i < n; ++i) of_[i] = balls.radius[i] < 0;
  }
  bool any() const { return any_; }
  const uint8_t* of() const { return of_.data(); }

 private:
  bool any_;
  Array<uint8_t> of_;
};

// Pulls of every point of one side; returns their summed loss. own and other are the factors of this side's and
// the other side's points, whole_* those over all iterations.
template <typename T, typename V, typename Given>
double sweep(Side<V>& side, const Tree<T>& from, const Balls& balls, const Array<double>& own,
             const Array<double>& own_whole, const Tree<T>& to, const Balls& other_balls, const Array<double>& other,
             const Array<double>& other_whole, Given* gradient, int d) {
  Array<double> loss(from.size);
  const Spreading spreading(other_balls, to.size);
  side.each_chunk([&](int64_t c) {
    Chunk<V>& chunk = side.chunk[c];
    Pulling entries;
    for (int64_t i = chunk.begin; i < chunk.end; ++i) {
      const int32_t* index = chunk.index.data() + side.start[i];
      const V* value = chunk.value.data() + side.start[i];
      const int64_t count = side.stop[i] - side.start[i];
      entries.reserve(count);
      double* mass = entries.mass.data();
      for (int64_t k = 0; k < count; ++k) {
        int32_t j = index[k];
        asm("" : "+r"(j));
        mass[k] = own[i] * value[k] * other[j];
      }
      Pull pull;
      add_entries(from, i, to, index, count, entries, pull);
      if (balls.radius[i] < 0)
        add_uniform(from, i, to, own_whole[i] * balls.uniform_share, other_whole.data(), nullptr, pull);
      if (spreading.any())
        add_uniform(from, i, to, own_whole[i] * other_balls.uniform_share, other_whole.data(), spreading.of(), pull);
      loss[i] = pull.loss;
      if (gradient != nullptr)
        for (int k = 0; k < d; ++k) gradient[from.order[i] * int64_t{d} + k] = static_cast<Given>(pull.g[k]);
    }
  });
  double total = 0;
  for (int64_t i = 0; i < from.size; ++i) total += loss[i];
  return total;
}

}  // namespace APML_ISA
}  // namespace apml::cpu
