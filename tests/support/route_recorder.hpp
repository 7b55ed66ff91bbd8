// Which experts a model chose: a backend that is another in everything, but writes down what its router
// decided.
#pragma once

#include <nibble/kernels/backend.hpp>

#include <algorithm>
#include <vector>

namespace nib::test {

// One at a time. Choices of every call of the router, in order: layer after layer of each forward pass.
class RouteRecorder {
 public:
  explicit RouteRecorder(const Backend& backend) : backend_(backend) {
    route_ = backend.ops.route;
    choices_.clear();
    backend_.ops.route = record;
  }
  const Backend& backend() const { return backend_; }

  // The experts of each row and call, sorted; [calls][rows * per token].
  static const std::vector<std::vector<std::int32_t>>& choices() { return choices_; }

  // The first of `rows` rows for which two recordings of one forward pass differ; `rows` when none does.
  static std::size_t first_difference(const std::vector<std::vector<std::int32_t>>& a,
                                      const std::vector<std::vector<std::int32_t>>& b, std::size_t rows) {
    std::size_t first = rows;
    for (std::size_t call = 0; call < std::min(a.size(), b.size()); ++call) {
      const std::size_t each = a[call].size() / rows;
      for (std::size_t i = 0; i < a[call].size(); ++i)
        if (a[call][i] != b[call][i]) first = std::min(first, i / each);
    }
    return first;
  }

 private:
  static void record(const OpContext& context, const RouteArgs& args) {
    route_(context, args);
    if (!args.weight) return;
    const auto each = static_cast<std::size_t>(args.experts_per_token),
               rows = static_cast<std::size_t>(args.rows);
    std::vector<std::int32_t> chosen(args.routing.chosen, args.routing.chosen + rows * each);
    for (std::size_t r = 0; r < rows; ++r)
      std::sort(chosen.begin() + static_cast<std::ptrdiff_t>(r * each),
                chosen.begin() + static_cast<std::ptrdiff_t>((r + 1) * each));
    choices_.push_back(std::move(chosen));
  }

  Backend backend_;
  static inline void (*route_)(const OpContext&, const RouteArgs&) = nullptr;
  static inline std::vector<std::vector<std::int32_t>> choices_;
};

}  // namespace nib::test
