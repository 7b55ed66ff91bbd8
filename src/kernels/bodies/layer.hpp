// The ops of a layer on the CPU: how the rows of a batch are packed, dealt to threads and finished.
//
// Each op is one or more phases; inside a phase threads own different outputs, between phases they meet.
// Matrix products go by groups of four strips: the kernel fills a tile [rows][64], the epilogue (bias,
// activation, residual) is applied while the tile is in cache.
#pragma once

#include "activations.hpp"
#include "attention.hpp"
#include "attention_shares.hpp"
#include "exact.hpp"
#include "math.hpp"
#include <nibble/kernels/backend.hpp>
#include <nibble/kernels/ops.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace nib::inline v0::cpu {

inline constexpr std::int64_t kTileWidth = kGroupStrips * kStripRows;

// Row-wise phases (norms, packing, rotation) of so few rows take less time than waking another thread.
inline constexpr std::int64_t kFewRows = 4;

// ---- packing of activations

// All rows of a matrix [rows][stride], the rows dealt to the threads.
template <class A>
void pack_rows(const OpContext& context, const PackedWeight& weight, const float* x, std::int64_t rows) {
  context.pool->run_if(rows > kFewRows, [&](int index, int count) {
    const Range mine = split(rows, index, count);
    for (std::int64_t r = mine.begin; r < mine.end; ++r)
      pack_row<A>(context, weight, x + r * row_stride(weight.k), context.activations, r, rows);
  });
}

// The norm of each row into `normed`, and packed for `weight`.
template <class A>
void norm_and_pack(const OpContext& context, const Norm& norm, const PackedWeight& weight, const float* x,
                   const std::int32_t* picked, std::int64_t rows, float* normed) {
  const std::int64_t stride = row_stride(weight.k);
  context.pool->run_if(rows > kFewRows, [&](int index, int count) {
    const Range mine = split(rows, index, count);
    for (std::int64_t r = mine.begin; r < mine.end; ++r) {
      norm_row<A>(x + (picked ? picked[r] : r) * stride, norm, weight.k, normed + r * stride);
      pack_row<A>(context, weight, normed + r * stride, context.activations, r, rows);
    }
  });
}

// ---- products

// For the strips [begin, end) of `weight`, group by group: multiplies, then calls epilogue(tile, first
// column, columns).
template <class Epilogue>
void multiply_strips(const PackedWeight& weight, const std::byte* x, std::int64_t rows, Range strips,
                     float* tile, Epilogue&& epilogue) {
  for (std::int64_t strip = strips.begin; strip < strips.end;) {
    const std::int64_t group_end = (strip / kGroupStrips + 1) * kGroupStrips;
    const std::int64_t end = std::min(strips.end, group_end);
    weight.kernel->run({&weight, strip, end, x, static_cast<int>(rows), tile, kTileWidth});
    epilogue(tile, strip * kStripRows, (end - strip) * kStripRows);
    strip = end;
  }
}

// out[r][n] = tile + bias, or out[r][n] += that; bias may be null.
template <class A, bool kAdd>
struct Store {
  const float* bias;
  float* out;
  std::int64_t stride, rows;
  void operator()(const float* tile, std::int64_t column, std::int64_t columns) const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; c += 16) {
        auto y = A::load(tile + r * kTileWidth + c);
        if (bias) y = A::add(y, A::load(bias + column + c));
        float* to = out + r * stride + column + c;
        if constexpr (kAdd) y = A::add(A::load(to), y);
        A::store(to, y);
      }
  }
};

// The same for a matrix whose strips are those of two, taken in turn.
template <class Epilogue>
void multiply_in_turn(const PackedWeight* const (&weights)[2], const std::byte* x, std::int64_t rows,
                      Range strips, float* tile, Epilogue&& epilogue) {
  for (std::int64_t strip = strips.begin; strip < strips.end;) {
    const std::int64_t first = strip, end = std::min(strips.end, (strip / kGroupStrips + 1) * kGroupStrips);
    for (; strip < end; ++strip) {
      const PackedWeight& weight = *weights[strip % 2];
      weight.kernel->run({&weight, strip / 2, strip / 2 + 1, x, static_cast<int>(rows),
                          tile + (strip - first) * kStripRows, kTileWidth});
    }
    epilogue(tile, first * kStripRows, (end - first) * kStripRows);
  }
}

template <class A, class Epilogue>
void multiply(const OpContext& context, const PackedWeight& weight, std::int64_t rows,
              const Epilogue& epilogue) {
  context.pool->run([&](int index, int count) {
    multiply_strips(weight, context.activations, rows, strips_of_thread(weight.strips(), index, count),
                    context.tiles + index * context.tile_floats, epilogue);
  });
}

// ---- ops

// A head of a query or a key, finished: normed where there are weights, its first `rotary` dimensions turned.
template <class A>
void finish_head(float* head, const QkvArgs& args, const float* norm, std::int64_t row) {
  const int dim = args.kv.head_dim, rotary = args.rotary ? args.rotary : dim;
  if (norm) {
    alignas(64) float padded[256] = {};  // what lies behind the head is another head
    std::copy_n(head, dim, padded);
    rms_norm<A>(padded, norm, dim, args.norm.epsilon, padded);
    std::copy_n(padded, dim, head);
  }
  rotate<A>(head, rotary, args.cos + row * (rotary / 2), args.sin + row * (rotary / 2));
}

template <class A>
void qkv(const OpContext& context, const QkvArgs& args) {
  std::int64_t width = 0;
  for (int part = 0; part < args.parts; ++part) width += args.weight[part].rows;
  const std::int64_t stride = row_stride(width);
  norm_and_pack<A>(context, args.norm, *args.weight, args.x, nullptr, args.rows, args.normed);
  std::int64_t first = 0;
  for (int part = 0; part < args.parts; ++part) {
    const PackedWeight& weight = args.weight[part];
    multiply<A>(
        context, weight, args.rows,
        Store<A, false>{args.bias ? args.bias + first : nullptr, args.qkv + first, stride, args.rows});
    first += weight.rows;
  }
  const int dim = args.kv.head_dim, kv_heads = args.kv.kv_heads, per_kv = args.heads / kv_heads;
  context.pool->run_if(args.rows > kFewRows, [&](int index, int count) {
    const Range mine = split(args.rows * kv_heads, index, count);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
      const std::int64_t r = i / kv_heads;
      const auto h = static_cast<int>(i % kv_heads);
      float* row = args.qkv + r * stride;
      for (int q = h * per_kv; q < (h + 1) * per_kv; ++q) finish_head<A>(row + q * dim, args, args.q_norm, r);
      float* key = row + (args.heads + h) * dim;
      finish_head<A>(key, args, args.k_norm, r);
      const KvRow& kv = args.kv_rows[r];
      std::byte* page = kv.pages[kv.position / kPagePositions - kv.first_page] + args.layer_offset;
      append_key_value<A>(args.kv, page + static_cast<std::size_t>(h) * 2 * args.kv.block_bytes(),
                          kv.position % kPagePositions, key, key + kv_heads * dim);
    }
  });
}

template <class A>
void project(const OpContext& context, const ProjectArgs& args) {
  pack_rows<A>(context, *args.weight, args.in, args.rows);
  multiply<A>(context, *args.weight, args.rows,
              Store<A, true>{args.bias, args.x, row_stride(args.weight->rows), args.rows});
}

template <class A>
void head(const OpContext& context, const HeadArgs& args) {
  norm_and_pack<A>(context, args.norm, *args.weight, args.x, args.picked, args.count, args.normed);
  multiply<A>(context, *args.weight, args.count,
              Store<A, false>{nullptr, args.logits, row_stride(args.weight->rows), args.count});
}

// The `k` largest logits of a row, largest first, lowest id on ties; not-a-number counts as the smallest.
// Their weights are shares of the softmax over these, or over all.
template <class A>
void pick_experts(const float* logits, int experts, int k, bool weights_of_all, std::int32_t* ids,
                  float* weights) {
  for (int slot = 0; slot < k; ++slot) {
    int best = -1;
    for (int e = 0; e < experts; ++e) {
      bool taken = false;
      for (int before = 0; before < slot; ++before) taken |= ids[before] == e;
      const bool better =
          best < 0 || logits[e] > logits[best] || (std::isnan(logits[best]) && !std::isnan(logits[e]));
      if (!taken && better) best = e;
    }
    ids[slot] = best;
  }
  float total = 0;
  for (int slot = 0; slot < k; ++slot) {
    weights[slot] = exp1<A>(logits[ids[slot]] - logits[ids[0]]);
    total += weights[slot];
  }
  if (weights_of_all) {
    total = 0;
    for (int e = 0; e < experts; ++e) total += exp1<A>(logits[e] - logits[ids[0]]);
  }
  for (int slot = 0; slot < k; ++slot) weights[slot] /= total;
}

// Every row to the one expert there is.
template <class A>
void route_dense(const OpContext& context, const RouteArgs& args) {
  const std::int64_t stride = row_stride(args.width);
  context.pool->run_if(args.rows > kFewRows, [&](int index, int count) {
    const Range mine = split(args.rows, index, count);
    for (std::int64_t r = mine.begin; r < mine.end; ++r)
      norm_row<A>(args.x + r * stride, args.norm, args.width, args.normed + r * stride);
  });
  const Routing& routing = args.routing;
  routing.first[0] = 0;
  routing.first[1] = static_cast<std::int32_t>(args.rows);
  for (std::int64_t r = 0; r < args.rows; ++r) {
    routing.row[r] = routing.entry_of_row[r] = static_cast<std::int32_t>(r);
    routing.weight[r] = 1.0f;
  }
}

// By insertion: a handful of numbers. (std::sort's parts would be code that all instruction sets share.)
template <class A>
void sort_few(std::int32_t* numbers, int count) {
  for (int i = 1; i < count; ++i) {
    const std::int32_t number = numbers[i];
    int at = i;
    for (; at > 0 && numbers[at - 1] > number; --at) numbers[at] = numbers[at - 1];
    numbers[at] = number;
  }
}

template <class A>
void route(const OpContext& context, const RouteArgs& args) {
  if (!args.weight) return route_dense<A>(context, args);
  const std::int64_t stride = row_stride(args.weight->rows);
  const int k = args.experts_per_token;
  const Routing& routing = args.routing;
  norm_and_pack<A>(context, args.norm, *args.weight, args.x, nullptr, args.rows, args.normed);
  multiply<A>(context, *args.weight, args.rows, Store<A, false>{args.bias, args.logits, stride, args.rows});

  context.pool->run_if(args.rows > kFewRows, [&](int index, int count) {
    const Range mine = split(args.rows, index, count);
    for (std::int64_t r = mine.begin; r < mine.end; ++r)
      pick_experts<A>(args.logits + r * stride, args.experts, k, args.weights_of_all, routing.chosen + r * k,
                      routing.chosen_weight + r * k);
  });
  // Counting sort by expert; inside an expert rows stay in order.
  std::fill(routing.first, routing.first + args.experts + 1, 0);
  for (std::int64_t i = 0; i < args.rows * k; ++i) ++routing.first[routing.chosen[i] + 1];
  for (int e = 0; e < args.experts; ++e) routing.first[e + 1] += routing.first[e];
  for (std::int64_t i = 0; i < args.rows * k; ++i) {
    const std::int32_t entry = routing.first[routing.chosen[i]]++;
    routing.row[entry] = static_cast<std::int32_t>(i / k);
    routing.weight[entry] = routing.chosen_weight[i];
    routing.entry_of_row[i] = entry;
  }
  for (std::int64_t r = 0; r < args.rows; ++r)  // entries grow with the expert id
    sort_few<A>(routing.entry_of_row + r * k, k);
  for (int e = args.experts; e > 0; --e) routing.first[e] = routing.first[e - 1];
  routing.first[0] = 0;
}

// Calls body(expert, strips) for what thread `index` of `count` does of all experts that have rows.
template <class A, class Body>
void for_experts(const Routing& routing, int experts, std::int64_t strips, std::int64_t grain, int index,
                 int count, Body&& body) {
  std::int64_t turn = 0;
  for (int e = 0; e < experts; ++e) {
    if (routing.first[e] == routing.first[e + 1]) continue;
    const Range mine = strips_of_thread(strips, index, count, grain, turn++);
    if (mine.begin < mine.end) body(e, mine);
  }
}

// The activation of sixteen units with a gate. min and max give their second operand when one is not a
// number: it stays visible.
template <class A>
typename A::F gated(Activation activation, typename A::F g, typename A::F u, GateLimits limits) {
  if (activation == Activation::swiglu) return A::mul(A::mul(g, sigmoid<A>(g)), u);
  const auto limit = A::set(limits.limit), one = A::set(1.0f);
  g = A::min(limit, g);
  u = A::max(A::sub(A::set(0.0f), limit), A::min(limit, u));
  return A::mul(A::mul(g, sigmoid<A>(A::mul(g, A::set(limits.alpha)))), A::add(u, one));
}

// And of sixteen without. (1 + tanh y) / 2 is the sigmoid of 2 y.
template <class A>
typename A::F ungated(Activation activation, typename A::F u) {
  if (activation == Activation::gelu) return A::mul(u, normal_share<A>(u));
  const auto cubic = A::fma(A::mul(A::mul(u, u), A::set(0.044715f)), u, u);
  return A::mul(u, sigmoid<A>(A::mul(cubic, A::set(0x1.988454p0f))));  // 2 sqrt(2 / pi)
}

// Sixteen columns of a tile with their bias, which may be null.
template <class A>
typename A::F biased(const float* tile, const float* bias, std::int64_t column) {
  const auto y = A::load(tile);
  return bias ? A::add(y, A::load(bias + column)) : y;
}

template <class A>
void experts(const OpContext& context, const ExpertsArgs& args) {
  const Routing& routing = args.routing;
  const PackedWeight& up_shape = args.gate_up[0];
  const PackedWeight& down_shape = args.down[0];
  const std::int64_t entries = args.rows * args.experts_per_token;
  const std::int64_t in_stride = row_stride(up_shape.k), out_stride = row_stride(down_shape.rows);
  const auto entry_rows = [&](int e) { return std::int64_t{routing.first[e + 1] - routing.first[e]}; };
  // Packed rows of expert e begin where the rows of the experts before it end: blocks never mix experts.
  const auto packed_rows = [&](std::byte* all, const PackedWeight& weight, int e) {
    const std::size_t row_bytes = activation_bytes(weight.kernel->x, weight.k_padded());
    return all + static_cast<std::size_t>(routing.first[e]) * row_bytes;
  };

  context.pool->run_if(args.rows > kFewRows, [&](int index, int count) {  // gather
    const Range mine = split(entries, index, count);
    for (int e = 0; e < args.experts; ++e) {
      const std::int64_t first = routing.first[e], last = routing.first[e + 1];
      for (std::int64_t i = std::max(first, mine.begin); i < std::min(last, mine.end); ++i)
        pack_row<A>(context, args.gate_up[e], args.normed + routing.row[i] * in_stride,
                    packed_rows(context.activations, args.gate_up[e], e), i - first, last - first);
    }
  });

  const int per_unit = is_gated(args.activation) ? 2 : 1;  // strips that make one strip of units
  const std::int64_t up_strips = up_shape.strips() * (args.up ? 2 : 1);
  // Inputs in groups are packed by 32: two strips of units.
  const bool by_groups = group_dwords(down_shape.kernel->x) > 0;
  const std::int64_t up_grain = per_unit * (by_groups ? 2 : 1);
  context.pool->run([&](int index, int count) {  // gate, up, activation
    for_experts<A>(routing, args.experts, up_strips, up_grain, index, count, [&](int e, Range strips) {
      const std::int64_t rows = entry_rows(e);
      const PackedWeight& next = args.down[e];
      std::byte* out = packed_rows(context.expert_inputs, next, e);
      const float* bias = args.gate_up_bias ? args.gate_up_bias + e * up_strips * kStripRows : nullptr;
      const auto finish = [&](const float* tile, std::int64_t column, std::int64_t columns) {
        const std::int64_t step = 16 * per_unit;
        const auto units = [&](const float* at, std::int64_t c) {
          const auto y = biased<A>(at, bias, column + c);
          if (per_unit == 1) return ungated<A>(args.activation, y);
          return gated<A>(args.activation, y, biased<A>(at + 16, bias, column + c + 16), args.gate);
        };
        for (std::int64_t r = 0; r < rows; ++r) {
          const PackedRow to = packed_row<A>(next, out, r, rows);
          const float* at = tile + r * kTileWidth;
          for (std::int64_t c = 0; c < columns; c += 2 * step) {
            const bool both = c + step < columns;
            const auto first = units(at + c, c);
            const typename A::F inputs[2] = {first, both ? units(at + c + step, c + step) : first};
            pack_inputs<A>(to, context.numerics, inputs, both, (column + c) / per_unit);
          }
        }
      };
      const std::byte* x = packed_rows(context.activations, args.gate_up[e], e);
      float* tile = context.tiles + index * context.tile_floats;
      if (args.up)
        multiply_in_turn({&args.gate_up[e], &args.up[e]}, x, rows, strips, tile, finish);
      else
        multiply_strips(args.gate_up[e], x, rows, strips, tile, finish);
    });
  });

  context.pool->run([&](int index, int count) {  // down, bias, weighting
    for_experts<A>(routing, args.experts, down_shape.strips(), 1, index, count, [&](int e, Range strips) {
      const std::int64_t rows = entry_rows(e);
      const float* bias = args.down_bias ? args.down_bias + e * out_stride : nullptr;
      multiply_strips(args.down[e], packed_rows(context.expert_inputs, args.down[e], e), rows, strips,
                      context.tiles + index * context.tile_floats,
                      [&](const float* tile, std::int64_t column, std::int64_t columns) {
                        for (std::int64_t r = 0; r < rows; ++r) {
                          const std::int64_t entry = routing.first[e] + r;
                          const auto weight = A::set(routing.weight[entry]);
                          for (std::int64_t c = 0; c < columns; c += 16) {
                            const auto y = biased<A>(tile + r * kTileWidth + c, bias, column + c);
                            A::store(args.outputs + entry * out_stride + column + c, A::mul(y, weight));
                          }
                        }
                      });
    });
  });

  context.pool->run_if(args.rows > kFewRows, [&](int index, int count) {  // combine, in increasing expert id
    const Range mine = split(args.rows, index, count);
    for (std::int64_t r = mine.begin; r < mine.end; ++r) {
      const std::int32_t* list = routing.entry_of_row + r * args.experts_per_token;
      float* x = args.x + r * out_stride;
      for (std::int64_t c = 0; c < out_stride; c += 16) {
        auto sum = A::load(args.outputs + list[0] * out_stride + c);
        for (int slot = 1; slot < args.experts_per_token; ++slot)
          sum = A::add(sum, A::load(args.outputs + list[slot] * out_stride + c));
        A::store(x + c, A::add(A::load(x + c), sum));
      }
    }
  });
}

template <class A>
constexpr Ops ops() {
  using E = ExactOf<A>;  // beside the products nothing takes time
  return {qkv<E>, attention<A>, project<E>, route<E>, experts<E>, head<E>};
}

}  // namespace nib::inline v0::cpu
