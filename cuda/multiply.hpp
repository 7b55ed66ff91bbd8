// Room cuda: the product of a matrix, held in any form that the device has, with rows of inputs.
#pragma once

#include "folded_norm.hpp"
#include "head_rows.hpp"
#include "queue.hpp"
#include <nibble/base/status.hpp>

#include <cstdint>

namespace nib::inline v0::cuda {

// out[r][o] = (sum over i of W[o][i] x[r][i]) * factor of r + bias[o], or that added to what is there. The
// factor is that of `norm`, if x is folded. Pointers are the
// device's; the weight's own fields are the host's.
//
// The bits of a sum depend on nothing but its row of W and its inputs: not on `rows`, not on the number of
// blocks. They do on whether there are tensor cores.
struct Multiply {
  const PackedWeight* weight;  // data: device_bytes(*weight), at a multiple of 128
  const std::uint16_t* x;      // bf16 [rows][x_stride], zeros from k on to bf16_stride(k)
  std::int64_t x_stride;       // a multiple of 64
  std::int64_t rows;
  const float* bias;  // [weight->rows], or null
  float* out;         // [rows][out_stride]
  std::int64_t out_stride;
  bool add = false;
  FoldedNorm norm{};
  bool may_be_fast = false;  // OpContext's
  // Where multiply_goes_on says so:
  FoldedRows next{};  // of what comes out
  HeadRows heads{};  // what the rows of W are; with kv_rows, where they go. `add` and `next` are not for them
  const RouteArgs* route = nullptr;  // where multiply_routes says so: the router of the rows that `next` gets
};

// Whether a product with so many rows can go on with what follows it: leave what a norm wants, place heads.
bool multiply_goes_on(const PackedWeight& weight, std::int64_t rows);

// Whether it can go on with that router, too. Changes no bits: they are route()'s.
bool multiply_routes(const PackedWeight& weight, const RouteArgs& args);

// Errors: unsupported (a form that the device does not have), those of route(), and those of a launch.
Status multiply(const Queue& queue, const OpContext& context, const Multiply& call);

// The products of experts, and of the one expert of a dense layer: ops.hpp. `args.normed` is bf16,
// bf16_stride(H) apart; scratch between the two products is context.expert_inputs. Of one expert, lists are
// not read: its entries are the rows. What `args.next` wants is left, by a kernel of its own where need be.
Status experts(const Queue& queue, const OpContext& context, const ExpertsArgs& args);

// Without the norm, which has been written to args.normed (bf16, bf16_stride(H) apart). Without a router
// nothing is written: experts() needs no lists. Errors: argument, and those of multiply().
Status route(const Queue& queue, const OpContext& context, const RouteArgs& args);
Status check_route(const RouteArgs& args);
// The product that a router is.
Multiply logits_of(const RouteArgs& args);

}  // namespace nib::inline v0::cuda
