// Room kernels: the ops of a transformer layer, one argument struct each, with their maths and shapes.
//
// Letters: R rows of the batch (tokens of any sessions), H hidden, Hq query heads, Hk key/value heads, D head
// width, E experts, T experts per token, I expert width, V vocabulary. Matrices of rows are f32, row-major,
// with a stride that is a multiple of 16 floats and zeros beyond the width. Every op gives the same bits for
// every cut of a batch, every number of threads and every instruction set.
#pragma once

#include <nibble/base/bits.hpp>
#include <nibble/base/pool.hpp>
#include <nibble/kernels/numerics.hpp>
#include <nibble/kernels/packed.hpp>

#include <cstddef>
#include <cstdint>

namespace nib::inline v0 {

constexpr std::int64_t row_stride(std::int64_t width) { return round_up(width, std::int64_t{16}); }

// What every op works with. `activations` is scratch for packed rows, `tiles` for each thread's output tile.
struct OpContext {
  Pool* pool;
  Numerics numerics;
  std::byte* activations;    // packed rows of the largest call: rows * activation_bytes()
  std::byte* expert_inputs;  // packed inputs of the down projection, same size rule
  float* tiles;              // [threads][tile_floats]
  std::int64_t tile_floats;  // at least R * 64; attention would have kept_tile_floats()
  bool may_be_fast = false;  // of devices: products of many rows may be of the fast class (kFastRows)
};

// The strips of a matrix that thread `index` of `count` multiplies, cut at multiples of `grain`: the same
// ones in every pass, so that weights can lie near it (place_weights in pack.hpp). Of experts it is the same
// part of each, whichever are chosen. `turn` counts those that are: it moves the cuts by less than a grain,
// so that what rounding leaves over does not always fall on the same threads.
[[gnu::always_inline]] constexpr Range strips_of_thread(std::int64_t strips, int index, int count,
                                                        std::int64_t grain = 1, std::int64_t turn = 0) {
  const std::int64_t grains = ceil_div(strips, grain), quarters = 4 * std::int64_t{count};
  const auto cut = [&](std::int64_t i) {
    const std::int64_t at = (4 * grains * i + turn % 4 * count) / quarters * grain;
    return at < strips ? at : strips;
  };
  return {cut(index), cut(index + 1)};
}

// rms: x / sqrt(mean(x^2) + epsilon) * weight; layer: (x - mean) / sqrt(variance + epsilon) * weight + bias.
enum class NormKind : std::uint8_t { rms, layer };
struct Norm {
  const float* weight;  // [row_stride(H)]
  float epsilon;
  NormKind kind = NormKind::rms;
  const float* bias = nullptr;  // [row_stride(H)], of a layer norm
};

// Of devices: what whoever writes x leaves for the norm that follows, if it is wanted. A layer norm's rows,
// as they come out; of an rms norm x * weight, and for each kNormPart numbers of a row the sum of their
// squares: products with such rows are divided by the root of the mean (cuda/folded_norm.hpp).
inline constexpr int kNormPart = 16;
constexpr std::int64_t norm_squares(std::int64_t width) {
  return ceil_div(width, std::int64_t{kNormPart}) + 1;
}
struct NextNorm {
  Norm norm{};
  float* normed = nullptr;   // null: nothing is wanted
  float* squares = nullptr;  // [R][norm_squares(H)]
};

// Geometry of the key/value pages of one layer kind. A page holds kPagePositions positions of every layer of
// the kind:
//   [layer][kv head][K block, V block]
//   bf16       K [D/2][64][2], V [64/2][D'][2]
//   f32        K [D/2][2][64], V [64/2][2][D']
//   int8, fp8  as f32, a byte each; behind either block the f32 scales of its 64 positions
// D' = D rounded up to 16.
inline constexpr int kPagePositions = 64;
struct KvLayout {
  KvFormat format;
  int kv_heads, head_dim;
  [[gnu::always_inline]] constexpr int padded_dim() const { return round_up(head_dim, 16); }
  [[gnu::always_inline]] constexpr bool scaled() const { return kv_bytes(format) == 1; }
  // Where the scales begin in a block that has them.
  [[gnu::always_inline]] constexpr std::size_t code_bytes() const {
    return static_cast<std::size_t>(padded_dim()) * kPagePositions *
           static_cast<std::size_t>(kv_bytes(format));
  }
  [[gnu::always_inline]] constexpr std::size_t block_bytes() const {
    return code_bytes() + (scaled() ? kPagePositions * sizeof(float) : 0);
  }
  [[gnu::always_inline]] constexpr std::size_t layer_bytes() const {
    return static_cast<std::size_t>(kv_heads) * 2 * block_bytes();
  }
};

// One row of the batch, as attention and append see it, for one layer kind.
struct KvRow {
  std::byte* const*
      pages;  // page p of the session holds positions [64 p, 64 p + 64); indexed by p - first_page
  std::int64_t first_page;
  std::int64_t position;  // of this row's token; its key is in the page table already
};

// x_norm = norm(x); [q k v] = W x_norm + b; each head of q and k normed where there are weights for it; their
// first `rotary` dimensions rotated, in halves; k and v appended to the row's pages.
struct QkvArgs {
  const float* x;  // [R][stride H]
  std::int64_t rows;
  Norm norm;
  const PackedWeight* weight;  // [(Hq + 2 Hk) D, H], or `parts` that are it one below the other
  const float* bias;           // [(Hq + 2 Hk) D], padded to strips; or null
  int heads;
  KvLayout kv;
  std::size_t layer_offset;  // of this layer inside a page
  const KvRow* kv_rows;      // [R]
  const float* cos;          // [R][rotary / 2], concentration included
  const float* sin;
  float* normed;                  // scratch [R][stride H]
  float* qkv;                     // out [R][stride (Hq + 2 Hk) D]; q is read by attention
  int rotary = 0;                 // even; 0: all of D
  const float* q_norm = nullptr;  // rms norm of each head, [D] padded to sixteen; or null
  const float* k_norm = nullptr;
  // The kernels of parts want the same activations; rows of all but the last are a multiple of sixteen.
  int parts = 1;
  // Of devices: with `normed` what NextNorm says, and whether whoever wrote x has left it.
  float* squares = nullptr;
  bool is_normed = false;
};

// out[r, h] = softmax over visible keys of (q . k * scale), the sink in its denominator, times v.
struct AttentionArgs {
  const float* qkv;         // as QkvArgs left it
  std::int64_t qkv_stride;  // floats from row to row
  std::int64_t rows;
  int heads;
  KvLayout kv;
  std::size_t layer_offset;
  const KvRow* kv_rows;
  std::int64_t window;  // keys visible including the token's own; 0: all
  float scale;
  const float* sinks;  // [Hq], or null
  float* out;          // [R][out_stride], out_stride = stride(Hq D)
  std::int64_t out_stride;
};

// On the CPU attention may keep what chunks of positions give, in the tiles, and join it later
// (kernels/bodies/attention_shares.hpp): of one chunk, for each of the query heads that share a head of keys
// and values, two numbers and a vector.
[[gnu::always_inline]] constexpr std::int64_t kept_chunk_floats(int heads, const KvLayout& kv) {
  const std::int64_t group = heads / kv.kv_heads;
  return round_up(2 * group, std::int64_t{16}) + group * kv.padded_dim();
}
// What it wants a thread's tile to have room for: so many chunks that beside them it costs little when all
// threads meet. With less room it goes in more rounds, or as if there were none.
constexpr std::int64_t kept_tile_floats(int heads, const KvLayout& kv) {
  return 24 * kept_chunk_floats(heads, kv);
}

struct RouteArgs;

// x += W in + b; b may be null.
struct ProjectArgs {
  const float* in;  // [R][stride k]
  std::int64_t rows;
  const PackedWeight* weight;  // [H, k]
  const float* bias;           // padded to strips
  float* x;                    // [R][stride H]
  NextNorm next{};             // of devices
  // Of devices: the routing of the rows that `next` wants, which is done here too; or null.
  const RouteArgs* route = nullptr;
};

// What the router decided: rows sorted by expert. Entry i is (row[i], weight[i]); expert e owns entries
// [first[e], first[e + 1]); entry_of_row[r * T ..] lists the entries of row r in increasing expert id.
struct Routing {
  std::int32_t* row;           // [R T]
  float* weight;               // [R T]
  std::int32_t* first;         // [E + 1]
  std::int32_t* entry_of_row;  // [R T]
  std::int32_t* chosen;        // [R T] expert ids, largest logit first
  float* chosen_weight;        // [R T]
};

// normed = norm(x); logits = W normed + b; the T largest (lowest id on ties), weighted by the softmax over
// these, or over all (`weights_of_all`). Without W every row goes to the one expert with weight 1: a dense
// layer.
struct RouteArgs {
  const float* x;
  std::int64_t rows;
  Norm norm;
  const PackedWeight* weight;  // [E, H], or null
  const float* bias;           // or null
  int experts, experts_per_token;
  float* normed;    // out [R][stride H]: what the experts read
  float* logits;    // out [R][stride E]
  Routing routing;  // out
  bool weights_of_all = false;
  std::int64_t width = 0;    // H, where there is no W to say it
  float* squares = nullptr;  // of devices, as QkvArgs has them
  bool is_normed = false;
};

// What stands between the two matrices of an expert. The first two have a gate g and a value u for each unit,
// the others the value alone.
enum class Activation : std::uint8_t {
  clamped_swiglu,  // of gpt-oss: min(g, limit) * sigmoid(alpha g) * (clamp(u, limit) + 1)
  swiglu,          // g * sigmoid(g) * u
  gelu,            // u * (1 + erf(u / sqrt 2)) / 2
  gelu_tanh,       // u * (1 + tanh(sqrt(2 / pi) (u + 0.044715 u^3))) / 2
};
constexpr bool is_gated(Activation activation) { return activation <= Activation::swiglu; }
struct GateLimits {
  float alpha, limit;
};

// Experts of a device whose memory does not hold all of a layer's: they lie in page-locked memory of the
// host, and those that are computed are copied to slots, if they are not there yet, in place of those that
// were used least recently. Changes no bits.
struct ExpertSlots {
  int count = 0;                                  // 0: there are none, the device's memory holds all experts
  std::byte *gate_up = nullptr, *down = nullptr;  // [count], as far from one another as experts are
  // slot_table_bytes(E, count), zeros before the first call: then nothing is in a slot. The second number of
  // 64 bits in it is how many experts were copied so far.
  std::byte* table = nullptr;
};

// x += sum over the row's experts, in increasing id, of w * (Wd act(Wg in + bg, Wu in + bu) + bd).
struct ExpertsArgs {
  const float* normed;  // [R][stride H]
  std::int64_t rows;
  int experts, experts_per_token;
  Routing routing;
  const PackedWeight*
      gate_up;                // [E] of [2 stride(I), H], strips gate, up, gate, up; or [I, H] without a gate
  const float* gate_up_bias;  // [E][its rows, padded to strips] in the order of the strips; or null
  const PackedWeight* down;   // [E] of [H, I]
  const float* down_bias;     // [E][stride H]; or null
  std::int64_t width;         // I
  GateLimits gate;
  float* outputs;  // scratch [R T][stride H]
  float* x;        // [R][stride H]
  Activation activation = Activation::clamped_swiglu;
  // Where gate and up are not one matrix: [E] of [I, H]; gate_up is the gate alone then, of the same shape.
  // Their kernels want the same activations. The bias is as ever.
  const PackedWeight* up = nullptr;
  ExpertSlots slots{};  // if any: gate_up and down lie in page-locked memory of the host
  // Of devices: the norm of `normed` with its squares, which are null where it is done; and the next one.
  Norm norm{};
  float* squares = nullptr;
  NextNorm next{};
};

// logits = W norm(x[picked]).
struct HeadArgs {
  const float* x;
  const std::int32_t* picked;  // [count] rows that want logits
  std::int64_t count;
  Norm norm;
  const PackedWeight* weight;  // [V, H]
  float* normed;               // scratch [count][stride H]
  float* logits;               // out [count][stride V]
  // Of devices, as QkvArgs has them; whoever wrote x leaves all of its rows, and these are picked.
  float* squares = nullptr;
  bool is_normed = false;
};

// The op table of a backend.
struct Ops {
  void (*qkv)(const OpContext&, const QkvArgs&);
  void (*attention)(const OpContext&, const AttentionArgs&);
  void (*project)(const OpContext&, const ProjectArgs&);
  void (*route)(const OpContext&, const RouteArgs&);
  void (*experts)(const OpContext&, const ExpertsArgs&);
  void (*head)(const OpContext&, const HeadArgs&);
};

}  // namespace nib::inline v0
