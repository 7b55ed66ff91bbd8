// Batches of rows of several sessions over pages as a device has them, and what attention comes to in double.
#pragma once

#include "device_rig.hpp"
#include <nibble/formats/small_floats.hpp>

#include <cstring>
#include <memory>

#include <cuda/bodies/attention.cuh>
#include <cuda/kv_pages.hpp>
#include <cuda/rows.hpp>

namespace nib::test {

inline constexpr KvFormat kKvFormatsKept[] = {KvFormat::bf16, KvFormat::f32, KvFormat::int8, KvFormat::fp8};
inline constexpr std::size_t kLayerOffset = 256;  // before it in a page: another layer

// What a number's bytes mean, scale aside.
inline float stored_number(KvFormat format, const std::byte* from) {
  float f32;
  bf16 half;
  switch (format) {
    case KvFormat::f32:
      std::memcpy(&f32, from, 4);
      return f32;
    case KvFormat::bf16:
      std::memcpy(&half, from, 2);
      return to_float(half);
    case KvFormat::int8:
      return static_cast<std::int8_t>(*from);
    default:
      return E4M3::decode(static_cast<std::uint8_t>(*from));
  }
}

// The pages of one session from `first_page` on. What was not written is NaN, or the scale before it is.
struct DevicePages {
  DevicePages(const KvLayout& layout_, std::int64_t first_page_, std::int64_t end_page)
      : layout(layout_), first_page(first_page_) {
    for (std::int64_t p = first_page; p < end_page; ++p) {
      store.push_back(std::make_unique<DeviceBuffer<std::byte>>(
          static_cast<std::int64_t>(kLayerOffset + layout.layer_bytes()), std::byte{0xff}));
      table.push_back(store.back()->data());
    }
  }
  KvRow row(std::int64_t position) const { return {table.data(), first_page, position}; }
  std::byte* block(std::int64_t position, int head, bool value) const {
    return table[static_cast<std::size_t>(position / 64 - first_page)] + kLayerOffset +
           static_cast<std::size_t>(2 * head + value) * layout.block_bytes();
  }
  std::byte* place(std::int64_t position, int head, bool value, int d) const {
    const int bytes = kv_bytes(layout.format), slot = static_cast<int>(position % 64);
    return block(position, head, value) +
           (value ? cuda::value_place(bytes, slot, d) : cuda::key_place(bytes, slot, d));
  }
  std::byte* scale_place(std::int64_t position, int head, bool value) const {
    return block(position, head, value) + layout.code_bytes() + static_cast<std::size_t>(position % 64) * 4;
  }
  double number(std::int64_t position, int head, bool value, int d) const {
    float scale = 1;
    if (layout.scaled()) std::memcpy(&scale, scale_place(position, head, value), 4);
    return double{scale} * stored_number(layout.format, place(position, head, value, d));
  }
  // Random numbers of deviation `size` for keys; zeros from D to D'.
  void write(std::int64_t position, float size, std::mt19937_64& random) {
    std::normal_distribution<float> normal;
    for (int head = 0; head < layout.kv_heads; ++head)
      for (const bool value : {false, true}) {
        if (layout.scaled()) {
          const float scale =
              (std::fabs(normal(random)) + 0.1f) / (layout.format == KvFormat::int8 ? 64 : 128);
          std::memcpy(scale_place(position, head, value), &scale, 4);
        }
        for (int d = 0; d < layout.padded_dim(); ++d) {
          const float x = d < layout.head_dim ? normal(random) * (value ? 1 : size) : 0;
          std::byte* const to = place(position, head, value, d);
          const bf16 half = to_bf16(x);
          if (layout.format == KvFormat::f32) std::memcpy(to, &x, 4);
          if (layout.format == KvFormat::bf16) std::memcpy(to, &half, 2);
          if (layout.format == KvFormat::int8)
            *to = static_cast<std::byte>(d < layout.head_dim ? static_cast<int>(random() % 255) - 127 : 0);
          if (layout.format == KvFormat::fp8)  // every finite code
            *to = static_cast<std::byte>(d < layout.head_dim ? random() % 127 + random() % 2 * 128 : 0);
        }
      }
  }
  // Makes all of a position what nobody may look at.
  void poison(std::int64_t position) {
    for (int head = 0; head < layout.kv_heads; ++head)
      for (const bool value : {false, true}) {
        if (layout.scaled()) std::memset(scale_place(position, head, value), 0xff, 4);
        for (int d = 0; d < layout.padded_dim(); ++d)
          std::memset(place(position, head, value, d), 0xff,
                      static_cast<std::size_t>(kv_bytes(layout.format)));
      }
  }

  KvLayout layout;
  std::int64_t first_page;
  std::vector<std::unique_ptr<DeviceBuffer<std::byte>>> store;
  DeviceVector<std::byte*> table;
};

struct AttentionCase {
  int heads, kv_heads, head_dim;
  KvFormat format;
  std::int64_t window;
  bool sinks;
};

// How a device does it: multiprocessors, and bytes of scratch.
struct AttentionWay {
  bool tensor_cores;
  int processors = 2;
  std::size_t scratch = 1 << 22;
};

struct AttentionBatch {
  struct Row {
    std::size_t session;
    std::int64_t position;
  };

  // Each session: the positions of its rows, which lie together in the batch.
  AttentionBatch(const AttentionCase& what_, const std::vector<std::vector<std::int64_t>>& positions,
                 std::mt19937_64& random)
      : what(what_), layout{what.format, what.kv_heads, what.head_dim} {
    std::normal_distribution<float> normal;
    scale = 1 / std::sqrt(static_cast<float>(what.head_dim));
    for (const auto& of_session : positions) {
      std::int64_t begin = of_session[0], last = 0;
      for (const std::int64_t position : of_session) {
        rows.push_back({sessions.size(), position});
        begin = std::min(begin, this->begin(position));
        last = std::max(last, position);
      }
      sessions.emplace_back(layout, begin / 64, last / 64 + 1);
      const float size = random() % 3 ? 1 : 3;  // some have peaked probabilities
      for (std::int64_t p = begin; p <= last; ++p) sessions.back().write(p, size, random);
    }
    stride = row_stride((what.heads + 2 * what.kv_heads) * what.head_dim);
    qkv = DeviceBuffer<float>(static_cast<std::int64_t>(rows.size()) * stride, NAN);
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (int i = 0; i < what.heads * what.head_dim; ++i) q(r)[i] = normal(random);
    if (what.sinks)
      for (int h = 0; h < what.heads; ++h) sinks.push_back(2 * normal(random));
  }

  std::int64_t begin(std::int64_t position) const {
    return what.window > 0 ? std::max<std::int64_t>(0, position + 1 - what.window) : 0;
  }
  float* q(std::size_t row) { return qkv.data() + static_cast<std::int64_t>(row) * stride; }
  std::int64_t width() const { return std::int64_t{what.heads} * what.head_dim; }

  // Rows [first, end) in one call: [rows][bf16_stride(width)].
  std::vector<std::uint16_t> attend(const AttentionWay& way, DeviceUnderTest& device, std::size_t first,
                                    std::size_t end) {
    const std::int64_t out_stride = cuda::bf16_stride(width()),
                       count = static_cast<std::int64_t>(end - first);
    DeviceBuffer<std::uint16_t> out(count * out_stride, 0x7fff);
    DeviceBuffer<float> scratch(static_cast<std::int64_t>(kScratchCounters + way.scratch / 4), NAN);
    std::fill_n(scratch.data(), kScratchCounters, 0.0f);
    DeviceVector<KvRow> kv_rows;
    for (std::size_t r = first; r < end; ++r)
      kv_rows.push_back(sessions[rows[r].session].row(rows[r].position));
    OpContext context{};
    context.tiles = scratch.data();
    context.tile_floats = scratch.size;
    const TestQueue queue{&device, way.processors, way.tensor_cores};
    const Status status = queue.run(cuda::attention, context,
                                    {.qkv = q(first),
                                     .qkv_stride = stride,
                                     .rows = count,
                                     .heads = what.heads,
                                     .kv = layout,
                                     .layer_offset = kLayerOffset,
                                     .kv_rows = kv_rows.data(),
                                     .window = what.window,
                                     .scale = scale,
                                     .sinks = sinks.empty() ? nullptr : sinks.data(),
                                     .out = reinterpret_cast<float*>(out.data()),
                                     .out_stride = 0});
    CAPTURE(status.message());
    REQUIRE(status.ok());
    REQUIRE(std::all_of(scratch.data(), scratch.data() + kScratchCounters, [](float x) { return x == 0; }));
    return {out.data(), out.data() + count * out_stride};
  }

  struct Expected {
    std::vector<double> value, error;
  };
  // One head of one row, in double, and how far from it a device may be:
  //   A score is a chain over columns of 16 dimensions. A tensor product loses 17 times 2^-24 of the largest
  //   addend and 2^-23 of its sum (device_rig.hpp), 19 * 2^-24 of the sum of magnitudes M in all; sixteen
  //   fused multiply-adds lose less. Scaling it rounds twice. So a score is off by (19 columns + 3) 2^-24 M.
  //   A probability is off by that, relatively, by the rounding of the score's distance from the largest, and
  //   by two units of exp; what the largest is, numerator and denominator share. Rounded to bf16: 2^-8, and
  //   with a scale a unit of f32 before it. Each join with another split puts on two exponentials of
  //   distances and four roundings.
  //   The sum of sixteen tensor products for a split loses 16 * 19 * 2^-24, that of probabilities less.
  //   All of these stand in the numerator and in the denominator. The result is rounded to bf16: 2^-8.
  Expected expect(std::size_t row, int head) {
    const int dim = what.head_dim, kv_head = head / (what.heads / what.kv_heads);
    const DevicePages& pages = sessions[rows[row].session];
    const std::int64_t end = rows[row].position + 1, from = begin(rows[row].position);
    std::vector<double> score;
    double largest = -1e300, least = 1e300, score_error = 0;
    for (std::int64_t p = from; p < end; ++p) {
      double sum = 0, magnitude = 0;
      for (int d = 0; d < dim; ++d) {
        const double term =
            double{to_float(to_bf16(q(row)[head * dim + d]))} * pages.number(p, kv_head, false, d);
        sum += term * double{scale};
        magnitude += std::fabs(term) * double{scale};
      }
      score.push_back(sum);
      largest = std::max(largest, sum);
      least = std::min(least, sum);
      score_error = std::max(score_error, (19.0 * ((dim + 15) / 16) + 3) * 0x1p-24 * magnitude);
    }
    double spread = largest - least, total = 0;
    if (what.sinks) {
      const double sink = sinks[static_cast<std::size_t>(head)];
      spread = std::max(largest, sink) - std::min(least, sink);
      largest = std::max(largest, sink);
      total = std::exp(sink - largest);
    }
    const auto width = static_cast<std::size_t>(dim);
    Expected out{std::vector<double>(width), std::vector<double>(width)};
    for (std::int64_t p = from; p < end; ++p) {
      const double weight = std::exp(score[static_cast<std::size_t>(p - from)] - largest);
      total += weight;
      for (int d = 0; d < dim; ++d) {
        const double term = weight * pages.number(p, kv_head, true, d);
        out.value[static_cast<std::size_t>(d)] += term;
        out.error[static_cast<std::size_t>(d)] += std::fabs(term);
      }
    }
    const double splits = static_cast<double>(end / 256 - from / 256 + 2);  // and the sink
    const double exponential = (4 + spread) * 0x1p-24;
    const double each = score_error + 0x1p-8 + exponential + splits * (2 * exponential + 4 * 0x1p-24) +
                        (16 * 19 + 2) * 0x1p-24;
    for (std::size_t d = 0; d < width; ++d) {
      out.value[d] /= total;
      out.error[d] = 1.02 * (2 * each * out.error[d] / total + 0x1p-8 * std::fabs(out.value[d])) + 0x1p-120;
    }
    return out;
  }

  // All rows, as `got` has them.
  void check(const std::vector<std::uint16_t>& got) {
    const std::int64_t out_stride = cuda::bf16_stride(width());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const std::uint16_t* const row = got.data() + static_cast<std::int64_t>(r) * out_stride;
      CAPTURE(rows[r].position);
      for (int h = 0; h < what.heads; ++h) {
        const Expected expected = expect(r, h);
        for (int d = 0; d < what.head_dim; ++d) {
          const double value = to_float(bf16{row[h * what.head_dim + d]});
          const double wanted = expected.value[static_cast<std::size_t>(d)],
                       bound = expected.error[static_cast<std::size_t>(d)];
          if (std::fabs(value - wanted) <= bound) continue;
          CAPTURE(h);
          CAPTURE(d);
          CAPTURE(value);
          CAPTURE(wanted);
          CAPTURE(bound);
          REQUIRE(std::fabs(value - wanted) <= bound);
        }
      }
      for (std::int64_t i = width(); i < out_stride; ++i) REQUIRE(row[i] == 0);
    }
  }

  AttentionCase what;
  KvLayout layout;
  std::vector<DevicePages> sessions;
  std::vector<Row> rows;
  std::int64_t stride = 0;
  DeviceBuffer<float> qkv{0};
  DeviceVector<float> sinks;
  float scale = 1;
};

}  // namespace nib::test
