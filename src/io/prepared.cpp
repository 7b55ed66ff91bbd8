#include "checkpoint_parts.hpp"
#include "text.hpp"
#include <nibble/base/bits.hpp>
#include <nibble/base/concat.hpp>
#include <nibble/base/json.hpp>
#include <nibble/io/prepared.hpp>

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>
#include <vector>

namespace nib::inline v0 {
namespace {

constexpr std::string_view kLayoutKey = "nibble.layout", kPacked = "packed/";
// A model of 200,000 tensors, whose values in a tree take a hundred bytes each.
constexpr JsonLimits kDescriptionLimits = {.max_bytes = 64 << 20, .max_depth = 8, .max_values = 4'000'000};
constexpr std::size_t kMostDimensions = 16;

Json json_of(std::uint64_t value) { return Json::of(static_cast<std::int64_t>(value)); }

const std::string* layout_of(const SafetensorsHeader& header) {
  for (const auto& [key, value] : header.metadata)
    if (key == kLayoutKey) return &value;
  return nullptr;
}

Format format_named(std::string_view name) {
  for (const FormatInfo& info : kFormats)
    if (name == info.name) return info.format;
  return Format::none;
}

// Reads the description of one file, of which nothing is believed.
class Description {
 public:
  Description(const SafetensorsHeader& header, std::uint32_t file, Checkpoint& out)
      : file_(file), name_(out.files[file]->name()), out_(out) {
    for (const TensorEntry& entry : header.tensors) stored_[entry.name] = &entry;
  }

  Status read() {
    NIB_ASSIGN(const Json json, text());
    const Json* tensors = list(json, "tensors");
    const Json* matrices = list(json, "matrices");
    if (!tensors || !matrices)
      return bad(concat(kPreparedDescription, " has no lists `tensors` and `matrices`"));
    out_.tensors.reserve(tensors->items().size());
    for (const Json& item : tensors->items()) NIB_TRY(add_tensor(item));
    for (const Json& item : matrices->items()) NIB_TRY(add_matrix(item));
    return sort();
  }

 private:
  Status bad(std::string sentence) const { return {Code::format, concat(name_, ": ", sentence)}; }

  static const Json* list(const Json& object, std::string_view key) {
    const Json* found = object.find(key);
    return found && found->is_array() ? found : nullptr;
  }
  static std::string_view text_at(const Json& object, std::string_view key) {
    const Json* found = object.find(key);
    return found && found->is_string() ? std::string_view(found->as_string()) : std::string_view();
  }
  static bool is_count(const Json* value) { return value && value->is_integer() && value->as_integer() >= 0; }

  Result<Json> text() const {
    const auto found = stored_.find(kPreparedDescription);
    if (found == stored_.end())
      return bad(concat("has no tensor ", kPreparedDescription, ", which says what was packed"));
    const TensorEntry& entry = *found->second;
    if (entry.bytes > kDescriptionLimits.max_bytes)
      return bad(concat("tensor ", kPreparedDescription, " has ", entry.bytes, " bytes, at most ",
                        kDescriptionLimits.max_bytes, " are read"));
    std::string text(entry.bytes, '\0');
    NIB_TRY(out_.files[file_]->read_at(entry.offset, std::as_writable_bytes(std::span(text))));
    return parse_json(text, concat(name_, ": tensor ", kPreparedDescription), kDescriptionLimits);
  }

  Status add_tensor(const Json& item) {
    CheckpointTensor tensor;
    tensor.name = text_at(item, "name");
    const auto of = [&](std::string_view what) {
      return bad(concat("tensor ", quoted(tensor.name), " is described without ", what));
    };
    tensor.format = format_named(text_at(item, "format"));
    if (tensor.format == Format::none) return of("a weight format that is known here");
    tensor.type_name = format_name(tensor.format);
    const auto dtype = find_dtype(text_at(item, "dtype"));
    if (!dtype) return of("a dtype that is known here");
    tensor.dtype = *dtype;
    const Json* bytes = item.find("bytes");
    if (!is_count(bytes)) return of("a number of bytes");
    tensor.codes.bytes = static_cast<std::uint64_t>(bytes->as_integer());
    const Json* shape = list(item, "shape");
    if (!shape || shape->items().size() > kMostDimensions) return of("a shape");
    std::optional<std::uint64_t> values = 1;
    for (const Json& size : shape->items()) {
      if (!is_count(&size)) return of("a shape");
      tensor.shape.push_back(static_cast<std::uint64_t>(size.as_integer()));
      if (values) values = checked_mul(*values, tensor.shape.back());
    }
    if (!values) return of("a shape whose values can be counted");
    if (!read_sharing(item, tensor.scaling.sharing)) return of("a list of three numbers as `sharing`");
    NIB_TRY(place(*values, tensor));
    out_.tensors.push_back(std::move(tensor));
    return {};
  }

  static bool read_sharing(const Json& item, ScaleSharing& sharing) {
    const Json* found = item.find("sharing");
    if (!found) return true;
    if (!found->is_array() || found->items().size() != 3) return false;
    for (const Json& number : found->items())
      if (!is_count(&number)) return false;
    sharing = {found->items()[0].as_integer(), found->items()[1].as_integer(),
               found->items()[2].as_integer()};
    return true;
  }

  // A tensor of that name in the file holds it as it was; otherwise it is packed into a matrix.
  Status place(std::uint64_t values, CheckpointTensor& tensor) const {
    tensor.codes.file = Plane::kNowhere;
    const auto found = stored_.find(tensor.name);
    if (found == stored_.end()) return {};
    const TensorEntry& entry = *found->second;
    const FormatInfo& info = format_info(tensor.format);
    const bool one_plane = info.scales == Scales::none || info.scales == Scales::inside;
    const auto bytes = checked_mul(values / info.group, info.code_bytes);
    if (!one_plane || values % info.group != 0 || bytes != entry.bytes)
      return bad(concat("tensor ", quoted(tensor.name), " is described as ", info.name, " ",
                        shape_text(tensor.shape), ", and ", entry.bytes, " bytes are stored"));
    tensor.codes = {file_, entry.offset, entry.bytes};
    return {};
  }

  Status add_matrix(const Json& item) {
    const std::string_view name = text_at(item, "name");
    const auto found = stored_.find(prepared_name(name));
    if (found == stored_.end())
      return bad(concat("has no tensor ", quoted(prepared_name(name)), ", which is described"));
    const TensorEntry& entry = *found->second;
    if (entry.dtype != DType::u8 || entry.shape.size() != 2)
      return bad(concat("tensor ", quoted(entry.name), " is ", dtype_name(entry.dtype), " ",
                        shape_text(entry.shape), ", expected U8 [records, bytes of each]"));
    const Json* finding = item.find("finding");
    if (!is_count(finding) || finding->as_integer() > 9)
      return bad(concat("matrix ", quoted(name), " is described without a digit as `finding`"));
    out_.prepared->matrices[std::string(name)] = {{file_, entry.offset, entry.bytes},
                                                  entry.shape[0],
                                                  entry.shape[1],
                                                  static_cast<std::uint8_t>(finding->as_integer())};
    return {};
  }

  Status sort() {
    auto& tensors = out_.tensors;
    const auto by_name = [](const CheckpointTensor& a, const CheckpointTensor& b) { return a.name < b.name; };
    std::sort(tensors.begin(), tensors.end(), by_name);
    const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                          [](const auto& a, const auto& b) { return a.name == b.name; });
    return twice == tensors.end() ? Status()
                                  : bad(concat("tensor ", quoted(twice->name), " is described twice"));
  }

  std::uint32_t file_;
  const std::string& name_;
  Checkpoint& out_;
  std::map<std::string_view, const TensorEntry*, std::less<>> stored_;
};

}  // namespace

std::string prepared_name(std::string_view first_tensor) { return concat(kPacked, first_tensor); }

SafetensorsMetadata prepared_metadata(std::uint32_t layout) {
  return {{"format", "nibble"}, {std::string(kLayoutKey), concat(layout)}};
}

std::string describe_prepared(std::span<const CheckpointTensor* const> tensors,
                              std::span<const PreparedName> matrices) {
  std::vector<Json> of_tensors, of_matrices;
  for (const CheckpointTensor* tensor : tensors) {
    std::vector<Json> shape;
    for (const std::uint64_t size : tensor->shape) shape.push_back(json_of(size));
    std::vector<Json::Member> members;
    members.emplace_back("name", Json::of(tensor->name));
    members.emplace_back("format", Json::of(std::string(format_name(tensor->format))));
    members.emplace_back("dtype", Json::of(std::string(dtype_name(tensor->dtype))));
    members.emplace_back("shape", Json::array(std::move(shape)));
    members.emplace_back("bytes", json_of(stored_bytes(*tensor)));
    if (const ScaleSharing& sharing = tensor->scaling.sharing; sharing != ScaleSharing())
      members.emplace_back(
          "sharing", Json::array({Json::of(sharing.rows), Json::of(sharing.columns), Json::of(sharing.run)}));
    of_tensors.push_back(Json::object(std::move(members)));
  }
  for (const PreparedName& matrix : matrices)
    of_matrices.push_back(Json::object(
        {{"name", Json::of(std::string(matrix.first_tensor))}, {"finding", json_of(matrix.finding)}}));
  return write_json(Json::object(
      {{"tensors", Json::array(std::move(of_tensors))}, {"matrices", Json::array(std::move(of_matrices))}}));
}

bool is_prepared(const SafetensorsHeader& header) { return layout_of(header) != nullptr; }

Status open_prepared(const SafetensorsHeader& header, std::uint32_t file, Checkpoint& checkpoint) {
  const std::string& text = *layout_of(header);
  Prepared& prepared = checkpoint.prepared.emplace();
  const auto read = std::from_chars(text.data(), text.data() + text.size(), prepared.layout);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size())
    return {Code::format, concat(checkpoint.files[file]->name(), ": ", kLayoutKey, " is ", quoted(text),
                                 ", expected a number")};
  return Description(header, file, checkpoint).read();
}

}  // namespace nib::inline v0
