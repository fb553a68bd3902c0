// The plan of a batch: search, support, similarities, Sinkhorn. What `match` and `plan` share.
#pragma once

#include <ATen/ops/amax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <string>

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

// A plan and what stands behind it.
template <typename T, typename V>
struct Solving {
  Plan<T, V> plan;
  Stream stream;
  int64_t entries;  // rows and columns together
  bool long_rows;
  double* gap;       // null unless differentiating
  Nearest* nearest;  // null unless differentiating
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
Solving<T, V> supported(Workspace& keep, const Tree<T>& tree, const Settings& settings, bool differentiate,
                        Stream stream) {
  const Layout& layout = tree.layout;
  const int64_t slots = layout.slots();
  Solving<T, V> solving{};
  Plan<T, V>& plan = solving.plan;
  solving.stream = stream;
  plan.tree = tree;
  plan.eps = settings.eps;

  // 1. Rules and radii.
  plan.rules = keep.array<Rule>(slots);
  plan.spread = settings.uniform_ties ? keep.array<double>(slots) : nullptr;
  solving.gap = differentiate ? keep.array<double>(slots) : nullptr;
  solving.nearest = differentiate ? keep.array<Nearest>(slots) : nullptr;
  two_nearest(tree, settings, plan.rules, plan.spread, solving.gap, solving.nearest, stream);

  // 2. The size of the support: the one copy that is waited for.
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

  // 3. Entries and similarities.
  const int64_t bytes = sizeof(int) + sizeof(V) + (differentiate ? sizeof(double) : 0);
  int* partner = support_array<int>(keep, solving.entries, bytes, layout);
  plan.partner = partner;
  plan.values = support_array<V>(keep, solving.entries, bytes, layout);
  fill_support(tree, plan.offsets, partner, stream);
  plan.share = keep.array<double>(slots);
  similarities(plan, solving.long_rows, stream);

  // 4. r = c = 1.
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

// Calls use(tag_t, tag_v) with the types of the clouds and of the similarities.
template <typename Use>
void with_types(const at::Tensor& pred, const Settings& settings, bool differentiate, Use use) {
  if (pred.scalar_type() == at::kDouble) {
    use(double{}, double{});
  } else if (!differentiate && settings.threshold >= 1e-30 && stays_in_range(settings)) {
    use(float{}, float{});  // similarities above 1e-30 / K fit float; r and c never enter them
  } else {
    use(float{}, double{});
  }
}

}  // namespace apml::cuda
