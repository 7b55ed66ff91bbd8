// Rows between products: norms near their definitions, heads normed and rotated, and every byte of the pages
// that keys and values go to.
#include "attention_rig.hpp"

namespace nib::test {
namespace {

// ---- norms

struct NormRig {
  NormRig(std::int64_t rows_, std::int64_t width_, NormKind kind_, std::mt19937_64& random)
      : rows(rows_), width(width_), stride(row_stride(width) + 16), kind(kind_), x(rows * stride, NAN) {
    std::normal_distribution<float> normal;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float mean = 3 * normal(random), size = std::exp(2 * normal(random));
      for (std::int64_t i = 0; i < width; ++i) x.data()[r * stride + i] = (normal(random) + mean) * size;
    }
    for (std::int64_t i = 0; i < width; ++i) weight.push_back(normal(random));
    for (std::int64_t i = 0; i < width; ++i) bias.push_back(normal(random));
  }
  // Rows `picked`, or all without.
  DeviceVector<std::uint16_t> run(const DeviceVector<std::int32_t>& picked, DeviceUnderTest& device) {
    const auto count = picked.empty() ? rows : static_cast<std::int64_t>(picked.size());
    DeviceVector<std::uint16_t> out(static_cast<std::size_t>(count * cuda::bf16_stride(width)), 0x7fff);
    const Status status = TestQueue{&device, 2, true}.run(
        cuda::norm_rows, {x.data(),
                          stride,
                          picked.empty() ? nullptr : picked.data(),
                          count,
                          width,
                          {weight.data(), 1e-5f, kind, kind == NormKind::layer ? bias.data() : nullptr},
                          out.data()});
    CAPTURE(status.message());
    REQUIRE(status.ok());
    return out;
  }
  // The sum of n numbers loses (n / 256 + 12) 2^-24 of their magnitudes: a thread's chain, two trees.
  double lost() const { return (static_cast<double>(width) / 256 + 14) * 0x1p-24; }
  void check(const std::uint16_t* got, std::int64_t row) {
    const float* const from = x.data() + row * stride;
    const bool centred = kind == NormKind::layer;
    double mean = 0, size = 0, squares = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      mean += centred ? from[i] : 0;
      size += centred ? std::fabs(from[i]) : 0;
    }
    mean /= static_cast<double>(width);
    const double mean_error = lost() * size / static_cast<double>(width);
    double squares_error = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      const double y = from[i] - mean, off = mean_error + 0x1p-24 * std::fabs(y);
      squares += y * y;
      squares_error += 2 * std::fabs(y) * off + off * off;
    }
    const double variance = squares / static_cast<double>(width) + 1e-5;
    // Root and quotient: two units more, and half of what the sum is off by.
    const double scale_error = squares_error / squares / 2 + lost() + 4 * 0x1p-24;
    for (std::int64_t i = 0; i < width; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double factor = weight[at] / std::sqrt(variance), y = (from[i] - mean) * factor;
      const double wanted = y + (centred ? bias[at] : 0);
      const double exact = std::fabs(y) * (scale_error + 4 * 0x1p-24) + mean_error * std::fabs(factor) +
                           std::fabs(wanted) * 0x1p-24;
      REQUIRE(std::fabs(to_float(bf16{got[i]}) - wanted) <= 1.01 * (exact + std::fabs(wanted) * 0x1p-8));
    }
    for (std::int64_t i = width; i < cuda::bf16_stride(width); ++i) REQUIRE(got[i] == 0);
  }

  std::int64_t rows, width, stride;
  NormKind kind;
  DeviceBuffer<float> x;
  DeviceVector<float> weight, bias;
};

TEST_CASE("norms of rows: near their definitions, the same bits for a row wherever it stands") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  DeviceUnderTest device(seed);
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const std::int64_t width : {1, 24, 64, 255, 257, 1000, 2880}) {
      if (kind == NormKind::layer && width == 1) continue;  // nothing but the epsilon
      CAPTURE(width);
      NormRig rig(3, width, kind, random);
      const auto all = rig.run({}, device), some = rig.run({2, 0, 2, 1}, device);
      const auto stride = cuda::bf16_stride(width);
      for (std::int64_t r = 0; r < 3; ++r) rig.check(all.data() + r * stride, r);
      std::int64_t i = 0;
      for (const std::int64_t r : {2, 0, 2, 1})
        CHECK(std::equal(all.data() + r * stride, all.data() + (r + 1) * stride, some.data() + i++ * stride));
    }
}

// ---- heads of q, k and v

// Of a head and position: the scale and the codes, by their definition (stored_kv.hpp).
struct StoredHead {
  StoredHead(KvFormat format, const float* x, int dim) {
    const float largest = format == KvFormat::int8 ? 127.0f : 448.0f;
    float most = 0;
    for (int d = 0; d < dim; ++d) most = std::isnan(x[d]) ? x[d] : std::max(most, std::fabs(x[d]));
    scale = most < 0x1p-100f ? 0 : most / largest;
    const float inverse = std::isfinite(most) && scale != 0 ? largest / most : 0;
    for (int d = 0; d < dim; ++d) {
      const float y = inverse == 0 ? 0 : x[d] * inverse;
      codes.push_back(format == KvFormat::int8 ? static_cast<std::uint8_t>(std::lrint(y)) : E4M3::encode(y));
    }
  }
  float scale;
  std::vector<std::uint8_t> codes;
};

struct PlaceCase {
  int heads, kv_heads, dim, rotary;
  bool norms;
  KvFormat format;
};

struct PlaceRig {
  PlaceRig(const PlaceCase& what_, std::mt19937_64& random)
      : what(what_),
        layout{what.format, what.kv_heads, what.dim},
        half((what.rotary ? what.rotary : what.dim) / 2) {
    std::normal_distribution<float> normal;
    for (const auto& of_session : {std::vector<std::int64_t>{130}, {62, 63, 64, 65}, {0}}) {
      sessions.emplace_back(layout, of_session[0] / 64, of_session.back() / 64 + 1);
      for (const std::int64_t position : of_session) rows.emplace_back(sessions.size() - 1, position);
    }
    stride = row_stride((what.heads + 2 * what.kv_heads) * what.dim);
    before = DeviceBuffer<float>(static_cast<std::int64_t>(rows.size()) * stride, NAN);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (int i = 0; i < (what.heads + 2 * what.kv_heads) * what.dim; ++i)
        row(before, r)[i] = normal(random);
      for (int i = 0; i < half; ++i) {
        const double angle = 6.3 * std::generate_canonical<double, 32>(random);
        cos.push_back(static_cast<float>(std::cos(angle) * 1.25));
        sin.push_back(static_cast<float>(std::sin(angle) * 1.25));
      }
    }
    for (int d = 0; d < what.dim; ++d) q_norm.push_back(normal(random));
    for (int d = 0; d < what.dim; ++d) k_norm.push_back(normal(random));
  }
  float* row(DeviceBuffer<float>& buffer, std::size_t r) const {
    return buffer.data() + static_cast<std::int64_t>(r) * stride;
  }
  void run(DeviceUnderTest& device, std::size_t first, std::size_t end) {
    DeviceVector<KvRow> kv_rows;
    for (std::size_t r = first; r < end; ++r) kv_rows.push_back(sessions[rows[r].first].row(rows[r].second));
    QkvArgs args{};
    args.rows = static_cast<std::int64_t>(end - first);
    args.norm.epsilon = 1e-6f;
    args.heads = what.heads;
    args.kv = layout;
    args.layer_offset = kLayerOffset;
    args.kv_rows = kv_rows.data();
    args.cos = cos.data() + first * static_cast<std::size_t>(half);
    args.sin = sin.data() + first * static_cast<std::size_t>(half);
    args.qkv = row(after, first);
    args.rotary = what.rotary;
    args.q_norm = what.norms ? q_norm.data() : nullptr;
    args.k_norm = what.norms ? k_norm.data() : nullptr;
    const Status status = TestQueue{&device, 2, true}.run(cuda::place_qkv, args);
    CAPTURE(status.message());
    REQUIRE(status.ok());
  }
  // A head of q or k against its norm and rotation in double. The norm: a sum of squares (a chain of eight, a
  // tree of five), root, quotient and two products, 12 units; the rotation three more of both its terms.
  void check_head(std::size_t r, int head) {
    const float* const from = row(before, r) + head * what.dim;
    std::vector<double> x(from, from + what.dim);
    if (what.norms) {
      double squares = 0;
      for (const double each : x) squares += each * each;
      const DeviceVector<float>& weight = head < what.heads ? q_norm : k_norm;
      for (std::size_t d = 0; d < x.size(); ++d) x[d] *= weight[d] / std::sqrt(squares / what.dim + 1e-6);
    }
    const float* const got = row(after, r) + head * what.dim;
    for (int d = 0; d < what.dim; ++d) {
      double wanted = x[static_cast<std::size_t>(d)], size = std::fabs(wanted);
      if (d < 2 * half) {
        const auto i = static_cast<std::size_t>(d % half), at = r * static_cast<std::size_t>(half) + i;
        const double a = x[i], b = x[i + static_cast<std::size_t>(half)];
        wanted = d < half ? a * cos[at] - b * sin[at] : b * cos[at] + a * sin[at];
        size =
            std::fabs(d < half ? a * cos[at] : b * cos[at]) + std::fabs(d < half ? b * sin[at] : a * sin[at]);
      }
      REQUIRE(std::fabs(got[d] - wanted) <= (what.norms ? 20 : 4) * 0x1p-24 * size);
    }
  }
  // Every byte of the pages: what was there, but where the rows' keys and values go.
  void check_pages() {
    std::vector<DevicePages> wanted;
    for (const DevicePages& session : sessions)
      wanted.emplace_back(layout, session.first_page,
                          session.first_page + static_cast<std::int64_t>(session.table.size()));
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (int head = 0; head < what.kv_heads; ++head)
        for (const bool value : {false, true}) {
          const float* const x = value ? row(before, r) + (what.heads + what.kv_heads + head) * what.dim
                                       : row(after, r) + (what.heads + head) * what.dim;
          const auto& [session, position] = rows[r];
          const DevicePages& to = wanted[session];
          const StoredHead stored(what.format, x, what.dim);
          if (layout.scaled()) std::memcpy(to.scale_place(position, head, value), &stored.scale, 4);
          for (int d = 0; d < layout.padded_dim(); ++d) {
            const float number = d < what.dim ? x[d] : 0;
            const bf16 rounded = to_bf16(number);
            std::byte* const at = to.place(position, head, value, d);
            if (what.format == KvFormat::f32) std::memcpy(at, &number, 4);
            if (what.format == KvFormat::bf16) std::memcpy(at, &rounded, 2);
            if (layout.scaled())
              *at = d < what.dim ? static_cast<std::byte>(stored.codes[static_cast<std::size_t>(d)])
                                 : std::byte{0};
          }
        }
    for (std::size_t s = 0; s < sessions.size(); ++s)
      for (std::size_t p = 0; p < sessions[s].table.size(); ++p)
        REQUIRE(std::memcmp(sessions[s].table[p], wanted[s].table[p], kLayerOffset + layout.layer_bytes()) ==
                0);
  }

  PlaceCase what;
  KvLayout layout;
  int half;
  std::int64_t stride = 0;
  std::vector<DevicePages> sessions;
  std::vector<std::pair<std::size_t, std::int64_t>> rows;  // session, position
  DeviceBuffer<float> before{0}, after{0};
  DeviceVector<float> cos, sin, q_norm, k_norm;
};

TEST_CASE("heads of q and k are normed and rotated, keys and values go to their places and nowhere else") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  DeviceUnderTest device(seed);
  for (const KvFormat format : kKvFormatsKept)
    for (const PlaceCase what : {PlaceCase{8, 1, 64, 0, false, format},
                                 {4, 2, 24, 16, true, format},
                                 {2, 2, 80, 32, false, format},
                                 {3, 1, 256, 0, true, format},
                                 {1, 1, 2, 0, true, format}}) {
      CAPTURE(std::string(kv_format_name(format)));
      CAPTURE(what.dim);
      PlaceRig rig(what, random);
      rig.after = rig.before;
      std::memcpy(rig.after.data(), rig.before.data(), static_cast<std::size_t>(rig.before.size) * 4);
      rig.run(device, 0, rig.rows.size());
      for (std::size_t r = 0; r < rig.rows.size(); ++r) {
        for (int head = 0; head < what.heads + what.kv_heads; ++head) rig.check_head(r, head);
        const int kept = (what.heads + what.kv_heads) * what.dim;  // values, and what lies behind them
        CHECK(std::memcmp(rig.row(rig.after, r) + kept, rig.row(rig.before, r) + kept,
                          static_cast<std::size_t>(rig.stride - kept) * 4) == 0);
      }
      rig.check_pages();
      // Row by row: the same bits.
      DeviceBuffer<float> together = rig.after;
      std::memcpy(together.data(), rig.after.data(), static_cast<std::size_t>(rig.after.size) * 4);
      std::memcpy(rig.after.data(), rig.before.data(), static_cast<std::size_t>(rig.before.size) * 4);
      for (std::size_t r = 0; r < rig.rows.size(); ++r) rig.run(device, r, r + 1);
      CHECK(std::memcmp(rig.after.data(), together.data(), static_cast<std::size_t>(rig.after.size) * 4) ==
            0);
      rig.check_pages();
    }
}

TEST_CASE("heads whose numbers are tiny, or none, are kept as the processor keeps them") {
  std::mt19937_64 random(3);
  DeviceUnderTest device(3);
  for (const KvFormat format : {KvFormat::int8, KvFormat::fp8})
    for (const float odd : {0.0f, 0x1p-101f, 0x1p-99f, INFINITY, NAN, 3e38f}) {
      PlaceRig rig({1, 1, 16, 0, false, format}, random);
      for (int i = 0; i < 16; ++i) {
        rig.row(rig.before, 2)[32 + i] = i == 5 ? odd : 0;
        rig.row(rig.before, 3)[32 + i] = i == 5 ? odd : odd * 0.25f;
      }
      rig.after = rig.before;
      std::memcpy(rig.after.data(), rig.before.data(), static_cast<std::size_t>(rig.before.size) * 4);
      rig.run(device, 0, rig.rows.size());
      float scale;
      std::memcpy(&scale, rig.sessions[1].scale_place(63, 0, true), 4);
      CAPTURE(odd);
      if (std::isfinite(odd)) {
        rig.check_pages();
        CHECK(scale == (odd < 0x1p-100f ? 0 : odd / (format == KvFormat::int8 ? 127 : 448)));
      } else {
        CHECK(!std::isfinite(scale));
        for (int d = 0; d < 16; ++d) CHECK(*rig.sessions[1].place(63, 0, true, d) == std::byte{0});
      }
    }
}

}  // namespace
}  // namespace nib::test
