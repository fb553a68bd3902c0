// One-to-one assignments of least total distance, exact or nearly so, in memory proportional to the points.
//
// Prices p prove how good an assignment is: every one-to-one assignment costs at least
//
//     sum_i min_j (|x_i - y_j| + p_j) - sum_j p_j.
//
// What row i pays above that minimum is its slack, and an assignment is as far above the bound as its slacks sum up
// to. Two methods complete an assignment, and both raise prices only:
//
// - The auction (Bertsekas 1988): a row without a column takes its cheapest one and raises the price until its second
//   choice is as cheap, plus eps; the holder before waits again. No slack exceeds eps.
// - Shortest augmenting paths (Jonker and Volgenant 1987): the cheapest chain of exchanges gives one more row a
//   column. They add no slack.
//
// The auction is quick where many rows wait, paths where few do, and each has clouds on which it takes for ever: they
// take turns. eps shrinks from round to round while the prices stay, and rows with more slack wait again. In the end
// all rows that have any slack do, and paths alone are exact.
//
// With more columns than rows, idle rows take the rest; to them every column costs its price alone.
#pragma once

#include "shortlists.h"

namespace apml::cpu {
namespace APML_ISA {

struct Reached {
  double length;
  int32_t what;  // a column, or ~row for whatever lies outside of the row's list
};
struct Farther {
  bool operator()(const Reached& a, const Reached& b) const {
    return a.length > b.length || (a.length == b.length && a.what > b.what);
  }
};

class Solver {
 public:
  static constexpr double INF = Shortlists::INF;
  static constexpr double COARSEST = 0.05;  // the first eps, as a share of the clouds' extent
  static constexpr double FINEST = 1e-16;   // no smaller eps can be seen
  static constexpr double SHRINK = 5;
  static constexpr double ROUNDING = 1e-13;  // no smaller relative distance to the bound can be proven
  static constexpr double PROMISING = 0.1;   // nearer than this to the bound, few chains are long
  static constexpr int64_t PATIENCE = 100;   // work for each row, before the other method has its turn

  explicit Solver(Assigning& a)
      : a_(a), lists_(a.x, a.n, a.y, a.m, a.d), rows_(a.m), column_of_(rows_), row_of_(rows_), label_(rows_),
        offset_(rows_), via_(rows_), waiting_(rows_ + 1) {
    labelled_.allocate(rows_, 0);
    settled_.allocate(rows_, 0);
    lists_.set_prices(a.prices);
    clear();
    Array<int32_t> sorted(rows_);
    for (int64_t j = 0; j < rows_; ++j) sorted[lists_.given_column(j)] = static_cast<int32_t>(j);
    for (int64_t i = 0; i < a.n; ++i)
      if (const int64_t j = a.columns[lists_.given_row(i)]; j >= 0) hold(static_cast<int32_t>(i), sorted[j]);
    // Idle rows take what is left; those for which that is too dear lose it again.
    if (a.eps < INF)
      for (int64_t i = a.n, j = 0; i < rows_; ++i) {
        while (row_of_[j] >= 0) ++j;
        hold(static_cast<int32_t>(i), static_cast<int32_t>(j));
      }
  }

  void run() {
    if (a_.eps == INF) {
      a_.eps = COARSEST;
      if (a_.n < a_.m) {
        // Most often each row finds a column near it, and the surplus needs no price.
        release(0);
        paths(a_.n, 3 * PATIENCE * rows_);
        if (complete(a_.n)) return finish(a_.n, true);
        lists_.set_prices(nullptr);
        clear();
      }
    }
    int64_t patience = PATIENCE * rows_;
    for (;;) {
      release(a_.eps);
      for (int64_t turn = 3 * PATIENCE * rows_; !complete(rows_); turn *= 2) {
        auction(a_.eps, turn);
        paths(rows_, turn);
        if (tired()) return finish(rows_, false);
      }
      measure(rows_);
      if (near_enough(a_.tolerance) || a_.eps <= FINEST) return finish(rows_, true);
      if (slack_ <= PROMISING * a_.total || a_.eps <= 1e-6) {
        release(0);
        paths(rows_, patience);
        if (complete(rows_)) return finish(rows_, true);
        patience *= 2;
      }
      a_.eps /= SHRINK;
      if (tired()) return finish(rows_, false);
    }
  }

 private:
  Assigning& a_;
  Shortlists lists_;
  int64_t rows_;
  Array<int32_t> column_of_, row_of_;  // -1 for none
  double slack_ = 0;
  int64_t held_ = 0;
  // Of a search for a path: the length of the shortest way to each column, and the row it comes from.
  Array<double> label_;
  Array<double> offset_;  // what turns a row's values into lengths
  Array<int32_t> via_;
  Array<int32_t> waiting_;
  Array<int32_t> labelled_, settled_;  // the last search that did so
  Growing<Reached> heap_;
  Growing<int32_t> ready_, chain_;  // columns as near as the nearest, and those settled
  int64_t heap_size_ = 0, ready_size_ = 0, chain_size_ = 0;
  int32_t search_ = 0, end_ = -1;
  double now_ = 0, end_length_ = 0;

  bool tired() const { return lists_.work > a_.work; }

  void clear() {
    for (int64_t i = 0; i < rows_; ++i) column_of_[i] = row_of_[i] = -1;
    held_ = 0;
  }

  bool complete(int64_t rows) const { return held_ == rows; }

  void hold(int32_t i, int32_t j) {
    column_of_[i] = j;
    row_of_[j] = i;
    ++held_;
  }

  double slack(int64_t i) {
    const int32_t j = column_of_[i];
    return std::max(lists_.distance(i, j) + lists_.price(j) - lists_.best(i).first, 0.0);
  }

  // Takes their columns from rows with more slack than `eps`, and more than rounding.
  void release(double eps) {
    for (int64_t i = 0; i < rows_; ++i) {
      const int32_t j = column_of_[i];
      if (j < 0) continue;
      const double rounding = 4e-16 * (lists_.distance(i, j) + lists_.price(j));
      if (slack(i) <= eps + rounding) continue;
      column_of_[i] = row_of_[j] = -1;
      --held_;
    }
  }

  void measure(int64_t rows) {
    a_.total = slack_ = 0;
    for (int64_t i = 0; i < rows; ++i) {
      a_.total += lists_.distance(i, column_of_[i]);
      slack_ += slack(i);
    }
    a_.bound = std::max(a_.total - slack_, 0.0);
  }

  bool near_enough(double tolerance) const { return a_.total - a_.bound <= std::max(tolerance, ROUNDING) * a_.bound; }

  // Hands over what there is.
  void finish(int64_t rows, bool finished) {
    a_.finished = finished;
    if (finished) measure(rows);
    for (int64_t i = 0; i < a_.n; ++i)
      a_.columns[lists_.given_row(i)] = column_of_[i] < 0 ? -1 : lists_.given_column(column_of_[i]);
    for (int64_t j = 0; j < a_.m; ++j) a_.prices[lists_.given_column(j)] = lists_.price(j);
  }

  // Bids until every row holds a column, or for `turn` of work.
  void auction(double eps, int64_t turn) {
    // A ring: who loses a column waits behind all others.
    const int64_t room = rows_ + 1;
    int64_t first = 0, last = 0;
    for (int64_t i = 0; i < rows_; ++i)
      if (column_of_[i] < 0) waiting_[last++] = static_cast<int32_t>(i);
    for (const int64_t until = lists_.work + turn; first != last && lists_.work < until && !tired(); ++lists_.work) {
      const int32_t i = waiting_[first];
      first = (first + 1) % room;
      const Best b = lists_.best(i);
      const int32_t before = row_of_[b.column];
      // With a single column there is no second choice.
      lists_.raise(b.column, lists_.price(b.column) + (b.second < INF ? b.second - b.first : 0.0) + eps);
      if (before >= 0) {
        column_of_[before] = -1;
        --held_;
        waiting_[last] = before;
        last = (last + 1) % room;
      }
      hold(i, b.column);
    }
  }

  // Gives rows that wait a column by shortest paths, for `turn` of work.
  void paths(int64_t rows, int64_t turn) {
    const int64_t until = lists_.work + turn;
    for (int64_t i = 0; i < rows && lists_.work < until && !tired(); ++i)
      if (column_of_[i] < 0) augment(static_cast<int32_t>(i));
  }

  // The shortest path from row s to a column that nobody holds, by Dijkstra's method: from a row to a column for what
  // the column costs it above its cheapest one, from a column to its holder for nothing.
  void augment(int32_t s) {
    ++search_;
    heap_size_ = ready_size_ = chain_size_ = 0;
    now_ = 0;
    end_ = -1;
    end_length_ = INF;
    open(s);
    while (now_ < end_length_) {
      int32_t j;
      if (ready_size_ > 0) {
        j = ready_[--ready_size_];
      } else {
        if (heap_size_ == 0 || heap_[0].length >= end_length_) break;
        const Reached next = heap_[0];
        std::pop_heap(heap_.data(), heap_.data() + heap_size_--, Farther());
        now_ = std::max(now_, next.length);
        if (next.what < 0) {
          look_outside(~next.what, next.length);
          continue;
        }
        j = next.what;
      }
      if (settled_[j] == search_) continue;
      settled_[j] = search_;
      chain_.reserve(chain_size_ + 1);
      chain_[chain_size_++] = j;
      open(row_of_[j]);
    }
    // What was nearer than the end becomes as dear as the end: no row gains slack, and the path has none.
    for (int64_t k = 0; k < chain_size_; ++k)
      if (const double rise = end_length_ - label_[chain_[k]]; rise > 0)
        lists_.raise(chain_[k], lists_.price(chain_[k]) + rise);
    for (int32_t j = end_; j >= 0;) {
      const int32_t i = via_[j], next = column_of_[i];
      row_of_[j] = i;
      column_of_[i] = j;
      j = next;
    }
    ++held_;
  }

  // Goes on from row i, which lies `now_` from the start.
  void open(int32_t i) {
    ++lists_.work;
    offset_[i] = now_ - lists_.best(i).first;
    try_listed(i);
  }

  void try_listed(int32_t i) {
    const double offset = offset_[i];
    lists_.each_listed(i, [&](int32_t j, double value) {
      if (offset + value < end_length_) reach(i, j, offset + value);
    });
    reach_outside(i, offset + lists_.outside(i));
  }

  void reach_outside(int32_t i, double length) {
    if (length < end_length_) push({length, ~i});
  }

  bool shorter(int32_t j, double length) const {
    length = std::max(length, now_);
    return length < end_length_ && (labelled_[j] != search_ || length < label_[j]);
  }

  void reach(int32_t i, int32_t j, double length) {
    if (!shorter(j, length)) return;
    length = std::max(length, now_);
    labelled_[j] = search_;
    label_[j] = length;
    via_[j] = i;
    if (row_of_[j] < 0) {
      end_length_ = length;
      end_ = j;
    } else if (length == now_) {
      ready_.reserve(ready_size_ + 1);
      ready_[ready_size_++] = j;
    } else {
      push({length, j});
    }
  }

  void push(Reached next) {
    heap_.reserve(heap_size_ + 1);
    heap_[heap_size_++] = next;
    std::push_heap(heap_.data(), heap_.data() + heap_size_, Farther());
  }

  // The list of row i goes no farther than `length`: makes a new one or, where that would be the same, looks for
  // columns to which no way as short is known.
  void look_outside(int32_t i, double length) {
    const double offset = offset_[i];
    if (length == offset + lists_.outside(i) && lists_.renew(i)) return try_listed(i);
    double limit = end_length_ - offset;
    const double all = limit;
    lists_.each_cheapest(
        i, limit, [&](int32_t j, double value) { return shorter(j, offset + value); },
        [&](int32_t j, double value) { reach(i, j, offset + value); });
    if (limit < all) reach_outside(i, offset + limit);
  }
};

inline void assign(Assigning& a) { Solver(a).run(); }

}  // namespace APML_ISA
}  // namespace apml::cpu
