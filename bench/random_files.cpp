// Files that are nowhere: a checkpoint whose weights are made while they are read.
#include "random_tensors.hpp"
#include <nibble/base/concat.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

namespace nib::bench {
namespace {

constexpr std::size_t kPattern = std::size_t{1} << 20;  // bytes after which weights repeat

// What both files are made of.
struct Contents {
  explicit Contents(const GptOssShape& shape) : config(config_text(shape)) {
    std::string json = "{";
    for (const RandomTensor& tensor : random_tensors(shape)) {
      const std::uint64_t end = body + bytes_of(tensor.spec);
      std::string size;
      for (const std::uint64_t dimension : tensor.spec.shape)
        size += concat(size.empty() ? "" : ",", dimension);
      json += concat(json.size() > 1 ? "," : "", "\"", tensor.spec.name, "\":{\"dtype\":\"",
                     tensor.spec.dtype == DType::bf16 ? "BF16" : "U8", "\",\"shape\":[", size,
                     "],\"data_offsets\":[", body, ",", end, "]}");
      // Another place of the pattern for each, but a whole number of words.
      tensors.push_back({body, tensor.draw, tensors.size() * 4104 % kPattern});
      body = end;
    }
    json += "}";
    while (json.size() % 8) json += ' ';
    header.resize(8);
    for (unsigned i = 0; i < 8; ++i) header[i] = static_cast<char>(json.size() >> 8 * i);
    header += json;
    Random random;
    for (std::size_t kind = 0; kind < patterns.size(); ++kind) {
      patterns[kind].resize(2 * kPattern);
      for (std::size_t i = 0; i < kPattern; i += 8) {
        const std::uint64_t word = draw(static_cast<Draw>(kind), random.next());
        std::memcpy(&patterns[kind][i], &word, 8);
      }
      std::copy_n(patterns[kind].begin(), kPattern, patterns[kind].begin() + kPattern);
    }
  }

  struct Place {
    std::uint64_t begin;  // in the body
    Draw draw;
    std::size_t phase;
  };
  std::string config, header;
  std::vector<Place> tensors;
  std::uint64_t body = 0;
  std::array<std::vector<std::byte>, 4> patterns;  // of each kind, twice
};

class ConfigFile : public File {
 public:
  ConfigFile(std::string name, const Contents& contents) : File(std::move(name)), contents_(contents) {}
  std::uint64_t size() const override { return contents_.config.size(); }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset + out.size() > size()) return Status(Code::io, concat(name(), ": is shorter"));
    std::memcpy(out.data(), contents_.config.data() + offset, out.size());
    return {};
  }

 private:
  const Contents& contents_;
};

class WeightFile : public File {
 public:
  WeightFile(std::string name, const Contents& contents) : File(std::move(name)), contents_(contents) {}
  std::uint64_t size() const override { return contents_.header.size() + contents_.body; }
  Status read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > size() || out.size() > size() - offset)
      return Status(Code::io, concat(name(), ": is shorter"));
    const std::uint64_t header = contents_.header.size();
    if (offset < header) {
      const auto some = static_cast<std::size_t>(std::min<std::uint64_t>(header - offset, out.size()));
      std::memcpy(out.data(), contents_.header.data() + offset, some);
      out = out.subspan(some);
      offset += some;
    }
    for (std::uint64_t at = offset - header; !out.empty();) {
      const auto next =
          std::upper_bound(contents_.tensors.begin(), contents_.tensors.end(), at,
                           [](std::uint64_t value, const Contents::Place& p) { return value < p.begin; });
      const Contents::Place& place = *(next - 1);
      const std::uint64_t end = next == contents_.tensors.end() ? contents_.body : next->begin;
      const std::size_t from = (at - place.begin + place.phase) % kPattern;
      const auto some = static_cast<std::size_t>(
          std::min({end - at, std::uint64_t{kPattern}, static_cast<std::uint64_t>(out.size())}));
      std::memcpy(out.data(), contents_.patterns[static_cast<std::size_t>(place.draw)].data() + from, some);
      out = out.subspan(some);
      at += some;
    }
    return {};
  }

 private:
  const Contents& contents_;
};

class RandomFiles : public FileSystem {
 public:
  explicit RandomFiles(const GptOssShape& shape) : contents_(shape) {}
  PathKind kind(const std::string& path) const override {
    if (path == "random") return PathKind::directory;
    return path == "random/config.json" || path == "random/model.safetensors" ? PathKind::file
                                                                              : PathKind::missing;
  }
  Result<std::unique_ptr<File>> open(const std::string& path) const override {
    if (path == "random/config.json") return std::unique_ptr<File>(new ConfigFile(path, contents_));
    if (path == "random/model.safetensors") return std::unique_ptr<File>(new WeightFile(path, contents_));
    return Status(Code::not_found, concat(path, ": there is no such file"));
  }
  Result<std::vector<std::string>> list_directory(const std::string&) const override {
    return std::vector<std::string>{"config.json", "model.safetensors"};
  }

 private:
  Contents contents_;
};

}  // namespace

std::unique_ptr<FileSystem> random_gpt_oss_files(const GptOssShape& shape) {
  return std::make_unique<RandomFiles>(shape);
}

}  // namespace nib::bench
