#include <nibble/formats/ggml_k.hpp>
#include <nibble/formats/visit.hpp>
#include <nibble/kernels/ops.hpp>
#include <nibble/kernels/pack.hpp>

#include <algorithm>
#include <bit>
#include <cstring>

namespace nib::inline v0 {
namespace {

// ---- where the stored rows have their codes

// Codes of four bits (of six and five: their low four) lie in blocks of `block` values and `bytes` bytes,
// from byte `at` on. Value i of them is in byte i / 2h * h + i % h, and in its high nibble where i / h is
// odd: h of one is neighbour beside neighbour, h of 16 the two halves of 32.
struct NibblePlace {
  std::int64_t block, bytes, at, h;
};
constexpr NibblePlace nibble_place(Format format) {
  const FormatInfo& info = format_info(format);
  const auto place = [&](std::int64_t at, std::int64_t h) -> NibblePlace {
    return {info.group, info.code_bytes, at, h};
  };
  switch (format) {
    case Format::q4_0:
    case Format::iq4_nl:
      return place(2, 16);
    case Format::q4_1:
      return place(4, 16);
    case Format::q5_0:
      return place(6, 16);
    case Format::q5_1:
      return place(8, 16);
    case Format::gguf_mxfp4:
      return place(1, 16);
    case Format::gguf_nvfp4:
      return place(4, 8);
    case Format::iq4_xs:
      return place(8, 16);
    case Format::q4_k:
      return place(16, 32);
    case Format::q5_k:
      return place(48, 32);
    case Format::q6_k:
      return place(0, 64);
    default:  // codes alone
      return place(0, 1);
  }
}

// Most bytes of an Unsigned; fewer where the row ends. (A copy of a length that compilers know is one
// instruction.)
template <class Unsigned>
Unsigned bytes_at(const std::byte* from, std::int64_t count) {
  Unsigned bytes = 0;
  if (count >= static_cast<std::int64_t>(sizeof bytes)) [[likely]]
    std::memcpy(&bytes, from, sizeof bytes);
  else
    std::memcpy(&bytes, from, static_cast<std::size_t>(count));
  return bytes;
}

// Bytes 0, 2, 4 and 6.
std::uint32_t even_bytes(std::uint64_t bytes) {
  bytes &= 0x00ff'00ff'00ff'00ffu;
  bytes = (bytes | bytes >> 8) & 0x0000'ffff'0000'ffffu;
  return static_cast<std::uint32_t>(bytes | bytes >> 16);
}

// The codes of the `left` (most: eight) values from k on, the first in the lowest nibble.
template <StoredFormat F>
std::uint32_t nibbles_at(const std::byte* row, std::int64_t k, std::int64_t left) {
  constexpr NibblePlace place = nibble_place(F::id);
  if constexpr (place.h == 1) {
    auto codes = bytes_at<std::uint32_t>(row + k / 2, left / 2);
    if constexpr (F::id == Format::nf4 || F::id == Format::bnb_fp4)  // the first in the high nibble
      codes = (codes & 0x0f0f'0f0fu) << 4 | (codes >> 4 & 0x0f0f'0f0fu);
    return codes;
  } else {
    const std::int64_t i = k % place.block;
    auto codes = bytes_at<std::uint64_t>(
        row + k / place.block * place.bytes + place.at + i / (2 * place.h) * place.h + i % place.h, 8);
    codes = (i / place.h % 2 ? codes >> 4 : codes) & 0x0f0f'0f0f'0f0f'0f0fu;
    return even_bytes(codes | codes >> 4);
  }
}

// The bits above the low four of value k.
template <StoredFormat F>
std::uint32_t high_bits_at(const std::byte* row, std::int64_t k) {
  const std::byte* block = row + k / F::group * static_cast<std::int64_t>(F::code_bytes);
  const auto i = static_cast<int>(k % F::group);
  const auto byte = [&](int at) { return std::to_integer<std::uint32_t>(block[at]); };
  if constexpr (F::id == Format::q5_0) return byte(2 + i / 8) >> (i % 8) & 1u;
  if constexpr (F::id == Format::q5_1) return byte(4 + i / 8) >> (i % 8) & 1u;
  if constexpr (F::id == Format::q5_k) return byte(16 + i % 32) >> (i / 32) & 1u;
  return byte(128 + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3u;  // q6_k
}

// The bytes of the `left` (most: eight) values from k on, the first lowest.
template <StoredFormat F>
std::uint64_t eight_bytes(const std::byte* row, std::int64_t k, std::int64_t left) {
  if constexpr (F::id == Format::q8_0) return bytes_at<std::uint64_t>(row + k / 32 * 34 + 2 + k % 32, 8);
  return bytes_at<std::uint64_t>(row + k, left);
}

// ---- codes into tiles

// A code of which level is zero, eight times: what k past the last hold.
template <StoredFormat F>
constexpr std::uint32_t kZeroNibbles = F::id == Format::nf4 ? 0x7777'7777u : 0u;

// Eight codes of E2M1 with every negative zero made zero: added to a sum it could change no more than the
// sign of a sum that is zero itself, and kernels that subtract an offset cannot tell the two apart.
std::uint32_t plain_zeros(std::uint32_t codes) {
  const std::uint32_t not_zero = ((codes & 0x7777'7777u) + 0x7777'7777u) & 0x8888'8888u;
  return codes & (0x7777'7777u | not_zero);
}

template <StoredFormat F>
std::uint32_t eight_nibbles(const std::byte* row, std::int64_t k, std::int64_t left) {
  std::uint32_t codes = nibbles_at<F>(row, k, left);
  if (left < kOctet) {
    const std::uint32_t known = (1u << (4 * left)) - 1;
    codes = (codes & known) | (kZeroNibbles<F> & ~known);
  }
  return tile_format(F::id) == Format::mxfp4 || tile_format(F::id) == Format::nvfp4 ? plain_zeros(codes)
                                                                                    : codes;
}

void store_dword(std::uint32_t dword, std::byte* plane, std::int64_t vector, std::size_t lane) {
  std::memcpy(plane + (static_cast<std::size_t>(vector) * kStripRows + lane) * 4, &dword, 4);
}

// The codes of row `lane` of the inputs [first, first + k).
template <StoredFormat F>
void pack_codes(const std::byte* row, std::size_t lane, std::int64_t first, std::int64_t k, std::byte* tile) {
  constexpr TileInfo info = tile_info(tile_format(F::id));
  const std::int64_t octets = ceil_div(k, kOctet);
  for (std::int64_t octet = 0; octet < octets; ++octet) {
    const std::int64_t at = first + octet * kOctet, left = k - octet * kOctet;
    if constexpr (info.bits == 4) {
      store_dword(eight_nibbles<F>(row, at, left), tile, octet, lane);
    } else if constexpr (tile_info(F::id).in_steps) {
      const std::uint64_t bytes = eight_bytes<F>(row, at, left);
      for (int s = 0; s < kOctet; ++s)
        tile[static_cast<std::size_t>(octet * kOctet + s) * kStripRows + lane] =
            static_cast<std::byte>(bytes >> (8 * kChainOrder[s]));
    } else {
      const std::uint64_t bytes = eight_bytes<F>(row, at, left);
      store_dword(even_bytes(bytes), tile, 2 * octet, lane);
      store_dword(even_bytes(bytes >> 8), tile, 2 * octet + 1, lane);
    }
  }
  if constexpr (info.high_bits != 0) {
    constexpr int bits = info.high_bits, octets_a_dword = 4 / bits;
    std::byte* plane = tile + octets * 64;
    for (std::int64_t begin = 0; begin < octets; begin += octets_a_dword) {
      std::uint32_t dword = 0;
      for (int i = 0; i < octets_a_dword * kOctet; ++i)
        dword |= high_bits_at<F>(row, first + begin * kOctet + i)
                 << (i % 8 / 2 * 8 + i / 8 * 2 * bits + i % 2 * bits);
      store_dword(dword, plane, begin / octets_a_dword, lane);
    }
  }
}

// ---- scales into lines

void store_word(const std::byte* word, std::byte* line, std::size_t lane) {
  std::memcpy(line + lane * 2, word, 2);
}

// The scale of row `lane` that begins at value k.
template <StoredFormat F>
void pack_group_scale(const StripRows& rows, std::size_t lane, std::int64_t k, std::byte* line,
                      PackFindings& findings) {
  const std::byte* block = rows.codes[lane] + k / F::group * static_cast<std::int64_t>(F::code_bytes);
  const auto i = static_cast<int>(k % F::group);
  switch (F::id) {
    case Format::nvfp4:
      line[lane] = rows.scales[lane][k / F::group];
      return;
    case Format::gguf_nvfp4: {
      const std::byte scale = block[i / 16] & std::byte{0x7f};
      line[lane] = scale == std::byte{0x7f} ? std::byte{0} : scale;
      return;
    }
    case Format::mxfp8_e4m3:
    case Format::mxfp8_e5m2:
    case Format::mxint8:
      line[lane] = rows.scales[lane][k / F::group];
      findings.not_a_number |= line[lane] == std::byte{255};
      return;
    case Format::q4_1:
    case Format::q5_1:
      store_word(block + 2, line + 32, lane);
      return store_word(block, line, lane);
    case Format::q4_k:
    case Format::q5_k: {
      const auto of = ggml_detail::scale_and_minimum(block + 4, i / 32);
      line[lane] = static_cast<std::byte>(of.scale);
      line[kStripRows + lane] = static_cast<std::byte>(of.minimum);
      return;
    }
    case Format::q6_k:
      line[lane] = block[192 + i / 16];
      return;
    case Format::iq4_xs:
      line[lane] = static_cast<std::byte>(ggml_detail::iq4_xs_scale(block, i / 32) & 0xff);
      return;
    default:
      return store_word(block, line, lane);
  }
}

// What the block of value k has once.
template <StoredFormat F>
void pack_tile_scale(const std::byte* row, std::size_t lane, std::int64_t k, std::byte* line) {
  const std::byte* block = row + k / F::group * static_cast<std::int64_t>(F::code_bytes);
  store_word(block + (F::id == Format::q6_k ? 208 : 0), line, lane);
  if (F::id == Format::q4_k || F::id == Format::q5_k) store_word(block + 2, line + 32, lane);
}

// ---- strips

// A tile while it is made, its lines one after another; put() sends them to where the matrix has them.
class TileScratch {
 public:
  TileScratch(const PackedWeight& shape, std::int64_t k) : bytes_(tile_bytes(shape.format, k, shape.run())) {
    std::memset(lines_, 0, bytes_);
  }
  std::byte* data() { return lines_; }
  void put(const PackedWeight& shape, std::int64_t strip, std::int64_t tile, std::byte* out) const {
    const std::size_t stride = shape.line_stride(strip);
    std::byte* to = out + shape.tile_offset(strip, tile);
    for (std::size_t at = 0; at < bytes_; at += 64, to += stride) std::memcpy(to, lines_ + at, 64);
  }

 private:
  std::size_t bytes_;
  alignas(64) std::byte lines_[kTileK * kStripRows * sizeof(float)];  // of f32, which has the largest
};

// The scales of mxfp4, group after group of a row.
template <StoredFormat F>
class Exponents {
 public:
  // Begins with that of the first group that is not zero.
  explicit Exponents(const StripRows& rows, std::int64_t k) : rows_(rows) {
    std::fill(std::begin(carried_), std::end(carried_), std::uint8_t{127});
    for (std::size_t r = 0; r < kStripRows; ++r)
      for (std::int64_t at = 0; rows.codes[r] && at < k; at += 32)
        if (!zeros(r, at)) {
          carried_[r] = stored(r, at);
          break;
        }
  }
  std::uint8_t next(std::size_t r, std::int64_t at, PackFindings& findings) {
    const std::uint8_t scale = stored(r, at);
    findings.not_a_number |= scale == 255;
    if (!zeros(r, at)) {
      carried_[r] = scale;
      findings.scales = std::max(findings.scales, scale_range(scale));
    }
    return carried_[r];
  }
  std::uint8_t of_no_row() const { return 127; }

 private:
  std::uint8_t stored(std::size_t r, std::int64_t at) const {
    if constexpr (F::id == Format::gguf_mxfp4)
      return std::to_integer<std::uint8_t>(rows_.codes[r][at / 32 * 17]);
    return std::to_integer<std::uint8_t>(rows_.scales[r][at / 32]);
  }
  // All of 32 codes zero but for signs.
  bool zeros(std::size_t r, std::int64_t at) const {
    std::uint32_t any = 0;
    for (int octet = 0; octet < 4; ++octet) any |= nibbles_at<F>(rows_.codes[r], at + octet * kOctet, kOctet);
    return (any & 0x7777'7777u) == 0;
  }
  const StripRows& rows_;
  std::uint8_t carried_[kStripRows];
};

template <StoredFormat F>
PackFindings pack_tiles(const PackedWeight& shape, std::int64_t strip, const StripRows& rows,
                        std::byte* out) {
  constexpr TileInfo info = tile_info(tile_format(F::id));
  PackFindings findings;
  [[maybe_unused]] Exponents<F> exponents(rows, tile_format(F::id) == Format::mxfp4 ? shape.k : 0);
  for (std::int64_t first = 0; first < shape.k; first += kTileK) {
    const std::int64_t k = std::min(kTileK, shape.k - first), run = shape.run();
    TileScratch scratch(shape, k);
    std::byte* tile = scratch.data();
    const std::size_t codes = code_plane_bytes(info, k);
    for (std::size_t lane = 0; lane < kStripRows; ++lane) {
      if (rows.codes[lane]) pack_codes<F>(rows.codes[lane], lane, first, k, tile);
      std::byte* line = tile + codes;
      if constexpr (tile_format(F::id) == Format::mxfp4) {
        for (std::int64_t at = 0; at < k; at += 32, line += info.group_line)
          line[lane] = static_cast<std::byte>(rows.codes[lane] ? exponents.next(lane, first + at, findings)
                                                               : exponents.of_no_row());
      } else if (rows.codes[lane]) {
        if constexpr (info.group != 0)
          for (std::int64_t at = 0; at < k; at += info.group, line += info.group_line)
            pack_group_scale<F>(rows, lane, first + at, line, findings);
        if constexpr (info.tile_line != 0) pack_tile_scale<F>(rows.codes[lane], lane, first, line);
        if (info.shared && run > 0)
          for (std::int64_t at = 0; at < k; at += run, line += 64)
            std::memcpy(line + lane * 4, rows.scales[lane] + (first + at) / run * 4, 4);
      }
    }
    scratch.put(shape, strip, first / kTileK, out);
  }
  if (std::size_t bytes = shape.header_bytes()) {
    std::byte* header = out + shape.header_offset(strip);
    std::memset(header, 0, bytes);
    for (std::size_t lane = 0; lane < kStripRows; ++lane)
      if (rows.codes[lane])
        std::memcpy(header + lane * 4,
                    info.factor ? reinterpret_cast<const std::byte*>(&rows.factor[lane]) : rows.scales[lane],
                    4);
  }
  return findings;
}

// The values of an octet in their natural order; zeros past the last.
template <class Word>
struct OctetOf {
  Word values[kOctet] = {};
  OctetOf(const std::byte* row, std::int64_t at, std::int64_t k) {
    if (k - at >= kOctet) [[likely]]
      std::memcpy(values, row + static_cast<std::size_t>(at) * sizeof(Word), sizeof values);
    else
      std::memcpy(values, row + static_cast<std::size_t>(at) * sizeof(Word),
                  static_cast<std::size_t>(k - at) * sizeof(Word));
  }
};

// bf16: the pairs (j, j + 4) in one dword.
void pack_pairs(const std::byte* row, std::size_t lane, std::int64_t k, std::byte* tile) {
  for (std::int64_t at = 0; at < k; at += kOctet) {
    const OctetOf<std::uint16_t> octet(row, at, k);
    for (std::int64_t j = 0; j < kOctet / 2; ++j)
      store_dword(octet.values[j] | static_cast<std::uint32_t>(octet.values[j + 4]) << 16, tile, at / 2 + j,
                  lane);
  }
}

// f16 and f32: one vector a step in chain order.
template <class Word>
void pack_steps(const std::byte* row, std::size_t lane, std::int64_t k, std::byte* tile) {
  for (std::int64_t at = 0; at < k; at += kOctet) {
    const OctetOf<Word> octet(row, at, k);
    for (int s = 0; s < kOctet; ++s)
      std::memcpy(tile + (static_cast<std::size_t>(at + s) * kStripRows + lane) * sizeof(Word),
                  &octet.values[kChainOrder[s]], sizeof(Word));
  }
}

PackFindings pack_plain(const PackedWeight& shape, std::int64_t strip, StripRows rows, std::byte* out) {
  for (std::int64_t first = 0; first < shape.k; first += kTileK) {
    pack_plain_tile(shape, strip, first / kTileK, rows, out);
    for (const std::byte*& row : rows.codes)
      if (row) row += kTileK * format_info(shape.format).code_bytes;
  }
  return {};
}

}  // namespace

PackFindings pack_strip(Format stored, const PackedWeight& shape, std::int64_t strip, const StripRows& rows,
                        std::byte* out) {
  if (tile_info(shape.format).bits > 8) return pack_plain(shape, strip, rows, out);
  PackFindings findings;
  [[maybe_unused]] const bool known = visit_format(stored, [&](auto format) {
    constexpr TileInfo info = tile_info(tile_format(decltype(format)::id));
    if constexpr (info.bits == 4 || info.bits == 8)
      findings = pack_tiles<decltype(format)>(shape, strip, rows, out);
  });
  return findings;
}

void pack_plain_tile(const PackedWeight& shape, std::int64_t strip, std::int64_t tile, const StripRows& rows,
                     std::byte* out) {
  const std::int64_t k = std::min(kTileK, shape.k - tile * kTileK);
  TileScratch scratch(shape, k);
  for (std::size_t r = 0; r < kStripRows; ++r) {
    if (!rows.codes[r]) continue;
    if (shape.format == Format::bf16)
      pack_pairs(rows.codes[r], r, k, scratch.data());
    else if (shape.format == Format::f16)
      pack_steps<std::uint16_t>(rows.codes[r], r, k, scratch.data());
    else
      pack_steps<std::uint32_t>(rows.codes[r], r, k, scratch.data());
  }
  scratch.put(shape, strip, tile, out);
}

void place_weights(const PackedWeight& shape, std::int64_t count, std::byte* out, Pool& pool) {
  if (pool.threads() == 1) return;
  constexpr std::size_t kPage = 4096;  // the smallest of any system
  const std::size_t each = shape.bytes(), group = kGroupStrips * shape.strip_bytes();
  pool.run([&](int index, int threads) {
    const Range strips = strips_of_thread(shape.strips(), index, threads);
    // Four strips lie in turn: such a group is one thread's.
    const auto at = [&](std::int64_t strip) {
      return strip == shape.strips() ? each : static_cast<std::size_t>(strip / kGroupStrips) * group;
    };
    for (std::byte* matrix = out; matrix < out + static_cast<std::size_t>(count) * each; matrix += each)
      for (std::size_t byte = at(strips.begin); byte < at(strips.end); byte += kPage)
        *const_cast<volatile std::byte*>(matrix + byte) = std::byte{0};
  });
}

}  // namespace nib::inline v0
