// What a random checkpoint consists of, written to a disk or not.
#pragma once

#include "random_checkpoint.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/io/safetensors_writer.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace nib::bench {

// splitmix64: fast, and any seed will do.
class Random {
 public:
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e37'79b9'7f4a'7c15u;
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9u;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11ebu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_ = 1;
};

// What the bytes of a tensor are drawn from.
enum class Draw { weight, norm, codes, scales };

struct RandomTensor {
  TensorSpec spec;
  Draw draw;
};

// Eight random bytes of a kind. `weight`: four bf16 of magnitude 2^-8 .. 2^-4; `norm`: of 1 .. 2; `codes`:
// any sixteen E2M1; `scales`: E8M0 of 2^-9 .. 2^-6.
std::uint64_t draw(Draw kind, std::uint64_t random);

// All of them, in the order of the file; the bytes of one; and its config.json.
std::vector<RandomTensor> random_tensors(const GptOssShape& shape);
std::uint64_t bytes_of(const TensorSpec& spec);
std::string config_text(const GptOssShape& shape);

}  // namespace nib::bench
