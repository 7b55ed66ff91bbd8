// A router on a device, random, and what it shall leave.
#pragma once

#include "device_rig.hpp"

#include <numeric>

namespace nib::test {

struct RouteRig {
  RouteRig(std::int64_t rows_, int experts_, int chosen_, std::int64_t k, Random& random,
           Format format = Format::bf16)
      : rows(rows_),
        experts(experts_),
        chosen(chosen_),
        stride(row_stride(experts)),
        weight(format, 1, experts, k, random),
        x(rows, k, random, 0),
        scratch(k),
        bias(experts) {
    for (int i = 0; i < experts; ++i) bias[i] = random.normal();
  }
  RouteArgs arguments() {
    const auto all = static_cast<std::size_t>(rows * chosen);
    logits.assign(static_cast<std::size_t>(rows * stride), -1);
    for (auto* each : {&weights, &list_weights}) each->assign(all, -1);
    for (auto* each : {&ids, &row, &entry_of_row}) each->assign(all, -1);
    first.assign(static_cast<std::size_t>(experts) + 1, -1);
    RouteArgs args{};
    args.rows = rows;
    args.weight = &weight.shape();
    args.bias = has_bias ? bias.data() : nullptr;
    args.experts = experts;
    args.experts_per_token = chosen;
    args.normed = reinterpret_cast<float*>(x.row(0));
    args.logits = logits.data();
    args.routing = {row.data(),          list_weights.data(), first.data(),
                    entry_of_row.data(), ids.data(),          weights.data()};
    args.weights_of_all = weights_of_all;
    args.width = x.width;
    return args;
  }
  Status run(const TestQueue& queue) {
    const Status status = queue.run(cuda::route, scratch.context(), arguments());
    CHECK(scratch.counters_are_zero());
    return status;
  }
  float logit(std::int64_t r, int e) const { return logits[static_cast<std::size_t>(r * stride + e)]; }

  std::int64_t rows;
  int experts, chosen;
  std::int64_t stride;
  DeviceMatrices weight;
  DeviceInputs x;
  DeviceScratch scratch;
  DeviceBuffer<float> bias;
  bool has_bias = true, weights_of_all = false;
  DeviceVector<float> logits, weights, list_weights;
  DeviceVector<std::int32_t> ids, row, entry_of_row, first;
};

inline void check_logits(const RouteRig& rig) {
  for (std::int64_t r = 0; r < rig.rows; ++r) {
    const std::vector<double> x = rig.x.exact(r);
    for (int e = 0; e < rig.experts; ++e) {
      const ReferenceDot dot = dot_row(rig.weight.encoded[0].view(), e, x.data());
      const double wanted = dot.value + (rig.has_bias ? rig.bias[e] : 0);
      const double bound = 1.001 * (sum_bound(dot, rig.weight.shape()) + std::fabs(wanted) * 0x1p-24);
      CHECK(std::fabs(rig.logit(r, e) - wanted) <= bound);
    }
  }
}

inline void check_choice(const RouteRig& rig) {
  for (std::int64_t r = 0; r < rig.rows; ++r) {
    std::vector<int> order(static_cast<std::size_t>(rig.experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return rig.logit(r, a) > rig.logit(r, b); });
    const double largest = rig.logit(r, order[0]);
    double total = 0;
    for (int j = 0; j < (rig.weights_of_all ? rig.experts : rig.chosen); ++j)
      total += std::exp(rig.logit(r, order[static_cast<std::size_t>(j)]) - largest);
    for (int j = 0; j < rig.chosen; ++j) {
      const auto at = static_cast<std::size_t>(r * rig.chosen + j);
      const int id = order[static_cast<std::size_t>(j)];
      CHECK(rig.ids[at] == id);
      // Of both exponentials: two units, and the rounding of the argument; sums and quotient; f32's least
      // normal. Terms of the total are off by as much as they are small.
      const double wanted = std::exp(rig.logit(r, id) - largest) / total, spread = largest - rig.logit(r, id);
      const double additions = rig.weights_of_all ? rig.experts / 32 + 6 : rig.chosen;
      CHECK(std::fabs(rig.weights[at] - wanted) <=
            wanted * (12 + additions + 2 * spread) * 0x1p-24 + 0x1p-126);
    }
  }
}

inline void check_lists(const RouteRig& rig) {
  int at = 0;
  std::vector<int> entries_of_row(static_cast<std::size_t>(rig.rows));
  for (int e = 0; e < rig.experts; ++e) {
    CHECK(rig.first[static_cast<std::size_t>(e)] == at);
    for (std::int64_t r = 0; r < rig.rows; ++r)
      for (int j = 0; j < rig.chosen; ++j) {
        const auto choice = static_cast<std::size_t>(r * rig.chosen + j);
        if (rig.ids[choice] != e) continue;
        REQUIRE(at < rig.rows * rig.chosen);
        CHECK(rig.row[static_cast<std::size_t>(at)] == r);
        CHECK(
            same_bits(&rig.list_weights[static_cast<std::size_t>(at)], &rig.weights[choice], 1));  // NaN too
        const int place = entries_of_row[static_cast<std::size_t>(r)]++;
        CHECK(rig.entry_of_row[static_cast<std::size_t>(r * rig.chosen + place)] == at);
        ++at;
      }
  }
  CHECK(rig.first.back() == at);
  CHECK(at == rig.rows * rig.chosen);
}

}  // namespace nib::test
