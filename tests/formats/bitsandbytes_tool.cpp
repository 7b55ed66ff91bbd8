// Quantizes what bitsandbytes_peer.py asks for: reads a request from the file named first, writes the answer
// to the file named second. Little-endian, without padding.
//   request   int32 kind (0 nf4, 1 fp4), int32 blocksize, int64 count, f32 offset, count f32 values
//   answer    the packed codes, f32 absmax, nested codes, f32 nested absmax, f32 scales read back, f32 values
//             read back under them, f32 map [256]
#include <nibble/formats/double_quantization.hpp>
#include <nibble/formats/quantize.hpp>
#include <nibble/formats/reference.hpp>

#include <cstdint>
#include <fstream>
#include <vector>

namespace {

template <class T>
T take(std::ifstream& in) {
  T value{};
  in.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}
template <class T>
void put(std::ofstream& out, const std::vector<T>& values) {
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
}

template <class F>
void answer(const std::vector<float>& values, std::int64_t blocksize, float offset, std::ofstream& out) {
  const auto count = static_cast<std::int64_t>(values.size());
  const nib::ScaleSharing sharing = nib::ScaleSharing::per_run(blocksize);
  const std::int64_t blocks = sharing.count(1, count);
  std::vector<std::byte> codes(values.size() / 2), nested(static_cast<std::size_t>(blocks));
  std::vector<float> absmax(nested.size()), nested_absmax((nested.size() + 255) / 256), scales(nested.size()),
      back(values.size());
  nib::quantize_shared<F>(values.data(), 1, count, sharing, codes.data(), absmax.data());
  nib::nest_scales(absmax.data(), blocks, offset, nested.data(), nested_absmax.data());
  const nib::NestedScales read{nested.data(), nib::kDynamicMap.level, nested_absmax.data(), offset};
  for (std::int64_t i = 0; i < blocks; ++i) scales[static_cast<std::size_t>(i)] = read[i];
  nib::decode_row(nib::EncodedMatrix{F::id, 1, count, codes.data(),
                                     reinterpret_cast<const std::byte*>(scales.data()), sharing},
                  0, back.data());
  put(out, codes);
  put(out, absmax);
  put(out, nested);
  put(out, nested_absmax);
  put(out, scales);
  put(out, back);
  put(out, std::vector<float>(nib::kDynamicMap.level, nib::kDynamicMap.level + 256));
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  std::ifstream in(arguments[1], std::ios::binary);
  std::ofstream out(arguments[2], std::ios::binary);
  const auto kind = take<std::int32_t>(in), blocksize = take<std::int32_t>(in);
  std::vector<float> values(static_cast<std::size_t>(take<std::int64_t>(in)));
  const auto offset = take<float>(in);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * 4));
  if (kind == 0)
    answer<nib::Nf4>(values, blocksize, offset, out);
  else
    answer<nib::BnbFp4>(values, blocksize, offset, out);
  return in && out ? 0 : 1;
}
