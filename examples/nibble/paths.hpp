// Where models and the program's own files lie. Everything that knows about folders and environment variables
// of the user is here; nothing here goes to the network.
#pragma once

#include <nibble/base/status.hpp>

#include <functional>
#include <string>
#include <string_view>

namespace nib::program {

// What the search looks at, so that a test can look elsewhere.
struct Places {
  std::string program;  // the executable itself; empty when the system does not say
  std::function<std::string(const char*)> environment;  // empty text when a variable is not set
};
Places this_system();

struct FoundModel {
  std::string path;      // as the library takes it: a directory, an index or a weights file
  bool shipped = false;  // the model that came with the program
};

// The model that `wanted` names: a directory, a file in one, or the name of a repository on Hugging Face
// ("openai/gpt-oss-20b") that lies in the local cache. Empty: the model shipped with the program. Errors:
// not_found, saying where it looked.
Result<FoundModel> find_model(std::string_view wanted, const Places& places = this_system());

// What to do about a model that was not found; empty when there is nothing to say.
std::string advice_about(std::string_view wanted);

// The CUDA library as it was `given`, or the folder of nibble's libraries, where the program and they were
// installed together.
std::string cuda_library(const std::string& given, const Places& places = this_system());

// The file that keeps what was typed into `nibble chat`, its folder made if need be; empty when there is no
// place for it.
std::string history_path(const Places& places = this_system());

}  // namespace nib::program
