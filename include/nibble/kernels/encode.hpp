// Room kernels: encoders: floats into the bytes of a format, and how far from them a reader's values will be,
// in one pass.
//
// The bytes are those of the definitions in formats/, bit for bit and for every input: NaN, infinities,
// subnormals, in whatever floating-point environment the caller is. There is an encoder for every format that
// nibble writes: tables of fast ones for processors with AVX-512 and with AVX2, and the definitions for what
// is not in them.
#pragma once

#include <nibble/base/machine.hpp>
#include <nibble/formats/format.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace nib::inline v0 {

// Values that follow one another in a row, and their place in the planes.
struct EncodeCall {
  const float* values;
  std::int64_t count;             // whole groups of the format
  std::byte* codes;               // code_bytes a group
  std::byte* scales = nullptr;    // scale_bytes a group, of formats with a plane of them
  float tensor_scale = 1;         // of formats that have one
  std::int64_t run = 0;           // of formats with shared scales: so many values share one
  const float* run_scales = {};   // one a run, the last of which may be short
  const float* read_scales = {};  // what a reader will have in their place
};

// Sums of squares: of the values, and of what a reader will have minus the value. The order of operations is
// part of the definition, so they are the same on every machine. A run (a call, where nothing is shared) goes
// in chunks of 32 values, the last of which may be short. Of eight chunks of a call after another, the
// squares of values i and i + 16 of each are added in f32 by fused multiply-adds, in that order; these sums
// to s[i % 16] in double, eight chunks after eight; then t[i] = s[i] + s[i + 8], and the total is ((t0 + t4)
// + (t2 + t6)) + ((t1 + t5) + (t3 + t7)). Where a total is not finite, or the signal less than 2^-100 a
// value, f32 cannot hold the squares: there both are formed again with squares and sums in double.
struct Noise {
  double signal = 0, noise = 0;
};

using EncodeFunction = Noise (*)(const EncodeCall&);
using MeasureFunction = void (*)(const float* values, std::int64_t count, std::int64_t run, float* largest);

// Words of 16 bits, as they lie in a file, to floats: exactly; NaN stays NaN.
using WidenFunction = void (*)(const std::byte* words, std::int64_t count, float* values);
struct Wideners {
  WidenFunction bf16, f16;
};

// The encoders of one instruction set. The functions are for Encoder to call.
struct EncoderTable {
  struct Row {
    Format format;
    ScaleRule rule;
    EncodeFunction with_noise, without;  // the former without the last sentence of Noise
  };
  const char* name;
  bool (*present)(const CpuFeatures&);
  std::span<const Row> rows;
  MeasureFunction measure;
  Wideners widen;
};

// Writes one format by one scale rule. Plain data; any thread.
class Encoder {
 public:
  // The bytes and the noise; or the bytes alone, for half the arithmetic.
  Noise encode(const EncodeCall& call) const;
  void encode_bytes(const EncodeCall& call) const;

  // What formats with shared scales need first: largest[i] (zero to begin with) grows to the largest
  // magnitude of run i, where infinity and NaN are above all numbers; and the scale of values of that largest
  // magnitude, a division in the caller's floating-point environment.
  void measure(const float* values, std::int64_t count, std::int64_t run, float* largest) const;
  float scale_of(float largest) const { return scale_of_(largest); }

  // Of the tables of this build, best first, those that the features allow.
  friend std::optional<Encoder> find_encoder(Format format, ScaleRule rule, const CpuFeatures& features);

 private:
  EncodeFunction with_noise_ = nullptr, without_ = nullptr;
  EncodeFunction noise_in_double_ = nullptr;
  MeasureFunction measure_ = nullptr;
  float (*scale_of_)(float) = nullptr;
};

// Nothing when the format is none that nibble writes, or has no such rule. ScaleRule::floor of MXFP4 is its
// usual one.
std::optional<Encoder> find_encoder(Format format, ScaleRule rule, const CpuFeatures& features);

// What brings plain values to where encoders read them. Any thread.
Wideners find_wideners(const CpuFeatures& features);

}  // namespace nib::inline v0
