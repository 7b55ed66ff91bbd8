#include "model_directory.hpp"

#include <nibble/base/concat.hpp>

#include <filesystem>
#include <memory>
#include <system_error>

namespace nib::inline v0 {
namespace {

constexpr std::uint64_t kMostCompanionBytes = std::uint64_t{256} << 20;
// What a model's directory holds beside its weights and config.json, and goes over as it is.
constexpr const char* kCompanions[] = {"generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "chat_template.jinja",
                                       "chat_template.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "tokenizer.model",
                                       "LICENSE",
                                       "LICENSE.txt",
                                       "USE_POLICY.md",
                                       "USAGE_POLICY",
                                       "NOTICE"};

// Whatever `path` leads to, by any name.
bool same_file(const std::string& a, const std::string& b) {
  std::error_code error;
  return std::filesystem::equivalent(a, b, error) && !error;
}

}  // namespace

Status check_rewritable(const Checkpoint& checkpoint, const std::string& path, bool directory) {
  if (checkpoint.prepared)
    return {Code::unsupported,
            concat(checkpoint.path, ": was prepared, its values are packed; give the model it was made of")};
  bool same = directory && same_file(path, checkpoint.directory);
  for (const auto& file : checkpoint.files) same = same || same_file(path, file->name());
  if (same)
    return {Code::argument, concat(path, ": is where the model is read from; write it to another place")};
  return {};
}

Status copy_companions(const Checkpoint& checkpoint, const FileSystem& files,
                       const OutputDirectory& directory) {
  if (checkpoint.gguf) return {};  // it holds all of that
  std::string beside = checkpoint.directory;
  if (checkpoint.tokenizer_path) beside = directory_of(*checkpoint.tokenizer_path);
  for (const char* name : kCompanions) {
    std::string from = join_path(checkpoint.directory, name);
    if (!files.exists(from)) from = join_path(beside, name);
    if (!files.exists(from) || files.is_directory(from)) continue;
    NIB_ASSIGN(const std::unique_ptr<File> file, files.open(from));
    NIB_ASSIGN(const std::string content, read_all(*file, kMostCompanionBytes));
    NIB_TRY(write_file(directory.at(name), content));
  }
  return {};
}

}  // namespace nib::inline v0
