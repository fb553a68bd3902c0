// The op `plan` on the CPU.
#include <torch/library.h>

#include <vector>

#include "../checks.h"
#include "pairs.h"

namespace apml::cpu {
namespace {

// One pair's entries, allocated once their number is known.
template <typename Given>
struct Allocated {
  PlanSink<Given> sink{};
  at::TensorOptions values_options;
  at::Tensor index, values;

  static void allocate(void* context, int64_t entries) {
    auto& self = *static_cast<Allocated*>(context);
    self.index = at::empty({3, entries}, self.values_options.dtype(at::kLong));
    self.values = at::empty({entries}, self.values_options);
    self.sink.rows = self.index.template mutable_data_ptr<int64_t>() + entries;
    self.sink.columns = self.index.template mutable_data_ptr<int64_t>() + 2 * entries;
    self.sink.values = self.values.template mutable_data_ptr<Given>();
  }
};

using Plans = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Plans plan(const at::Tensor& pred_, const at::Tensor& gt_, const std::optional<at::Tensor>& pred_lengths,
           const std::optional<at::Tensor>& gt_lengths, double p_min, double threshold, int64_t iterations, double eps,
           bool uniform_ties) {
  check_clouds("plan", pred_, gt_);
  check_lengths("plan", pred_lengths, pred_);
  check_lengths("plan", gt_lengths, gt_);
  const at::Tensor pred = pred_.contiguous(), gt = gt_.contiguous();
  const Lengths pred_n(pred_lengths, pred), gt_n(gt_lengths, gt);
  const Settings settings = checked_settings("plan", p_min, threshold, iterations, eps, uniform_ties, pred);
  const int64_t batch = pred.size(0), n = pred.size(1), m = gt.size(1);
  const at::TensorOptions wide = pred.options().dtype(at::kDouble);
  at::Tensor dropped = at::zeros({batch}, wide);
  at::Tensor row_spread = at::zeros({batch, n}, wide), row_scale = at::zeros({batch, n}, wide);
  at::Tensor column_spread = at::zeros({batch, m}, wide), column_scale = at::zeros({batch, m}, wide);
  std::vector<at::Tensor> indices{at::empty({3, 0}, pred.options().dtype(at::kLong))};
  std::vector<at::Tensor> values{at::empty({0}, pred.options())};
  AT_DISPATCH_FLOATING_TYPES(pred.scalar_type(), "apml::plan", [&] {
    for (int64_t b = 0; b < batch; ++b) {
      const Pair<scalar_t> p = pair_of<scalar_t>(pred, gt, pred_n, gt_n, b);
      if (p.n == 0 || p.m == 0) continue;
      Allocated<scalar_t> to;
      to.values_options = pred.options();
      to.sink.context = &to;
      to.sink.allocate = &Allocated<scalar_t>::allocate;
      to.sink.row_spread = row_spread.mutable_data_ptr<double>() + b * n;
      to.sink.row_scale = row_scale.mutable_data_ptr<double>() + b * n;
      to.sink.column_spread = column_spread.mutable_data_ptr<double>() + b * m;
      to.sink.column_scale = column_scale.mutable_data_ptr<double>() + b * m;
      Result result;
      within_memory("plan", b, p.n, p.m, threshold, result.entries,
                    [&] { entry().of<scalar_t>().plan(p, settings, to.sink, result); });
      TORCH_CHECK_VALUE(result.finite, "apml::plan: pair ", b, " holds NaN, Inf or coordinates beyond 1e150");
      to.index.select(0, 0).fill_(b);
      indices.push_back(to.index);
      values.push_back(to.values);
      dropped.mutable_data_ptr<double>()[b] = result.dropped;
    }
  });
  return {at::cat(indices, 1), at::cat(values), dropped, row_spread, column_spread, row_scale, column_scale};
}

}  // namespace
}  // namespace apml::cpu

TORCH_LIBRARY_IMPL(apml, CPU, m) { m.impl("plan", apml::cpu::plan); }
