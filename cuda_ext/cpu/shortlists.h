// The cheapest columns of each row, distance plus price, while prices rise.
//
// Columns are points, and so are rows but the last of them, idle rows, for which every column costs its price alone.
// A list holds the columns that were cheapest for its row when it was made, and a value below which no other column
// can come: prices only rise, so that value holds until the list is made again.
#pragma once

#include <cmath>

#include "search.h"

namespace apml::cpu {
namespace APML_ISA {

struct Best {
  int32_t column;
  double first, second;  // the least value and the next
};

inline Lanes<double> square_roots(Lanes<double> v) {
#if defined(APML_AVX512)
  return reinterpret_cast<Lanes<double>>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(v)));
#else
  for (int k = 0; k < LANES; ++k) v[k] = std::sqrt(v[k]);
  return v;
#endif
}

class Shortlists {
 public:
  static constexpr int LENGTH = 8;
  static constexpr double INF = std::numeric_limits<double>::infinity();

  const int64_t points, columns;  // rows at points, n <= m; there are as many rows as columns
  int64_t work = 0;               // boxes opened, leaves among them: what time is spent on

  Shortlists(const double* x, int64_t n, const double* y, int64_t m, int d) : points(n), columns(m) {
    build(tree_, y, m, d);
    // Rows along the same curve: neighbours read the same columns.
    Array<Keyed> items(n);
    for (int64_t i = 0; i < n; ++i) items[i] = {0, static_cast<int32_t>(i)};
    sort_points(x, d, items.data(), n);
    order_.allocate(n);
    for (int64_t i = 0; i < n; ++i) order_[i] = items[i].index;
    for (int k = 0; k < 3; ++k) {
      x_[k].allocate(n);
      for (int64_t i = 0; i < n; ++i) x_[k][i] = k < d ? x[order_[i] * int64_t{d} + k] : 0.0;
    }
    price_.allocate(tree_.leaves * LANES);
    for (int h = 0; h < tree_.height; ++h) lowest_[h].allocate((tree_.level[h].count + LANES - 1) / LANES * LANES);
    column_.allocate(m * LENGTH);
    distance_.allocate(m * LENGTH);
    outside_.allocate(m);
    set_prices(nullptr);
  }

  // Positions in the given clouds.
  int64_t given_row(int64_t i) const { return order_[i]; }
  int64_t given_column(int64_t j) const { return tree_.order[j]; }

  double price(int64_t j) const { return price_[j]; }

  // Sets all prices, >= 0 and in the order of the given columns; null for 0. No list stays.
  void set_prices(const double* given) {
    for (int64_t j = 0; j < tree_.leaves * LANES; ++j)
      price_[j] = j >= columns ? INF : given == nullptr ? 0.0 : given[tree_.order[j]];
    const double* below = price_.data();
    int64_t children = tree_.leaves * LANES;
    for (int h = 0; h < tree_.height; ++h) {
      const int64_t count = tree_.level[h].count;
      for (int64_t b = 0; b < (count + LANES - 1) / LANES * LANES; ++b) {
        lowest_[h][b] = INF;
        for (int64_t i = b * LANES; i < std::min(children, (b + 1) * LANES); ++i)
          lowest_[h][b] = std::min(lowest_[h][b], below[i]);
      }
      below = lowest_[h].data();
      children = count;
    }
    for (int64_t i = 0; i < columns; ++i) outside_[i] = -1;
  }

  void raise(int32_t j, double to) {
    const double before = price_[j];
    price_[j] = to;
    const double* below = price_.data();
    int64_t at = j;
    for (int h = 0; h < tree_.height; ++h) {
      at /= LANES;
      if (lowest_[h][at] != before) return;
      double least = INF;
      for (int k = 0; k < LANES; ++k) least = std::min(least, below[at * LANES + k]);
      if (least == before) return;
      lowest_[h][at] = least;
      below = lowest_[h].data();
    }
  }

  double distance(int64_t i, int64_t j) const {
    if (i >= points) return 0;
    const double a = x_[0][i] - tree_.x[0][j], b = x_[1][i] - tree_.x[1][j], c = x_[2][i] - tree_.x[2][j];
    return std::sqrt(a * a + b * b + c * c);
  }

  // The row's cheapest column and the two least values; of equal values any.
  Best best(int64_t i) {
    if (outside_[i] >= 0) {
      const Best b = best_listed(i);
      if (b.second <= outside_[i]) return b;
    }
    renew(i);
    return best_listed(i);
  }

  // Makes the list of row i again. Returns whether that moved the value below which no other column can come.
  bool renew(int64_t i) {
    const double before = outside_[i];
    double limit = INF;
    const int count = search(i, limit, [](int32_t, double) { return true; });
    outside_[i] = limit;
    for (int k = 0; k < LENGTH; ++k) {
      const bool filled = k < count;
      column_[i * LENGTH + k] = found_column_[filled ? k : 0];
      distance_[i * LENGTH + k] = filled ? found_distance_[k] : INF;
    }
    return limit > before;
  }

  double outside(int64_t i) const { return outside_[i]; }

  // Calls take(column, value) for the list of row i.
  template <typename Take>
  void each_listed(int64_t i, const Take& take) const {
    const int32_t* column = column_.data() + i * LENGTH;
    const double* distance = distance_.data() + i * LENGTH;
    for (int k = 0; k < LENGTH; ++k) take(column[k], distance[k] + price_[column[k]]);
  }

  // Calls take(column, value) for the columns of least value below `limit` among those wanted(column, value), LENGTH
  // of them at most. `limit` becomes the value below which there is no further one.
  template <typename Wanted, typename Take>
  void each_cheapest(int64_t i, double& limit, const Wanted& wanted, const Take& take) {
    const int count = search(i, limit, wanted);
    for (int k = 0; k < count; ++k) take(found_column_[k], found_value_[k]);
  }

 private:
  Tree<double> tree_;                 // of the columns
  Array<int32_t> order_;              // of the rows
  Array<double> x_[3];
  Array<double> price_;               // infinity for padding
  Array<double> lowest_[MAX_HEIGHT];  // price inside each box
  Array<int32_t> column_;             // LENGTH a row
  Array<double> distance_;            // LENGTH a row, infinity where the list has no more columns
  Array<double> outside_;             // -1: no list yet
  double found_value_[LENGTH], found_distance_[LENGTH];
  int32_t found_column_[LENGTH];

  Best best_listed(int64_t i) const {
    Best b{-1, INF, INF};
    each_listed(i, [&](int32_t j, double value) {
      if (value < b.first) {
        b.second = b.first;
        b.first = value;
        b.column = j;
      } else if (value < b.second) {
        b.second = value;
      }
    });
    return b;
  }

  int worst_found() const {
    double most = found_value_[0];
    int at = 0;
    for (int k = 1; k < LENGTH; ++k)
      if (found_value_[k] > most) {
        most = found_value_[k];
        at = k;
      }
    return at;
  }

  // Near boxes first. Fills found_*; returns how many it found and sets `limit` as each_cheapest says.
  template <typename Wanted>
  int search(int64_t i, double& limit, const Wanted& wanted) {
    struct Node {
      double least;
      int32_t height, index;
    };
    Node stack[(MAX_HEIGHT + 1) * LANES];
    const bool idle = i >= points;
    const double weight = idle ? 0.0 : 1.0;
    const double at[3] = {idle ? 0.0 : x_[0][i], idle ? 0.0 : x_[1][i], idle ? 0.0 : x_[2][i]};
    double most = limit;
    int top = 0, count = 0, worst = 0;
    stack[top++] = {0.0, tree_.height, 0};
    while (top > 0) {
      const Node node = stack[--top];
      if (node.least >= most) continue;
      ++work;
      const int64_t first = int64_t{node.index} * LANES;
      Lanes<double> sum{};
      if (node.height == 0) {
        for (int k = 0; k < 3; ++k) {
          const Lanes<double> apart = load(tree_.x[k].data() + first) - at[k];
          sum += apart * apart;
        }
        for (int64_t k = columns - first; k < LANES; ++k) sum[k] = 0;  // padding, infinitely far and dear
        const Lanes<double> distance = weight * square_roots(sum), value = distance + load(price_.data() + first);
        double values[LANES], distances[LANES];
        std::memcpy(values, &value, sizeof(values));
        std::memcpy(distances, &distance, sizeof(distances));
        for (unsigned open = at_most(value, spread(most)); open != 0; open &= open - 1) {
          const int k = __builtin_ctz(open);
          const int32_t j = static_cast<int32_t>(first + k);
          if (!(values[k] < most) || !wanted(j, values[k])) continue;
          const int place = count < LENGTH ? count : worst;
          found_value_[place] = values[k];
          found_distance_[place] = distances[k];
          found_column_[place] = j;
          if (count < LENGTH && ++count < LENGTH) continue;
          worst = worst_found();
          most = found_value_[worst];
        }
        continue;
      }
      const Level<double>& level = tree_.level[node.height - 1];
      const int room = static_cast<int>(std::min<int64_t>(LANES, level.count - first));
      for (int k = 0; k < 3; ++k) {
        const Lanes<double> above = load(level.lo[k].data() + first) - at[k];
        const Lanes<double> below = at[k] - load(level.hi[k].data() + first);
        const Lanes<double> gap = upper(upper(above, below), Lanes<double>{});
        sum += gap * gap;
      }
      for (int k = room; k < LANES; ++k) sum[k] = 0;
      const Lanes<double> least = weight * square_roots(sum) + load(lowest_[node.height - 1].data() + first);
      const unsigned open = at_most(least, spread(most)) & ((1u << room) - 1);
      int child[LANES];
      nearest_first<double>(least, open, child);
      for (int c = __builtin_popcount(open); c-- > 0;)
        stack[top++] = {least[child[c]], node.height - 1, static_cast<int32_t>(first + child[c])};
    }
    if (count == LENGTH) limit = most;
    return count;
  }
};

}  // namespace APML_ISA
}  // namespace apml::cpu
