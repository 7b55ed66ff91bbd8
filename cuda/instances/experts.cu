#include "../bodies/experts.cuh"
#include "../bodies/forms.cuh"
#include "../bodies/slot_copies.cuh"
#include "../expert_slots.hpp"
#include "../fast.cuh"
#include "../multiply.hpp"
#include "../rows.hpp"
#include "../tiles.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

namespace nib::inline v0::cuda {
namespace {

template <class Math>
struct StripedExperts {
  StripeShared<Math> stripes;
  ActiveExperts active;
};
template <class Math>
struct GroupedExperts {
  GroupedShared<Math> grouped;
  ActiveExperts active;
};

template <class Math, template <class> class Problem>
using ProblemOf = Problem<typename Math::Weights::Tiles>;

template <class Math, template <class> class Problem>
NIB_KERNEL void NIB_FITS(kStripeThreads, Math::kBlocksThatFit)
    experts_kernel(typename ProblemOf<Math, Problem>::Call call, CutItems cut) {
  using Of = ProblemOf<Math, Problem>;
  if (Of::kChosenJustNow && call.lists.first) wait_for_kernel_before();
  if constexpr (Math::kHasCode) {
    auto& shared = shared_memory<StripedExperts<Math>>();
    find_active(shared.active, call.lists);
    const Of problem(call, shared.active, shared.stripes.row_factors);
    multiply_stripes<Math>(problem, cut, shared.stripes);
  } else {
    fail_without_code();
  }
}

// The first `copying` blocks copy, for another round than the one that the others multiply. Neither waits for
// the other: what is copied is read by a kernel that comes later.
template <class Math, template <class> class Problem>
NIB_KERNEL void NIB_FITS(kStripeThreads, 1)
    experts_grouped_kernel(typename ProblemOf<Math, Problem>::Call call, SlotCopies copies, int copying) {
  static_assert(kCopyThreads == kStripeThreads);
  wait_for_kernel_before();
  if (block_index() < copying) return copy_to_slots(copies, block_index(), copying);
  if constexpr (Math::kHasCode) {
    auto& shared = shared_memory<GroupedExperts<Math>>();
    find_active(shared.active, call.lists);
    multiply_grouped<Math>(ProblemOf<Math, Problem>(call, shared.active, nullptr), shared.grouped,
                           block_index() - copying, block_count() - copying);
  } else {
    fail_without_code();
  }
}

NIB_KERNEL void NIB_FITS(kStripeThreads, 1) combine_kernel(Combine call, std::int64_t width) {
  wait_for_kernel_before();
  for (std::int64_t i = std::int64_t{block_index()} * kStripeThreads + thread_index(); i < call.rows * width;
       i += std::int64_t{block_count()} * kStripeThreads) {
    float number[1];
    call.add<1>(number, {true}, {static_cast<int>(i / width)}, {i % width});
  }
}

// One call of the op.
struct Experts {
  const Queue& queue;
  const OpContext& context;
  const ExpertsArgs& args;
  Hidden hidden;
  SlotRounds slot_rounds;
  int round = 0;  // of rounds()
  // Whether a product of this round copies what the next one needs of the same matrix.
  bool gate_up_comes = false, down_comes = false;

  // may_copy_beside: some product is of a grouped kernel.
  Experts(const Queue& to, const OpContext& with, const ExpertsArgs& of, bool may_copy_beside)
      : queue(to),
        context(with),
        args(of),
        hidden{reinterpret_cast<std::uint16_t*>(with.expert_inputs), bf16_stride(of.width),
               static_cast<int>(of.width), of.activation, of.gate},
        slot_rounds(SlotRounds::whole(of.slots.count)) {
    if (may_copy_beside && rounds() > 1 && of.slots.count > 1 && to.processors > 1)
      slot_rounds = SlotRounds::halves(of.slots.count);
  }

  bool has_slots() const { return args.slots.count > 0; }
  SlotTable table() const {
    return has_slots() ? SlotTable(args.slots.table, args.experts, args.slots.count) : SlotTable();
  }
  int rounds() const {
    const std::int64_t most = std::min<std::int64_t>(entries(), args.experts);
    return has_slots() ? slot_rounds.count(static_cast<int>(most), args.slots.count) : 1;
  }
  // Blocks of a grouped kernel that copy for the next round: enough for the bus, and few beside the others.
  int copying() const {
    const bool copies = slot_rounds.first > 1 && round + 1 < rounds();
    return copies ? std::clamp(queue.processors / 8, 1, 8) : 0;
  }
  SlotCopies copies(const PackedWeight* of, int for_round) const {
    return {table(),
            slot_rounds,
            for_round,
            {of->data, of == args.down ? args.slots.down : args.slots.gate_up, distance(of)}};
  }
  // Begins a round: copies what the one before it has not.
  Status fetch() {
    const bool has_gate_up = std::exchange(gate_up_comes, false), has_down = std::exchange(down_comes, false);
    if (!has_slots() || (has_gate_up && has_down)) return {};
    SlotCopies of_gate_up = copies(args.gate_up, round), of_down = copies(args.down, round);
    if (has_gate_up) of_gate_up.matrix.bytes = 0;
    if (has_down) of_down.matrix.bytes = 0;
    return fetch_experts(queue, of_gate_up, of_down);
  }

  // Of one expert there is nothing to look up: a device's router leaves no lists.
  bool is_dense() const { return args.experts == 1; }
  ExpertLists lists() const {
    if (is_dense())
      return {.experts = 1, .first = nullptr, .row = nullptr, .rows = static_cast<int>(args.rows)};
    return {.experts = args.experts,
            .first = args.routing.first,
            .row = args.routing.row,
            .place = table().place,
            .round = round};
  }
  const float* entry_weight() const { return is_dense() ? nullptr : args.routing.weight; }
  FoldedNorm norm() const { return FoldedNorm::of(args.norm, args.squares, args.gate_up->k); }
  std::int64_t entries() const { return args.rows * args.experts_per_token; }
  std::int64_t entries_of_expert() const { return ceil_div(entries(), std::int64_t{args.experts}); }
  std::int64_t width() const { return args.down->rows; }
  // Whether the product itself leaves what the norm that follows wants.
  bool folds() const {
    return multiply_goes_on(*args.down, args.rows) && args.next.norm.kind == NormKind::rms;
  }
  const std::uint16_t* x() const { return reinterpret_cast<const std::uint16_t*>(args.normed); }
  std::int64_t x_stride() const { return bf16_stride(args.gate_up->k); }
  std::int64_t distance(const PackedWeight* of) const {
    return args.experts > 1 ? of[1].data - of[0].data : 0;
  }
  // The first of those that kernels multiply with.
  const std::byte* first(const PackedWeight* of) const {
    return !has_slots() ? of->data : of == args.down ? args.slots.down : args.slots.gate_up;
  }
  std::int64_t gate_up_bias_stride() const { return args.gate_up->strips() * kStripRows; }
  Combine combine() const {
    return {is_dense() ? nullptr : args.routing.entry_of_row,
            static_cast<int>(args.rows),
            args.experts_per_token,
            args.outputs,
            args.x,
            row_stride(width())};
  }
  Status launch_combine() const {
    return launch(combine_kernel, {queue.processors, kStripeThreads, 0}, queue.stream, combine(), width());
  }

  template <class Tiles>
  ExpertMatrices<Tiles> matrices(const PackedWeight* of, const float* bias, std::int64_t bias_stride) const {
    return {{of->rows, of->k}, first(of), distance(of), bias, bias_stride};
  }
  TilesProduct tiles(const PackedWeight* of, const float* bias, std::int64_t bias_stride) const {
    PackedWeight weight = *of;
    weight.data = first(of);
    return {.weight = weight,
            .distance = distance(of),
            .lists = lists(),
            .rows = args.rows,
            .x = x(),
            .x_stride = x_stride(),
            .bias = bias,
            .bias_stride = bias_stride,
            .entry_weight = nullptr,
            .out = nullptr,
            .out_stride = 0,
            .add = false,
            .hidden = {},
            .norm = {}};
  }
};

// For up to eight rows an expert has so few, too; and no kernel is left to add up their outputs. What counts
// experts for that is not zero between rounds, so that all kernels have their own counters behind it.
template <class Math, template <class> class Problem>
Status launch_striped(const Experts& op, const typename ProblemOf<Math, Problem>::Call& call) {
  static_assert(sizeof(StripedExperts<Math>) <= Math::kMostShared);
  const int blocks = blocks_of(op.queue, Math::kBlocksThatFit, sizeof(StripedExperts<Math>));
  NIB_ASSIGN(const CutItems cut, cut_items(Scratch(op.context), blocks, call.matrices.shape.slices(),
                                           ceil_div(op.width(), std::int64_t{kTileRows})));
  return launch(experts_kernel<Math, Problem>, {blocks, kStripeThreads, sizeof(StripedExperts<Math>)},
                op.queue.stream, call, cut);
}

// matrix: of which `call` has the product; comes: whether the next round's is copied meanwhile.
template <class Math, template <class> class Problem>
Status launch_grouped(const Experts& op, const typename ProblemOf<Math, Problem>::Call& call,
                      const PackedWeight* matrix, bool& comes) {
  static_assert(sizeof(GroupedExperts<Math>) <= Math::kMostShared);
  const int copying = op.copying();
  comes = copying > 0;
  return launch(experts_grouped_kernel<Math, Problem>,
                {op.queue.processors, kStripeThreads, sizeof(GroupedExperts<Math>)}, op.queue.stream, call,
                op.copies(matrix, op.round + 1), copying);
}

template <class Math>
Status launch_gate_up(Experts& op) {
  using Tiles = typename Math::Weights::Tiles;
  const GateUpCall<Tiles> call{
      op.lists(),
      op.matrices<Tiles>(op.args.gate_up, op.args.gate_up_bias, op.gate_up_bias_stride()),
      op.x(),
      op.x_stride(),
      static_cast<int>(op.args.rows),
      op.norm(),
      op.hidden};
  if constexpr (Math::kHasFastKernel)
    if (is_fast(op.queue, op.context.may_be_fast, *op.args.gate_up, op.args.rows))
      return launch_fast(op.queue, call, op.entries_of_expert());
  return op.args.rows > kColumns ? launch_grouped<Math, GateUp>(op, call, op.args.gate_up, op.gate_up_comes)
                                 : launch_striped<Math, GateUp>(op, call);
}

template <class Math>
Status launch_down(Experts& op) {
  using Tiles = typename Math::Weights::Tiles;
  const DownCall<Tiles> call{op.lists(),
                             op.matrices<Tiles>(op.args.down, op.args.down_bias, row_stride(op.width())),
                             op.entry_weight(),
                             op.hidden.at,
                             op.hidden.stride,
                             op.args.outputs,
                             op.combine(),
                             Scratch(op.context).counters,
                             op.folds() ? FoldedRows::of(op.args.next, op.width()) : FoldedRows{}};
  if constexpr (Math::kHasFastKernel)
    if (is_fast(op.queue, op.context.may_be_fast, *op.args.down, op.args.rows))
      return launch_fast(op.queue, call, op.entries_of_expert());
  return op.args.rows > kColumns ? launch_grouped<Math, DownOutputs>(op, call, op.args.down, op.down_comes)
                                 : launch_striped<Math, DownAndAdd>(op, call);
}

Status launch_gate_up_of_tiles(const Experts& op) {
  TilesProduct call = op.tiles(op.args.gate_up, op.args.gate_up_bias, op.gate_up_bias_stride());
  call.hidden = op.hidden;
  call.norm = op.norm();
  return multiply_tiles(op.queue, call);
}

Status launch_down_of_tiles(const Experts& op) {
  TilesProduct call = op.tiles(op.args.down, op.args.down_bias, row_stride(op.width()));
  call.lists.row = nullptr;  // an entry has inputs of its own
  call.x = op.hidden.at;
  call.x_stride = op.hidden.stride;
  call.entry_weight = op.entry_weight();
  call.out = op.args.outputs;
  call.out_stride = row_stride(op.width());
  return multiply_tiles(op.queue, call);
}

// One matrix of each expert: of one shape, and as far from one another as the first two are.
Status check_matrices(const char* name, const PackedWeight* of, int experts, std::int64_t rows,
                      std::int64_t k) {
  if (of->rows != rows || of->k != k)
    return Status(Code::argument,
                  concat(name, ": expected ", rows, " x ", k, ", found ", of->rows, " x ", of->k));
  for (int e = 1; e < experts; ++e) {
    if (of[e].rows != rows || of[e].k != k || of[e].format != of->format || of[e].scale_run != of->scale_run)
      return Status(Code::argument,
                    concat(name, " of expert ", e, ": expected the shape and the format of the first"));
    if (of[e].data - of[e - 1].data != of[1].data - of[0].data)
      return Status(Code::argument, concat(name, " of expert ", e, ": expected matrices at equal distances"));
  }
  return {};
}

Status check(const ExpertsArgs& args) {
  if (args.up)
    return Status(Code::unsupported,
                  "gate and up of experts are two matrices: the device has no kernel for that");
  if (args.experts < 1 || args.experts > kMostExperts)
    return Status(Code::argument, concat("experts: expected 1 to ", kMostExperts, ", found ", args.experts));
  if (args.experts_per_token < 1 || args.experts_per_token > args.experts)
    return Status(Code::argument, concat("experts of a row: expected 1 to ", args.experts, ", found ",
                                         args.experts_per_token));
  if (args.rows < 0 || args.rows > kMostEntries)
    return Status(Code::argument, concat("rows: expected at most ", kMostEntries, ", found ", args.rows));
  if (args.slots.count < 0 || args.slots.count > args.experts)
    return Status(Code::argument,
                  concat("slots of experts: expected at most ", args.experts, ", found ", args.slots.count));
  if (args.width < 1 || args.width > std::numeric_limits<std::int32_t>::max() / 2)
    return Status(Code::argument, concat("units of an expert: found ", args.width));
  const std::int64_t rows = is_gated(args.activation) ? 2 * row_stride(args.width) : args.width;
  NIB_TRY(check_matrices("gate_up", args.gate_up, args.experts, rows, args.gate_up->k));
  return check_matrices("down", args.down, args.experts, args.gate_up->k, args.width);
}

Status no_kernel(const PackedWeight& weight) {
  return Status(Code::unsupported,
                concat("the device has no kernel for experts in ", format_name(weight.format)));
}

}  // namespace

Status experts(const Queue& queue, const OpContext& context, const ExpertsArgs& args) {
  NIB_TRY(check(args));
  if (args.rows == 0) return {};
  const DeviceForm up_form = device_form(*args.gate_up), down_form = device_form(*args.down);
  if (up_form == DeviceForm::none) return no_kernel(*args.gate_up);
  if (down_form == DeviceForm::none) return no_kernel(*args.down);
  const auto is_grouped = [&](const PackedWeight& of, DeviceForm form) {
    return args.rows > kColumns && form != DeviceForm::tiles &&
           !is_fast(queue, context.may_be_fast, of, args.rows);
  };
  Experts op(queue, context, args, is_grouped(*args.gate_up, up_form) || is_grouped(*args.down, down_form));
  if (op.has_slots()) NIB_TRY(place_experts(queue, op.table(), op.slot_rounds, args.routing.first));
  const int rounds = op.rounds();
  for (int i = 0; i < rounds; ++i) {
    op.round = i;
    NIB_TRY(op.fetch());
    NIB_TRY(run_by_form(
        up_form, queue.tensor_cores, [&]<class Math>() { return launch_gate_up<Math>(op); },
        [&] { return launch_gate_up_of_tiles(op); }));
    NIB_TRY(run_by_form(
        down_form, queue.tensor_cores, [&]<class Math>() { return launch_down<Math>(op); },
        [&] { return launch_down_of_tiles(op); }));
  }
  if (op.folds()) return {};
  const bool is_added = args.rows <= kColumns && down_form != DeviceForm::tiles;
  if (!is_added) NIB_TRY(op.launch_combine());
  return norm_for_next(queue, args.x, args.rows, op.width(), args.next);
}

}  // namespace nib::inline v0::cuda
