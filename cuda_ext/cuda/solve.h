// The plan of a batch: search, support, similarities, Sinkhorn. What `match` and `plan` share.
#pragma once

#include <ATen/ops/amax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>

#include "workspace.h"

namespace apml::cuda {

constexpr double RANGE = 240.0;  // decimal digits the scalings may grow by before they are absorbed
constexpr int ABSORB_EVERY = 8;
// A whole warp takes a row, in place of 8 lanes, where rows have more entries than this on average, or one has so many
// that the others would wait for it.
constexpr int LONG_ROW = 32;
constexpr int LONGEST_ROW = 1024;

// Decimal digits by which a starved row grows in an iteration.
inline double growth(const Settings& settings) { return std::max(0.0, -std::log10(settings.eps)); }

// Whether r and c stay in range of double through all iterations without being absorbed.
inline bool stays_in_range(const Settings& settings) {
  return static_cast<double>(settings.iterations) * growth(settings) <= RANGE;
}

// Runs all iterations, absorbing on the way where the range of double asks for it.
template <typename T, typename V>
void sinkhorn(const Plan<T, V>& plan, const Settings& settings, bool long_rows, Stream stream) {
  const double digits = growth(settings);
  const int64_t every = digits > 0.0 ? std::max<int64_t>(1, static_cast<int64_t>(RANGE / digits)) : ABSORB_EVERY;
  for (int64_t step = 1; step <= settings.iterations; ++step) {
    half_step(plan, Side::PRED, long_rows, stream);
    half_step(plan, Side::GT, long_rows, stream);
    if (plan.absorbed && step % std::min<int64_t>(every, ABSORB_EVERY) == 0) absorb(plan, long_rows, stream);
  }
}

// The one-sided softmins of all slots, which last over all rounds.
struct Softmins {
  Rule* rules;
  double *threshold, *spread, *gap;  // spread: null without uniform ties; gap, nearest: null unless differentiating
  Nearest* nearest;
};

template <typename T>
Softmins softmins(Workspace& keep, const Tree<T>& tree, const Settings& settings, bool differentiate, Stream stream) {
  const int64_t slots = tree.layout.slots();
  Softmins all{};
  all.rules = keep.array<Rule>(slots);
  all.threshold = keep.array<double>(slots);
  all.spread = settings.uniform_ties ? keep.array<double>(slots) : nullptr;
  all.gap = differentiate ? keep.array<double>(slots) : nullptr;
  all.nearest = differentiate ? keep.array<Nearest>(slots) : nullptr;
  two_nearest(tree, settings, all.rules, all.threshold, all.spread, all.gap, all.nearest, stream);
  return all;
}

// A plan and what stands behind it.
template <typename T, typename V>
struct Solving {
  Plan<T, V> plan;
  Softmins softmins;
  Stream stream;
  int64_t entries;  // rows and columns together
  bool long_rows;
  double *dropped, *sums;  // (B,) and (B, 2), see reduce_pairs
};

template <typename E>
E* support_array(Workspace& keep, int64_t entries, int64_t bytes_per_entry, const Layout& layout) {
  try {
    return keep.array<E>(entries);
  } catch (const std::exception& error) {
    const double gigabytes = static_cast<double>(entries) * static_cast<double>(bytes_per_entry) / 1e9;
    const std::string text = error.what();
    TORCH_CHECK_WITH(OutOfMemoryError, false, "apml: out of memory for the support of ", layout.pairs, " pairs: ",
                     entries / 2, " entries, ", gigabytes, " GB for rows and columns; a larger threshold keeps ",
                     "fewer. (", text.substr(0, text.find('\n')), ")");
  }
}

// Everything before Sinkhorn. V is the type the similarities are kept in.
template <typename T, typename V>
Solving<T, V> supported(Workspace& keep, const Tree<T>& tree, const Softmins& softmins, const Settings& settings,
                        at::Tensor& dropped, Stream stream) {
  const Layout& layout = tree.layout;
  const int64_t slots = layout.slots();
  const bool differentiate = softmins.gap != nullptr;
  Solving<T, V> solving{};
  Plan<T, V>& plan = solving.plan;
  solving.softmins = softmins;
  solving.stream = stream;
  solving.dropped = dropped.data_ptr<double>();
  solving.sums = keep.array<double>(2 * layout.pairs);
  plan.tree = tree;
  plan.eps = settings.eps;
  plan.rules = softmins.rules;
  plan.threshold = softmins.threshold;
  plan.spread = softmins.spread;

  // 1. The size of the support: the one copy that is waited for.
  const at::Tensor offsets =
      fresh_bytes((slots + 1) * static_cast<int64_t>(sizeof(int64_t)), keep.like()).view(at::kLong);
  keep.hold(offsets);
  plan.offsets = offsets.const_data_ptr<int64_t>();
  {
    const at::Tensor counts = fresh_bytes(slots * static_cast<int64_t>(sizeof(int)), keep.like()).view(at::kInt);
    count_support(tree, counts.data_ptr<int>(), stream);
    offsets.narrow(0, 0, 1).zero_();
    at::Tensor ends = offsets.narrow(0, 1, slots);
    at::cumsum_out(ends, counts, 0, at::kLong);
    const at::Tensor sizes = at::stack({offsets.select(0, slots), counts.amax().to(at::kLong)}).cpu();
    solving.entries = sizes.const_data_ptr<int64_t>()[0];
    solving.long_rows = solving.entries > LONG_ROW * slots || sizes.const_data_ptr<int64_t>()[1] > LONGEST_ROW;
  }

  // 2. Entries and similarities.
  const int64_t bytes = sizeof(int) + sizeof(V) + (differentiate ? sizeof(double) : 0);
  int* partner = support_array<int>(keep, solving.entries, bytes, layout);
  plan.partner = partner;
  plan.values = support_array<V>(keep, solving.entries, bytes, layout);
  fill_support(tree, plan.offsets, partner, stream);
  plan.share = keep.array<double>(slots);
  similarities(plan, solving.long_rows, stream);

  // 3. r = c = 1.
  plan.scale = keep.ones(slots);
  plan.absorbed = stays_in_range(settings) ? nullptr : keep.ones(slots);
  plan.sums = plan.spread ? keep.array<double>(4 * layout.pairs) : nullptr;
  plan.force = plan.spread ? keep.array<double>(4 * slots) : nullptr;
  return solving;
}

inline void refuse_capture(const char* op) {
  TORCH_CHECK(!capturing(), "apml::", op, ": cannot be captured into a CUDA graph: the size of the support is read ",
              "back from the device to allocate it; leave the loss outside the capture");
}

// Similarities down to exp(-80.5) / K, or 1e-35 / K, fit float; r and c never enter them.
constexpr float NATS_IN_FLOAT = 80.5f;

// One round with the present thresholds: 0, and finish(solving) was called, unless they leave out too much of some pair
// and could be lowered. They are then, and the result is the largest -log(threshold).
template <typename T, typename V, typename Finish>
float round(const Tree<T>& tree, const Softmins& softmins, const Settings& settings, bool last, at::Tensor& dropped,
            Stream stream, const Finish& finish) {
  Workspace keep(dropped);
  const Solving<T, V> solving = supported<T, V>(keep, tree, softmins, settings, dropped, stream);
  sinkhorn(solving.plan, settings, solving.long_rows, stream);
  if (!last) {
    reduce_pairs<T, V>(solving.plan, nullptr, nullptr, solving.dropped, solving.sums, stream);
    const at::Tensor state = at::zeros({2}, dropped.options().dtype(at::kInt));
    lower_thresholds(solving.plan, settings.tolerance, solving.dropped, solving.sums, state.data_ptr<int>(), stream);
    const at::Tensor read = state.cpu();
    const int* values = read.const_data_ptr<int>();
    float nats;
    std::memcpy(&nats, values + 1, sizeof(nats));
    if (values[0] != 0) return nats;
  }
  finish(keep, solving);
  return 0;
}

// Rounds until the thresholds are small enough.
template <typename T, typename Finish>
void scaled(const Tree<T>& tree, const Softmins& softmins, const Settings& settings, at::Tensor& dropped, Stream stream,
            const Finish& finish) {
  const int most = std::max(tree.layout.pred_points, tree.layout.gt_points);
  const double first = settings.adaptive() ? first_threshold(most, settings) : settings.threshold;
  float nats = static_cast<float>(-std::log(first));
  for (int k = 1; nats > 0; ++k) {
    const bool last = !settings.adaptive() || k == ROUNDS;
    if constexpr (std::is_same_v<T, float>) {
      if (nats <= NATS_IN_FLOAT && stays_in_range(settings)) {
        nats = round<T, float>(tree, softmins, settings, last, dropped, stream, finish);
        continue;
      }
    }
    nats = round<T, double>(tree, softmins, settings, last, dropped, stream, finish);
  }
}

}  // namespace apml::cuda
