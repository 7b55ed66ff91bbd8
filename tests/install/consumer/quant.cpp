// A program that takes the formats alone.
#include <nibble/formats/mxfp4.hpp>
#include <nibble/formats/quantize.hpp>

#include <cstddef>
#include <cstdio>

int main() {
  float values[32], back[32];
  for (int i = 0; i < 32; ++i) values[i] = nib::E2M1::decode(static_cast<nib::E2M1::Code>(i % 16));
  std::byte codes[16], scale[1];
  nib::quantize_rows<nib::Mxfp4>(values, 1, 32, codes, scale);
  nib::Mxfp4::decode_group(codes, scale, back);
  for (int i = 0; i < 32; ++i)
    if (back[i] != values[i]) return 1;
  std::puts("32 values, 17 bytes, nothing lost");
  return 0;
}
