#include "gguf_keys.hpp"
#include "model_directory.hpp"
#include "weight_packer.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/base/within_memory.hpp>
#include <nibble/io/gguf_writer.hpp>
#include <nibble/io/prepared.hpp>
#include <nibble/io/safetensors_writer.hpp>
#include <nibble/model/prepare.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kBytesAtOnce = std::uint64_t{64} << 20;  // packed, and then written
constexpr const char* kFileName = "model.safetensors";

}  // namespace

class Preparation {
 public:
  Preparation(const Checkpoint& checkpoint, const PrepareOptions& options, Pool& pool,
              const FileSystem& files)
      : checkpoint_(checkpoint),
        options_(options),
        pool_(pool),
        files_(files),
        packer_(checkpoint, pool, options.cancel) {}

  Result<PrepareReport> write(const std::string& path) {
    NIB_TRY(plan());
    // Before anything is packed: whether it may be written at all.
    NIB_ASSIGN(OutputDirectory directory, OutputDirectory::create(path, options_.overwrite));
    NIB_TRY(copy_companions(checkpoint_, files_, directory));
    NIB_TRY(write_config(directory));
    NIB_TRY(write_weights(directory));
    NIB_TRY(read_back(directory));
    NIB_TRY(directory.publish());
    // Too late to stop: whatever the answer is.
    options_.progress({Stage::quantize, total_, total_, checkpoint_.path});
    return report_;
  }

 private:
  using Matrix = WeightLayout::Matrix;
  using Vector = WeightLayout::Vector;

  static std::uint64_t record_bytes(const Matrix& m) {
    return round_up<std::uint64_t>(m.shape().bytes(), kPreparedAlignment);
  }
  static const std::string& name_of(const Matrix& m) { return m.stored.tensors[0]->name; }

  // --- what is written

  Status plan() {
    NIB_ASSIGN(const ModelConfig config, read_config(checkpoint_));
    NIB_ASSIGN(layout_, WeightLayout::make(checkpoint_, config));
    std::set<const CheckpointTensor*> kept = {layout_->embedding_};
    layout_->each_vector(
        [&](const Vector& v) { kept.insert(v.stored.tensors.begin(), v.stored.tensors.end()); });
    std::set<const CheckpointTensor*> described = kept;
    layout_->each_matrix([&](const Matrix& m) {
      matrices_.push_back(&m);
      names_.push_back({name_of(m), 0});
      described.insert(m.stored.tensors.begin(), m.stored.tensors.end());
      specs_.push_back({prepared_name(name_of(m)),
                        DType::u8,
                        {static_cast<std::uint64_t>(m.stored.experts), record_bytes(m)}});
      total_ += m.bytes();
    });
    const auto by_name = [](const CheckpointTensor* a, const CheckpointTensor* b) {
      return a->name < b->name;
    };
    kept_.assign(kept.begin(), kept.end());
    described_.assign(described.begin(), described.end());
    std::sort(kept_.begin(), kept_.end(), by_name);
    std::sort(described_.begin(), described_.end(), by_name);
    std::vector<TensorSpec> others;
    for (const CheckpointTensor* tensor : kept_) {
      const bool plain = tensor_bytes(tensor->dtype, tensor->shape) == tensor->codes.bytes;
      others.push_back({tensor->name, plain ? tensor->dtype : DType::u8,
                        plain ? tensor->shape : std::vector<std::uint64_t>{tensor->codes.bytes}});
      total_ += tensor->codes.bytes;
    }
    order_by_width(others);
    specs_.insert(specs_.end(), others.begin(), others.end());
    specs_.push_back({kPreparedDescription, DType::u8, {describe_prepared(described_, names_).size()}});
    report_.matrices = matrices_.size();
    report_.others = kept_.size();
    for (const TensorSpec& spec : specs_) report_.bytes += tensor_bytes(spec.dtype, spec.shape).value_or(0);
    return {};
  }

  Status write_config(const OutputDirectory& directory) const {
    if (!checkpoint_.gguf)
      return write_file(directory.at("config.json"), write_json(checkpoint_.config, true) + "\n");
    const auto type = checkpoint_.gguf->find("general.file_type");
    const auto number = type ? type->as_unsigned() : std::nullopt;
    const GgufPairs pairs = gguf_keys_of(*checkpoint_.gguf, static_cast<std::uint32_t>(number.value_or(0)));
    NIB_ASSIGN(GgufWriter writer, GgufWriter::create(directory.at(kPreparedGguf), pairs, {}));
    return writer.finish();
  }

  // --- the weights

  Status write_weights(const OutputDirectory& directory) {
    std::uint64_t most = kBytesAtOnce;
    for (const Matrix* m : matrices_) most = std::max(most, m->shape().bytes());
    NIB_ASSIGN(packed_, Buffer::make(most, memory_, Purpose::staging, "the bytes of an expert"));
    NIB_ASSIGN(Buffer staging, Buffer::make(layout_->staging_bytes(pool_.threads()), memory_, Purpose::staging,
                                            "the buffers for reading weights"));
    packer_.use(std::move(staging));
    NIB_ASSIGN(SafetensorsWriter writer,
               SafetensorsWriter::create(directory.at(kFileName), specs_, prepared_metadata(kPackedLayout),
                                         Overwrite::no, kPreparedAlignment));
    for (std::size_t i = 0; i < matrices_.size(); ++i) {
      NIB_ASSIGN(const ScaleRange scales, write_matrix(*matrices_[i], writer));
      names_[i].finding = static_cast<std::uint8_t>(scales);
    }
    for (const CheckpointTensor* tensor : kept_) NIB_TRY(write_kept(*tensor, writer));
    const std::string description = describe_prepared(described_, names_);
    NIB_TRY(writer.write(kPreparedDescription, 0, std::as_bytes(std::span(description))));
    return writer.finish();
  }

  Result<ScaleRange> write_matrix(const Matrix& m, SafetensorsWriter& writer) {
    const std::string name = prepared_name(name_of(m));
    const std::uint64_t each = m.shape().bytes(), record = record_bytes(m);
    const auto at_once = static_cast<std::int64_t>(std::max<std::uint64_t>(packed_.size() / each, 1));
    const std::vector<std::byte> padding(record - each);
    ScaleRange range = ScaleRange::narrow;
    for (std::int64_t first = 0; first < m.stored.experts; first += at_once) {
      NIB_TRY(step(name_of(m)));
      const Range experts{first, std::min(first + at_once, m.stored.experts)};
      std::memset(packed_.data(), 0, static_cast<std::size_t>(experts.size()) * each);
      NIB_ASSIGN(const ScaleRange scales, packer_.pack(m, experts, packed_.data()));
      range = std::max(range, scales);
      for (std::int64_t e = 0; e < experts.size(); ++e) {
        const std::uint64_t at = static_cast<std::uint64_t>(experts.begin + e) * record;
        const std::byte* from = packed_.data() + static_cast<std::uint64_t>(e) * each;
        NIB_TRY(writer.write(name, at, {from, each}));
        NIB_TRY(writer.write(name, at + each, padding));
      }
      done_ += static_cast<std::uint64_t>(experts.size()) * each;
    }
    return range;
  }

  Status write_kept(const CheckpointTensor& tensor, SafetensorsWriter& writer) {
    for (std::uint64_t at = 0; at < tensor.codes.bytes; at += packed_.size()) {
      NIB_TRY(step(tensor.name));
      const auto some =
          packed_.as<std::byte>().first(std::min<std::uint64_t>(packed_.size(), tensor.codes.bytes - at));
      NIB_TRY(read_plane(checkpoint_, tensor.codes, at, some));
      NIB_TRY(writer.write(tensor.name, at, some));
      done_ += some.size();
    }
    return {};
  }

  Status step(std::string_view name) {
    const bool stop = options_.progress({Stage::quantize, done_, total_, name});
    if (!stop && !packer_.stopped()) return {};
    return {Code::stopped, concat(checkpoint_.path, ": stopped while it was being prepared")};
  }

  // Headers alone: whether what was written can be opened.
  Status read_back(const OutputDirectory& directory) const {
    NIB_ASSIGN(const Checkpoint written, open_checkpoint(directory_of(directory.at(kFileName))));
    NIB_ASSIGN(const ModelConfig config, read_config(written));
    return WeightLayout::make(written, config).status();
  }

  const Checkpoint& checkpoint_;
  const PrepareOptions& options_;
  Pool& pool_;
  const FileSystem& files_;
  Memory memory_;  // outlives the buffers
  WeightPacker packer_;
  std::optional<WeightLayout> layout_;
  std::vector<const Matrix*> matrices_;
  std::vector<PreparedName> names_;                        // of each matrix
  std::vector<const CheckpointTensor*> kept_, described_;  // the first are among the second
  std::vector<TensorSpec> specs_;
  Buffer packed_;
  std::uint64_t total_ = 0, done_ = 0;  // bytes
  PrepareReport report_;
};

Result<PrepareReport> prepare_checkpoint(const Checkpoint& checkpoint, const std::string& path,
                                         const PrepareOptions& options, Pool& pool, const FileSystem& files) {
  return within_memory(path, [&]() -> Result<PrepareReport> {
    if (path.ends_with(".gguf"))
      return Status(Code::argument, concat(path, ": a prepared model is a directory, not a GGUF file"));
    NIB_TRY(check_rewritable(checkpoint, path, true));
    return Preparation(checkpoint, options, pool, files).write(path);
  });
}

}  // namespace nib::inline v0
