// Heads of q, k and v that their product rotates and appends: the same bits as by two kernels, in what
// attention reads and in every byte of the pages.
#include "attention_rig.hpp"

#include <span>

namespace nib::test {
namespace {

struct HeadsCase {
  int heads, kv_heads, dim;
};

// A matrix, or one for q, k and v each, as rows lie in a model and in pairs; a batch of a few sessions.
struct HeadsRig {
  HeadsRig(const HeadsCase& what_, bool in_parts, Format format, std::int64_t k, std::int64_t rows_,
           Random& random)
      : what(what_),
        rows(rows_),
        width((what.heads + 2 * what.kv_heads) * what.dim),
        x(rows, k, random),
        bias(width),
        cos(rows * what.dim / 2),
        sin(rows * what.dim / 2) {
    const int all[] = {what.heads + 2 * what.kv_heads}, each[] = {what.heads, what.kv_heads, what.kv_heads};
    plain.reserve(3);  // a copy would point to the bytes of what it was made of
    in_pairs.reserve(3);
    for (const int heads : in_parts ? std::span<const int>(each) : std::span<const int>(all)) {
      plain.emplace_back(format, 1, heads * what.dim, k, random);
      in_pairs.push_back(plain.back());
      in_pairs.back().pack(random, {DeviceRows::heads, what.dim});
    }
    for (std::int64_t i = 0; i < width; ++i) bias[i] = random.normal();
    for (std::int64_t i = 0; i < cos.size; ++i) {
      cos[i] = random.normal();
      sin[i] = random.normal();
    }
  }

  struct Result {
    DeviceBuffer<float> qkv{0};
    std::vector<DevicePages> pages;
    // In all pages, and in so many numbers of each row.
    bool same_as(const Result& other, std::int64_t stride, std::int64_t count) const {
      bool same = true;
      for (std::int64_t at = 0; at < qkv.size; at += stride)
        same = same && same_bits(qkv.data() + at, other.qkv.data() + at, count);
      for (std::size_t s = 0; s < pages.size(); ++s)
        for (std::size_t p = 0; p < pages[s].store.size(); ++p)
          same = same && std::equal(pages[s].store[p]->begin(), pages[s].store[p]->end(),
                                    other.pages[s].store[p]->begin());
      return same;
    }
  };
  // Every second row is the next position of one session; the others are of sessions of their own.
  Result run(const std::vector<DeviceMatrices>& by, KvFormat format, bool places,
             const TestQueue& queue) const {
    const KvLayout layout{format, what.kv_heads, what.dim};
    Result out{DeviceBuffer<float>(rows * stride(), kNoNumber), {}};
    DeviceVector<KvRow> kv_rows;
    out.pages.emplace_back(layout, 0, 2);
    for (std::int64_t r = 0; r < rows; ++r) out.pages.emplace_back(layout, r, r + 2);
    for (std::int64_t r = 0; r < rows; ++r)
      kv_rows.push_back(r % 2 ? out.pages[0].row(60 + r)
                              : out.pages[static_cast<std::size_t>(r) + 1].row(r * 64 + 13 * r % 128));
    std::int64_t column = 0;
    for (const DeviceMatrices& part : by) {
      const DeviceScratch scratch(x.width);
      cuda::HeadRows heads{};
      if (&by == &in_pairs)
        heads = {what.dim,     static_cast<int>(column / what.dim), what.heads, layout,
                 kLayerOffset, places ? kv_rows.data() : nullptr,   cos.data(), sin.data()};
      const Status status = queue.run(cuda::multiply, scratch.context(),
                                      {.weight = &part.shape(),
                                       .x = x.row(0),
                                       .x_stride = x.stride,
                                       .rows = rows,
                                       .bias = bias.data() + column,
                                       .out = out.qkv.data() + column,
                                       .out_stride = stride(),
                                       .heads = heads});
      CAPTURE(status.message());
      REQUIRE(status.ok());
      CHECK(scratch.counters_are_zero());
      column += part.shape().rows;
    }
    if (places) return out;
    QkvArgs args{};
    args.rows = rows;
    args.heads = what.heads;
    args.kv = layout;
    args.layer_offset = kLayerOffset;
    args.kv_rows = kv_rows.data();
    args.cos = cos.data();
    args.sin = sin.data();
    args.qkv = out.qkv.data();
    REQUIRE(queue.run(cuda::place_qkv, args).ok());
    return out;
  }
  std::int64_t stride() const { return row_stride(width); }
  std::int64_t queries() const { return std::int64_t{what.heads} * what.dim; }

  HeadsCase what;
  std::int64_t rows, width;
  std::vector<DeviceMatrices> plain, in_pairs;
  DeviceInputs x;
  DeviceBuffer<float> bias, cos, sin;
};

TEST_CASE("heads that their product places: the same bits as by a kernel of their own") {
  NIB_RANDOM(random);
  for (const Format format : {Format::mxfp4, Format::bf16, Format::q8_0})
    for (const HeadsCase what : {HeadsCase{4, 1, 64}, {2, 2, 16}, {3, 1, 80}, {2, 1, 128}, {1, 1, 48}}) {
      CAPTURE(format_name(format));
      CAPTURE(what.dim);
      const bool tensor_cores = random.chance(50);
      for (const std::int64_t rows : {1 + random.below(8), 8, 9 + random.below(8)}) {
        CAPTURE(rows);
        const HeadsRig rig(what, random.chance(50), format, 32 * (1 + random.below(10)), rows, random);
        REQUIRE(heads_in_pairs(rig.plain[0].shape(), what.dim, what.dim));
        DeviceUnderTest first(random.bits()), second(random.bits());
        const TestQueue one{&first, 1 + random.below(20), tensor_cores},
            other{&second, 1 + random.below(20), tensor_cores};
        for (const KvFormat kv : {KvFormat::bf16, KvFormat::f32}) {
          const auto wanted = rig.run(rig.plain, kv, false, one);
          if (rows <= 8)
            CHECK(rig.run(rig.in_pairs, kv, true, other).same_as(wanted, rig.stride(), rig.queries()));
          // Left as they come out they are where they were, keys and values as well.
          CHECK(rig.run(rig.in_pairs, kv, false, other).same_as(wanted, rig.stride(), rig.width));
        }
      }
    }
}

TEST_CASE("heads in pairs: of which matrices") {
  const PackedWeight shape{Format::bf16, 256, 64, nullptr, nullptr, 0};
  CHECK(heads_in_pairs(shape, 64, 64));
  CHECK(!heads_in_pairs(shape, 64, 32));  // the rest of a head stays as it is
  CHECK(!heads_in_pairs(shape, 40, 40));
  CHECK(!heads_in_pairs({Format::q5_0, 256, 64, nullptr, nullptr, 0}, 64, 64));
}

}  // namespace
}  // namespace nib::test
