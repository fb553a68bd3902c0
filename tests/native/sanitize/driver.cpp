// Calls every CPU op on small clouds, with four threads: few pairs and many, with lengths, float and double, tie
// rules, two and three coordinates, an untrained blob. `driver race` races on purpose, to show that it would be seen.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdio>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace {

using Values = std::vector<c10::IValue>;

at::Tensor cloud(int64_t batch, int64_t n, int64_t d, at::ScalarType type, bool blob) {
  at::Tensor x = at::randn({batch, n, d}, at::kDouble);
  x = blob ? x * 0.05 : x / x.norm(2, {-1}, true) + 0.02 * at::randn({batch, n, d}, at::kDouble);
  return x.to(type).contiguous();
}

std::set<std::string> missing;

void call(const char* op, const Values& arguments) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow((std::string("apml::") + op).c_str(), "");
  if (!handle.hasKernelForDispatchKey(c10::DispatchKey::CPU)) {
    missing.insert(op);
    return;
  }
  Values stack = arguments;
  handle.callBoxed(stack);
}

void call_all(const at::Tensor& pred, const at::Tensor& gt, const c10::IValue& pred_lengths,
              const c10::IValue& gt_lengths) {
  for (const bool uniform : {false, true}) {
    const Values plan{pred, gt, pred_lengths, gt_lengths, 0.8, 1e-20, int64_t{10}, 1e-8, uniform};
    call("plan", plan);
    for (const bool gradients : {false, true}) {
      Values match = plan;
      match.insert(match.end(), {gradients, false});
      call("match", match);
    }
    const bool squared = uniform;
    call("chamfer", {pred, gt, pred_lengths, gt_lengths, squared, true});
  }
  call("nearest", {pred, gt, pred_lengths, gt_lengths});
}

int race() {
  int64_t sum = 0;
  at::parallel_for(0, 1000, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
  std::printf("%lld\n", static_cast<long long>(sum));
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count > 1 && std::strcmp(words[1], "race") == 0) return race();
  at::manual_seed(0);
  const c10::IValue none;
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (const int64_t d : {2, 3}) {
      std::printf("%s, %d coordinates\n", type == at::kFloat ? "float32" : "float64", static_cast<int>(d));
      call_all(cloud(1, 3000, d, type, false), cloud(1, 2500, d, type, false), none, none);
      call_all(cloud(2, 1200, d, type, true), cloud(2, 1500, d, type, false), none, none);
      const at::Tensor lengths = at::tensor({300, 0, 1, 77, 299, 150}, at::kLong);
      call_all(cloud(6, 300, d, type, false), cloud(6, 333, d, type, false), lengths, none);
      const at::Tensor same = cloud(1, 50, d, type, false).repeat({1, 20, 1});  // every point twenty times: ties
      call_all(same, same, none, none);
    }
  }
  for (const std::string& op : missing) std::printf("apml::%s has no CPU kernel\n", op.c_str());
  return missing.empty() ? 0 : 2;
}
