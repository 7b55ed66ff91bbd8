// What the tests of attention share: sessions with pages that hold random keys and values, batches of their
// rows, and attention in double with a bound.
#pragma once
#include "kv_places.hpp"
#include "ops_rig.hpp"

namespace nib::test {

struct HeadsShape {
  int heads, kv_heads, head_dim;
  std::int64_t qkv_width() const { return std::int64_t{heads + 2 * kv_heads} * head_dim; }
};

// The keys and values of one session, in pages by the drawing in ops.hpp. Everything that was not written is
// NaN.
class Pages {
 public:
  Pages(const KvLayout& layout, std::size_t layer_offset, std::int64_t first_page, std::int64_t end_page)
      : layout_(layout), layer_offset_(layer_offset), first_page_(first_page) {
    for (std::int64_t p = first_page; p < end_page; ++p) {
      pages_.emplace_back(layer_offset + layout.layer_bytes(),
                          0xff);  // 0xff.. is a NaN of every float, and of the scales
      table_.push_back(pages_.back().data());
    }
  }
  KvRow row(std::int64_t position) const { return {table_.data(), first_page_, position}; }

  // One head's key and value at one position; what is stored of them comes back in their place. Bytes are
  // drawn anew, with scales that give numbers of the same size.
  void write(std::int64_t position, int head, float* key, float* value, Random& random) {
    const KvPlaces places(layout_, layer_offset_);
    std::byte* page = table_[static_cast<std::size_t>(position / 64 - first_page_)];
    const std::int64_t slot = position % 64;
    for (float* numbers : {key, value}) {
      const bool is_value = numbers == value;
      float scale = 1;
      if (places.scaled()) {
        scale = (std::abs(random.normal()) + 0.1f) / (layout_.format == KvFormat::int8 ? 64.0f : 128.0f);
        KvPlaces::write(page + places.scale(is_value, head, slot), scale);
      }
      for (int d = 0; d < layout_.head_dim; ++d) {
        std::byte* to = page + places.number(is_value, head, slot, d);
        if (layout_.format == KvFormat::f32) KvPlaces::write(to, numbers[d]);
        if (layout_.format == KvFormat::bf16) KvPlaces::write(to, to_bf16(numbers[d]));
        if (layout_.format == KvFormat::int8)
          KvPlaces::write(to, static_cast<std::int8_t>(random.below(255) - 127));
        if (layout_.format == KvFormat::fp8)  // every finite code
          KvPlaces::write(to, static_cast<std::uint8_t>(random.below(127) + (random.chance(50) ? 128 : 0)));
        numbers[d] = places.decode(to) * scale;
      }
    }
  }

 private:
  KvLayout layout_;
  std::size_t layer_offset_;
  std::int64_t first_page_;
  std::vector<Bytes> pages_;
  std::vector<std::byte*> table_;
};

// A batch of rows of different sessions, each at its own position.
struct Batch {
  HeadsShape shape;
  KvLayout layout;
  std::size_t layer_offset;
  std::int64_t window;
  std::vector<std::int64_t> positions;
  Rows qkv;
  std::vector<Pages> pages;
  std::vector<KvRow> kv_rows;
  std::vector<std::vector<float>> keys, values;  // of each row: [position - begin][kv head][dim], as stored
  std::vector<float> sinks;
  float scale;

  std::int64_t begin(std::size_t row) const {
    return window > 0 ? std::max<std::int64_t>(0, positions[row] + 1 - window) : 0;
  }

  Batch(HeadsShape s, KvFormat format, std::int64_t visible, std::vector<std::int64_t> at, bool with_sinks,
        Random& random)
      : shape(s),
        layout{format, s.kv_heads, s.head_dim},
        layer_offset(static_cast<std::size_t>(random.below(2)) * 64),
        window(visible),
        positions(std::move(at)),
        qkv(static_cast<std::int64_t>(positions.size()), s.qkv_width()),
        scale(1 / std::sqrt(static_cast<float>(s.head_dim))) {
    qkv.fill([&] { return random.normal(); });
    if (with_sinks)
      for (int h = 0; h < s.heads; ++h) sinks.push_back(random.normal() * 2);
    for (std::size_t r = 0; r < positions.size(); ++r) {
      // Pages before the window need not be there; the last page may be followed by nothing.
      pages.emplace_back(layout, layer_offset, begin(r) / 64, positions[r] / 64 + 1);
      auto& k = keys.emplace_back();
      auto& v = values.emplace_back();
      const float loud = random.chance(30) ? 4.0f : 1.0f;  // some sessions have peaked probabilities
      for (std::int64_t p = begin(r); p <= positions[r]; ++p)
        for (int h = 0; h < s.kv_heads; ++h) {
          std::vector<float> key, value;
          for (int d = 0; d < s.head_dim; ++d) {
            key.push_back(random.normal() * loud);
            value.push_back(random.normal());
          }
          pages.back().write(p, h, key.data(), value.data(), random);
          k.insert(k.end(), key.begin(), key.end());
          v.insert(v.end(), value.begin(), value.end());
        }
    }
    for (std::size_t r = 0; r < positions.size(); ++r) kv_rows.push_back(pages[r].row(positions[r]));
  }

  // Rows [first, last) in one call.
  void attend(const Backend& backend, const OpContext& context, std::size_t first, std::size_t last,
              const Rows& out) const {
    backend.ops.attention(context, {.qkv = qkv.row(static_cast<std::int64_t>(first)),
                                    .qkv_stride = qkv.stride,
                                    .rows = static_cast<std::int64_t>(last - first),
                                    .heads = shape.heads,
                                    .kv = layout,
                                    .layer_offset = layer_offset,
                                    .kv_rows = kv_rows.data() + first,
                                    .window = window,
                                    .scale = scale,
                                    .sinks = sinks.empty() ? nullptr : sinks.data(),
                                    .out = out.row(static_cast<std::int64_t>(first)),
                                    .out_stride = out.stride});
  }
  void attend(const Way& way, Numerics numerics, std::size_t first, std::size_t last, const Rows& out) const {
    const Scratch scratch(0, 0, 1);
    const OpContext context = scratch.context(team(way.threads), numerics);
    const HostEnvironment host(way.host);
    attend(*way.backend, context, first, last, out);
  }

  // One head of one row in double, with a bound: scores are off by what a chain of products may lose, exp by
  // 2 ulp, and with bf16 numerics each probability by 2^-9 of itself.
  std::vector<Approx> expect(std::size_t row, int head, Numerics numerics) const {
    const int dim = shape.head_dim, kv_head = head / (shape.heads / shape.kv_heads);
    const auto count = static_cast<std::size_t>(positions[row] + 1 - begin(row));
    const auto at = [&](const std::vector<float>& from, std::size_t j, int d) {
      return static_cast<double>(
          from[(j * static_cast<std::size_t>(shape.kv_heads) + static_cast<std::size_t>(kv_head)) *
                   static_cast<std::size_t>(dim) +
               static_cast<std::size_t>(d)]);
    };
    std::vector<double> score(count);
    double largest = sinks.empty() ? -1e300 : static_cast<double>(sinks[static_cast<std::size_t>(head)]),
           score_error = 0;
    const float* q = qkv.row(static_cast<std::int64_t>(row)) + head * dim;
    for (std::size_t j = 0; j < count; ++j) {
      double magnitude = 0;
      for (int d = 0; d < dim; ++d) {
        const double term = static_cast<double>(rounds_to_bf16(numerics) ? to_float(to_bf16(q[d])) : q[d]) *
                            at(keys[row], j, d);
        score[j] += term * static_cast<double>(scale);
        magnitude += std::abs(term) * static_cast<double>(scale);
      }
      largest = std::max(largest, score[j]);
      score_error = std::max(score_error, (dim + 4) * kUnit * magnitude);
    }
    double total =
        sinks.empty() ? 0 : std::exp(static_cast<double>(sinks[static_cast<std::size_t>(head)]) - largest);
    std::vector<double> sum(static_cast<std::size_t>(dim)), magnitude(static_cast<std::size_t>(dim));
    for (std::size_t j = 0; j < count; ++j) {
      const double p = std::exp(score[j] - largest);
      total += p;
      for (int d = 0; d < dim; ++d) {
        sum[static_cast<std::size_t>(d)] += p * at(values[row], j, d);
        magnitude[static_cast<std::size_t>(d)] += p * std::abs(at(values[row], j, d));
      }
    }
    // Relative error of each p, numerator and denominator; sums and the joins of chunks lose a unit a term.
    const double each = score_error + 100 * kUnit + 4 * 2 * kUnit + (numerics == Numerics::bf16 ? 0x1p-9 : 0);
    const double relative = 2 * each + 2 * static_cast<double>(count + 32) * kUnit;
    std::vector<Approx> out;
    for (std::size_t d = 0; d < sum.size(); ++d)
      out.push_back({sum[d] / total, 1.01 * relative * magnitude[d] / total + 0x1p-100});
    return out;
  }
};

}  // namespace nib::test
