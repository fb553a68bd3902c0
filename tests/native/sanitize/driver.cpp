// Calls every CPU op with four threads: small and large clouds, surfaces, an untrained blob, lattices full of ties,
// one pair and several, with lengths, float and double; then from two threads of the host at once. Every call is made
// again and must give the same bits, finite ones. `driver race` and `driver overflow` err on purpose, to show that
// it is seen.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "cpu/pool.h"

namespace {

using Values = std::vector<c10::IValue>;
using Results = std::vector<at::Tensor>;

constexpr double NAN_ = std::numeric_limits<double>::quiet_NaN();
std::atomic<int> failures{0};

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("  WRONG: %s\n", what.c_str());
}

Results call(const char* op, const Values& arguments) {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow((std::string("apml::") + op).c_str(), "");
  Values stack = arguments;
  handle.callBoxed(stack);
  Results results;
  for (const c10::IValue& value : stack) results.push_back(value.toTensor());
  return results;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return false;
  return a.nbytes() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

void expect_same(const Results& a, const Results& b, const std::string& what) {
  bool same = a.size() == b.size();
  for (size_t k = 0; same && k < a.size(); ++k) same = same_bits(a[k], b[k]);
  expect(same, what);
}

// Two clouds and what is asked of them.
struct Case {
  std::string name;
  at::Tensor pred, gt;
  c10::IValue pred_lengths, gt_lengths;
  int64_t iterations = 10;
  bool finite = true;
};

// Every op in every variant; the results in order.
std::vector<Results> call_all(const Case& c) {
  std::vector<Results> all;
  for (const bool uniform : {false, true}) {
    const Values plan{c.pred, c.gt, c.pred_lengths, c.gt_lengths, 0.8, 1e-20, c.iterations, 1e-8, uniform};
    try {
      all.push_back(call("plan", plan));
    } catch (const c10::ValueError&) {  // there is no plan for NaN and Inf; across the threads' boundary, too
      expect(!c.finite, c.name + ": plan refuses finite clouds");
      all.emplace_back();
    }
    for (const auto& [gradients, differentiate] : {std::pair{false, false}, {true, false}, {true, true}}) {
      Values match = plan;
      match.insert(match.end(), {gradients, differentiate});
      all.push_back(call("match", match));
    }
    const bool squared = uniform;
    all.push_back(call("chamfer", {c.pred, c.gt, c.pred_lengths, c.gt_lengths, squared, true}));
    all.push_back(call("fast_emd", {c.pred, c.gt, c.pred_lengths, c.gt_lengths, int64_t{7}, int64_t{3}, int64_t{8},
                                    int64_t{3}, squared, uniform, true}));
  }
  all.push_back(call("nearest", {c.pred, c.gt, c.pred_lengths, c.gt_lengths}));
  return all;
}

std::vector<Results> run(const Case& c) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Results> all = call_all(c);
  for (size_t k = 0; k < all.size(); ++k)
    for (const at::Tensor& t : all[k])
      expect(!c.finite || at::isfinite(t).all().item<bool>(),
             c.name + ": call " + std::to_string(k) + " is not finite");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (seconds > 2) std::printf("  %s: %.1f s\n", c.name.c_str(), seconds);
  return all;
}

// Again, from two threads of the host at once, one of them in the other order.
void run_at_once(const std::vector<Case>& cases, const std::vector<std::vector<Results>>& wanted) {
  const auto work = [&](bool backward) {
    for (size_t i = 0; i < cases.size(); ++i) {
      const size_t k = backward ? cases.size() - 1 - i : i;
      const std::vector<Results> all = call_all(cases[k]);
      for (size_t r = 0; r < all.size(); ++r)
        expect_same(all[r], wanted[k][r], cases[k].name + ": call " + std::to_string(r) + " differs between runs");
    }
  };
  std::thread other(work, true);
  work(false);
  other.join();
}

at::Tensor normal(int64_t batch, int64_t n, int64_t d) { return at::randn({batch, n, d}, at::kDouble); }

at::Tensor surface(int64_t batch, int64_t n, int64_t d) {
  const at::Tensor x = normal(batch, n, d);
  return x / x.norm(2, {-1}, true) + 0.02 * normal(batch, n, d);
}

// The first n points of a lattice, moved by `by`: moved by half a step every point has 2^d nearest.
at::Tensor lattice(int64_t n, int64_t d, double by) {
  const int64_t side = static_cast<int64_t>(std::ceil(std::pow(double(n), 1.0 / double(d)) - 1e-9));
  at::Tensor at = at::arange(n, at::kLong), x = at::empty({1, n, d}, at::kDouble);
  for (int64_t k = 0; k < d; ++k, at = at.div(side, "floor")) x.select(2, k).copy_(at.remainder(side));
  return x / double(side) + by / double(side);
}

std::vector<Case> cases_of(at::ScalarType type) {
  std::vector<Case> cases;
  const auto add = [&](std::string name, at::Tensor pred, at::Tensor gt) -> Case& {
    cases.push_back({name, pred.to(type).contiguous(), gt.to(type).contiguous(), {}, {}});
    return cases.back();
  };
  for (const int64_t n : {1, 7, 65, 700}) {
    const std::string of = std::to_string(n);
    add("surface of " + of, surface(1, n, 3), surface(1, n + n / 3, 3));
    add("blob of " + of, normal(1, n, 2) * 0.05, surface(1, n, 2)).iterations = 2;
    add("lattice of " + of, lattice(n, 3, 0.5), lattice(n, 3, 0)).iterations = 9;
    add("one for " + of, surface(1, n, 1), surface(1, 1, 1));
  }
  add("surface of 3000", surface(1, 3000, 3), surface(1, 2500, 3)).iterations = 4;
  add("blob of 3000", normal(1, 3000, 3) * 0.05, surface(1, 300, 3)).iterations = 2;
  add("lattice of 3000", lattice(3000, 2, 0.5), lattice(900, 2, 0)).iterations = 1;
  add("every point twenty times", surface(1, 15, 3).repeat({1, 20, 1}), surface(1, 15, 3).repeat({1, 20, 1}));
  add("two pairs", surface(2, 100, 3), surface(2, 130, 3));
  Case& lengths = add("six pairs with lengths", surface(6, 90, 3), surface(6, 99, 3));
  lengths.pred_lengths = at::tensor({90, 0, 1, 77, 89, 50}, at::kLong);
  lengths.gt_lengths = at::tensor({99, 10, 8, 1, 64, 0}, at::kLong);
  for (int64_t b = 0; b < 6; ++b) {  // padding is never read: it would show
    lengths.pred[b].slice(0, lengths.pred_lengths.toTensor()[b].item<int64_t>()).fill_(NAN_);
    lengths.gt[b].slice(0, lengths.gt_lengths.toTensor()[b].item<int64_t>()).fill_(NAN_);
  }
  Case& without = add("nothing", surface(1, 0, 3), surface(1, 5, 3));
  without.gt_lengths = at::tensor({5}, at::kLong);
  add("no pairs", surface(0, 5, 3), surface(0, 5, 3));
  for (const double value : {NAN_, std::numeric_limits<double>::infinity(), 1e30, 1e-30}) {
    Case& strange = add("a coordinate " + std::to_string(value), surface(1, 40, 3), surface(1, 50, 3));
    strange.pred.index({0, 3, 1}).fill_(value);
    strange.gt.index({0, 30}).fill_(value);
    strange.finite = value < 1;
  }
  return cases;
}

int race() {
  int64_t sum = 0;
  at::parallel_for(0, 1000, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
  std::printf("%lld\n", static_cast<long long>(sum));
  return 0;
}

int overflow() {
  size_t bytes = 100;
  char* block = static_cast<char*>(apml::cpu::take(bytes));
  static_cast<volatile char*>(block)[100] = 1;
  apml::cpu::give(block, bytes);
  return 0;
}

}  // namespace

int main(int count, char** words) {
  if (count > 1 && std::strcmp(words[1], "race") == 0) return race();
  if (count > 1 && std::strcmp(words[1], "overflow") == 0) return overflow();
  at::manual_seed(0);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    std::printf("%s\n", type == at::kFloat ? "float32" : "float64");
    std::fflush(stdout);
    const std::vector<Case> cases = cases_of(type);
    std::vector<std::vector<Results>> results;
    for (const Case& c : cases) results.push_back(run(c));
    run_at_once(cases, results);
  }
  return failures == 0 ? 0 : 2;
}
