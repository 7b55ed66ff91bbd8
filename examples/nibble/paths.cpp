#include "paths.hpp"

#include <nibble/base/concat.hpp>
#include <nibble/io/file.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

namespace nib::program {
namespace {

constexpr std::uint64_t kMostReferenceBytes = 256;  // refs/main holds a commit

// "owner/name", both made of what Hugging Face allows.
bool is_repository(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  };
  const auto is_name = [&](std::string_view part) {
    return !part.empty() && part.front() != '.' && std::all_of(part.begin(), part.end(), allowed);
  };
  return slash != std::string_view::npos && is_name(text.substr(0, slash)) && is_name(text.substr(slash + 1));
}

// The first of these that the user's settings name; as huggingface_hub looks for it.
std::string hugging_face_cache(const Places& places) {
  const auto& environment = places.environment;
  if (const std::string hub = environment("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return join_path(home, "hub");
  std::string cache = environment("XDG_CACHE_HOME");
  if (cache.empty()) {
    const std::string home = environment("HOME");
    if (home.empty()) return {};
    cache = join_path(home, ".cache");
  }
  return join_path(cache, "huggingface/hub");
}

// A repository's folder holds snapshots/COMMIT/files and names the newest commit in refs/main.
std::string newest_snapshot(const std::string& repository) {
  const FileSystem& files = disk_file_system();
  const std::string snapshots = join_path(repository, "snapshots");
  if (auto reference = files.open(join_path(repository, "refs/main")); reference.ok()) {
    if (auto text = read_all(**reference, kMostReferenceBytes); text.ok()) {
      std::string commit = text.take();
      while (!commit.empty() && (commit.back() == '\n' || commit.back() == ' ')) commit.pop_back();
      const std::string path = join_path(snapshots, commit);
      if (!commit.empty() && commit.find('/') == std::string::npos && files.is_directory(path)) return path;
    }
  }
  const auto all = files.list_directory(snapshots);
  if (all.ok() && all.value().size() == 1) return join_path(snapshots, all.value().front());
  return {};
}

Result<FoundModel> find_in_cache(std::string_view wanted, const Places& places) {
  const std::string cache = hugging_face_cache(places);
  const std::size_t slash = wanted.find('/');
  const std::string folder = concat("models--", wanted.substr(0, slash), "--", wanted.substr(slash + 1));
  const std::string repository = join_path(cache, folder);
  if (!cache.empty() && disk_file_system().is_directory(repository)) {
    if (std::string snapshot = newest_snapshot(repository); !snapshot.empty())
      return FoundModel{std::move(snapshot)};
    return Status(Code::not_found, concat(wanted, ": ", repository, " holds no snapshot of it"));
  }
  return Status(Code::not_found,
                concat("no model ", wanted, ": there is no such path here, and no ", folder, " in ",
                       cache.empty() ? "a Hugging Face cache (HOME is not set)" : cache));
}

}  // namespace

Places this_system() {
  Places places;
  std::error_code error;
  places.program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  places.environment = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  return places;
}

Result<FoundModel> find_model(std::string_view wanted, const Places& places) {
  const FileSystem& files = disk_file_system();
  if (wanted.empty()) {
    // The folders lie to one another as they do when installed; a build folder is laid out the same way.
    // There is no symbolic link in the program's own path, so going up may be done in the text.
    const auto program = std::filesystem::path(places.program);
    const std::string path =
        (program.parent_path() / NIBBLE_DATA_FROM_PROGRAM "/models/tales").lexically_normal().string();
    if (!places.program.empty() && files.is_directory(path)) return FoundModel{path, true};
    return Status(Code::not_found, concat("the model that comes with nibble is not at ", path));
  }
  const std::string path(wanted);
  if (files.exists(path)) return FoundModel{path};
  if (is_repository(wanted)) return find_in_cache(wanted, places);
  return Status(Code::not_found, concat("no model ", wanted, ": there is no such file or directory"));
}

std::string advice_about(std::string_view wanted) {
  if (wanted.empty()) return "Name a model with -m PATH.";
  if (is_repository(wanted)) return concat("nibble never downloads. To fetch it: hf download ", wanted);
  return {};
}

std::string cuda_library(const std::string& given, const Places& places) {
  if (!given.empty()) return given;
  const auto program = std::filesystem::path(places.program);
  return (program.parent_path() / NIBBLE_LIBRARIES_FROM_PROGRAM).lexically_normal().string();
}

std::string history_path(const Places& places) {
  std::string state = places.environment("XDG_STATE_HOME");
  if (state.empty()) {
    const std::string home = places.environment("HOME");
    if (home.empty()) return {};
    state = join_path(home, ".local/state");
  }
  const std::string folder = join_path(state, "nibble");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return error ? std::string() : join_path(folder, "chat_history");
}

}  // namespace nib::program
