// qkv: norm, product, bias, rotation and what is appended to the pages, against double within derived bounds,
// and bit for bit in every way and cut.
#include "kv_places.hpp"
#include "layer_rig.hpp"

namespace nib::test {
namespace {

struct Heads {
  int query, key, dim;
  std::int64_t width() const { return std::int64_t{query + 2 * key} * dim; }
};

// The pages of the sessions of a batch, filled with 0xff, and the one place of each number in them (ops.hpp).
class Sessions {
 public:
  Sessions(const KvLayout& layout, std::size_t layer_offset, int sessions, std::int64_t first_page, int pages)
      : layout_(layout), layer_offset_(layer_offset), first_page_(first_page) {
    for (int s = 0; s < sessions; ++s) {
      auto& table = tables_.emplace_back();
      for (int p = 0; p < pages; ++p) {
        pages_.emplace_back(layer_offset + layout.layer_bytes() + 64, 0xff);
        table.push_back(pages_.back().data());
      }
    }
  }
  KvRow row(int session, std::int64_t position) const {
    return {tables_[static_cast<std::size_t>(session)].data(), first_page_, position};
  }
  // Takes the key or value of one head out: what lies there is 0xff again. Returns the end of `to`.
  float* take(const KvRow& at, bool value, int head, float* to) const {
    const KvPlaces places(layout_, layer_offset_);
    std::byte* page = at.pages[at.position / 64 - first_page_];
    const std::int64_t slot = at.position % 64;
    float scale = 1;
    if (places.scaled()) {
      std::byte* from = page + places.scale(value, head, slot);
      scale = KvPlaces::read<float>(from);
      std::memset(from, 0xff, sizeof scale);
    }
    for (int d = 0; d < layout_.head_dim; ++d) {
      std::byte* from = page + places.number(value, head, slot, d);
      *to++ = places.decode(from) * scale;
      std::memset(from, 0xff, static_cast<std::size_t>(places.bytes()));
    }
    return to;
  }
  bool untouched() const {
    return std::all_of(pages_.begin(), pages_.end(), [](const Bytes& page) {
      return std::all_of(page.data(), page.data() + page.size(),
                         [](std::byte b) { return b == std::byte{0xff}; });
    });
  }

 private:
  KvLayout layout_;
  std::size_t layer_offset_;
  std::int64_t first_page_;
  std::vector<Bytes> pages_;
  std::vector<std::vector<std::byte*>> tables_;
};

struct QkvCase {
  static constexpr int kPages = 3;
  Numerics numerics;
  Heads heads;
  KvLayout layout;
  Matrix weight;
  Rows x, norm_weight, bias;
  std::vector<float> cos, sin;  // any numbers: the op must not count on their being of one angle
  float epsilon;
  std::size_t layer_offset;
  int sessions;
  std::int64_t first_page, first_position;

  QkvCase(Numerics n, Format format, KvFormat kv, Heads h, std::int64_t hidden, std::int64_t rows,
          int session_count, Random& random)
      : numerics(n),
        heads(h),
        layout{kv, h.key, h.dim},
        weight(format, h.width(), hidden, random),
        x(residual_rows(rows, hidden, random)),
        norm_weight(norm_weights(hidden, random)),
        bias(random_bias(h.width(), random)),
        epsilon(random.chance(50) ? 1e-5f : 1e-6f),
        layer_offset(static_cast<std::size_t>(random.below(3)) * layout.layer_bytes()),
        sessions(session_count),
        first_page(random.below(5)),
        first_position(first_page * 64 + random.below(2 * 64)) {
    for (std::int64_t i = 0; i < rows * (h.dim / 2); ++i) {
      cos.push_back(random.normal());
      sin.push_back(random.normal());
    }
  }

  // Rows of a session follow each other.
  std::int64_t position(std::int64_t row) const { return first_position + row / sessions; }

  // Per row: what the op left as q, then the key and the value that it appended.
  Rows run(const Way& way, const Cuts& cuts) const {
    // The matrix itself, and (in some ways) q, k and v each for itself.
    std::vector<Packed> owned;
    std::vector<PackedWeight> parts{weight.packed.for_ops(*way.backend, numerics)};
    if (way.threads >= 3 && heads.query * heads.dim % 16 == 0 && heads.key * heads.dim % 16 == 0) {
      parts.clear();
      std::int64_t row = 0;
      for (const int count : {heads.query, heads.key, heads.key}) {
        owned.emplace_back(weight.encoded.part(row, count * heads.dim));
        row += count * heads.dim;
      }
      for (const Packed& part : owned) parts.push_back(part.for_ops(*way.backend, numerics));
    }
    const PackedWeight& packed = parts[0];
    const Sessions cache(layout, layer_offset, sessions, first_page, kPages);
    std::vector<KvRow> kv_rows;
    for (std::int64_t r = 0; r < x.rows; ++r)
      kv_rows.push_back(cache.row(static_cast<int>(r % sessions), position(r)));
    Rows qkv = unwritten(x.rows, heads.width());
    const std::int64_t half = heads.dim / 2;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::int64_t at = cuts[i], rows = cuts[i + 1] - at;
      const CallSpace space(way, numerics, rows, packed);
      const Rows normed = unwritten(rows, x.width);
      const HostEnvironment host(way.host);
      way.backend->ops.qkv(space.context, {.x = x.row(at),
                                           .rows = rows,
                                           .norm = {norm_weight.data(), epsilon},
                                           .weight = parts.data(),
                                           .bias = bias.data(),
                                           .heads = heads.query,
                                           .kv = layout,
                                           .layer_offset = layer_offset,
                                           .kv_rows = kv_rows.data() + at,
                                           .cos = cos.data() + at * half,
                                           .sin = sin.data() + at * half,
                                           .normed = normed.data(),
                                           .qkv = qkv.row(at),
                                           .parts = static_cast<int>(parts.size())});
    }
    Rows out(x.rows, heads.width());
    for (std::int64_t r = 0; r < x.rows; ++r) {
      float* to = std::copy_n(qkv.row(r), heads.query * heads.dim, out.row(r));
      for (const bool value : {false, true})
        for (int h = 0; h < heads.key; ++h)
          to = cache.take(kv_rows[static_cast<std::size_t>(r)], value, h, to);
    }
    REQUIRE(cache.untouched());
    return out;
  }

  Values expect(std::int64_t r) const {
    const Values inputs =
        at_product(numerics, weight.encoded.format, norm(x.span(r), norm_weight.data(), epsilon));
    Values out;
    for (std::int64_t n = 0; n < heads.width(); ++n)
      out.push_back(product_row(weight.exact, n, inputs, bias.data()));
    const int half = heads.dim / 2;
    const auto dim = static_cast<std::size_t>(heads.dim);
    for (int h = 0; h < heads.query + heads.key; ++h)
      for (int i = 0; i < half; ++i) {
        const std::size_t angle = static_cast<std::size_t>(r * half + i);
        const Approx c = exactly(cos[angle]), s = exactly(sin[angle]), minus_s = exactly(-sin[angle]);
        Approx& first = out[static_cast<std::size_t>(h * heads.dim + i)];
        Approx& second = out[static_cast<std::size_t>(h * heads.dim + i + half)];
        const Approx a = first, b = second;
        first = sum(product(a, c), product(b, minus_s));
        second = sum(product(b, c), product(a, s));
      }
    if (layout.format == KvFormat::bf16)
      for (std::size_t i = static_cast<std::size_t>(heads.query * heads.dim); i < out.size(); ++i)
        out[i] = stored_bf16(out[i]);
    if (KvPlaces(layout, 0).scaled())
      for (std::size_t i = static_cast<std::size_t>(heads.query * heads.dim); i < out.size(); i += dim)
        round_head(&out[i]);
    return out;
  }

  // A byte each: the largest magnitude is the largest code, the others are off by half a step of their code
  // at most.
  void round_head(Approx* head) const {
    double most = 0;
    for (int d = 0; d < heads.dim; ++d) most = std::max(most, std::abs(head[d].value) + head[d].error);
    for (int d = 0; d < heads.dim; ++d) {
      const double size = std::abs(head[d].value) + head[d].error;
      const double half_step =
          layout.format == KvFormat::int8 ? most / 127 / 2 : std::max(size * 0x1p-4, most / 448 * 0x1p-10);
      head[d].error += half_step + 8 * kUnit * most;
    }
  }

  void check(Random& random) const {
    CAPTURE(in_words(numerics, weight.encoded.format));
    CAPTURE(std::string(kv_format_name(layout.format)));
    CAPTURE(heads.query);
    CAPTURE(heads.dim);
    CAPTURE(x.width);
    CAPTURE(x.rows);
    const Rows got =
        same_in_all_ways(x.rows, random, [&](const Way& way, const Cuts& cuts) { return run(way, cuts); });
    for (std::int64_t r = 0; r < x.rows; ++r) {
      const Values want = expect(r);
      for (std::int64_t n = 0; n < heads.width(); ++n)
        require_near(want[static_cast<std::size_t>(n)], got.row(r)[n], r, n);
    }
  }
};

TEST_CASE("qkv: every format of weights and of keys, groups and widths of heads, 1 to 17 rows") {
  NIB_RANDOM(random);
  constexpr Heads kHeads[] = {{8, 1, 16}, {2, 2, 24}, {6, 2, 8}, {3, 1, 40}, {1, 1, 2}, {2, 1, 64}};
  for (const Heads& heads : kHeads)
    for (const Format format : {Format::mxfp4, Format::bf16, Format::f16, Format::f32})
      for (const KvFormat kv : kKvStored)
        for (const Numerics numerics : kAllNumerics) {
          const std::int64_t hidden =
              format == Format::mxfp4 ? 32 + 64 * random.below(3) : 8 + random.below(160);
          const int rows = 1 + random.below(17);
          QkvCase(numerics, format, kv, heads, hidden, rows, 1 + random.below(rows), random).check(random);
        }
}

TEST_CASE("qkv: the hidden width of gpt-oss; a prompt across pages") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics) {
    const KvFormat kv = resolve(KvFormat::automatic, numerics);
    QkvCase(numerics, Format::bf16, kv, {4, 1, 16}, 2880, 1 + random.below(6), 1, random).check(random);
    QkvCase(numerics, Format::mxfp4, kv, {2, 1, 16}, 2880, 3, 3, random).check(random);
    QkvCase(numerics, Format::bf16, kv, {2, 1, 16}, 48, 64, 1, random).check(random);
  }
}

TEST_CASE("qkv: what one row holds reaches no other") {
  NIB_RANDOM(random);
  for (const Numerics numerics : kAllNumerics)
    for (const KvFormat kv : kKvStored) {
      const QkvCase c(numerics, Format::bf16, kv, {3, 1, 16}, 104, 6, 1, random);
      check_poison_stays(c.x, random, [&](const Way& way, const Cuts& cuts) { return c.run(way, cuts); });
    }
}

}  // namespace
}  // namespace nib::test
