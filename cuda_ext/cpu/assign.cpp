// The op `assign` on the CPU.
#include <torch/library.h>

#include "../checks.h"
#include "pairs.h"

namespace apml::cpu {
namespace {

std::tuple<at::Tensor, at::Tensor, double, double, double, bool> assign(const at::Tensor& x_, const at::Tensor& y_,
                                                                        const at::Tensor& columns_,
                                                                        const at::Tensor& prices_, double eps,
                                                                        double tolerance, int64_t work) {
  check_clouds("assign", x_.unsqueeze(0), y_.unsqueeze(0));
  const at::Tensor x = x_.contiguous(), y = y_.contiguous();
  const int64_t n = x.size(0), m = y.size(0);
  TORCH_CHECK(x.scalar_type() == at::kDouble && n >= 1 && n <= m,
              "apml::assign: float64 clouds of 1 <= n <= m points are needed, got ", x.scalar_type(), " ", x.sizes(),
              " and ", y.sizes());
  TORCH_CHECK(columns_.dim() == 1 && columns_.size(0) == n && columns_.scalar_type() == at::kLong &&
                  prices_.dim() == 1 && prices_.size(0) == m && prices_.scalar_type() == at::kDouble,
              "apml::assign: columns must be int64 (", n, ",) and prices float64 (", m, ",), got ",
              columns_.scalar_type(), " ", columns_.sizes(), " and ", prices_.scalar_type(), " ", prices_.sizes());
  const at::Tensor columns = columns_.clone(at::MemoryFormat::Contiguous);
  const at::Tensor prices = prices_.clone(at::MemoryFormat::Contiguous);
  TORCH_CHECK(at::isfinite(x).all().item<bool>() && at::isfinite(y).all().item<bool>() &&
                  (prices >= 0).all().item<bool>() && at::isfinite(prices).all().item<bool>(),
              "apml::assign: coordinates and prices must be finite, and prices not negative");
  const at::Tensor held = columns.masked_select(columns >= 0);
  TORCH_CHECK(held.numel() == 0 || (held.max().item<int64_t>() < m && at::bincount(held).max().item<int64_t>() == 1),
              "apml::assign: columns must be different numbers below ", m, ", or -1");
  Assigning a{x.const_data_ptr<double>(),
              y.const_data_ptr<double>(),
              n,
              m,
              static_cast<int>(x.size(1)),
              columns.mutable_data_ptr<int64_t>(),
              prices.mutable_data_ptr<double>(),
              eps,
              tolerance,
              work};
  within_memory("assign", 0, n, m, 1.0, 0, [&] { entry().assign(a); });
  return {columns, prices, a.eps, a.total, a.bound, a.finished};
}

}  // namespace
}  // namespace apml::cpu

TORCH_LIBRARY_IMPL(apml, CPU, m) { m.impl("assign", apml::cpu::assign); }
