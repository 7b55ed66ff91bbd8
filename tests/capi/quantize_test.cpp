// Models written anew through the C interface: what is written opens and computes, callbacks are heard, and
// what cannot be is said.
#include "support.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

using namespace nib::test;

namespace {

// A folder that goes away with all that is in it.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "nibble-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()));
    path_ = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }
  bool empty() const { return std::filesystem::is_empty(path_); }

 private:
  std::filesystem::path path_;
};

struct Heard {
  std::uint64_t done = 0, total = 0, calls = 0, stop_after = ~std::uint64_t{0};
  std::map<std::string, int> asked;

  static int32_t on_progress(void* user, const nib_progress* progress) {
    auto& heard = *static_cast<Heard*>(user);
    CHECK(progress->stage == NIB_STAGE_QUANTIZE);
    CHECK(progress->done >= heard.done);
    heard.done = progress->done;
    heard.total = progress->total;
    return ++heard.calls > heard.stop_after;
  }
  static int32_t choose(void* user, const char* tensor, size_t size) {
    const std::string name(tensor, size);
    ++static_cast<Heard*>(user)->asked[name];
    return is_chosen(name);
  }
  static bool is_chosen(std::string_view name) { return name.ends_with("q_proj.weight"); }
};

nib_quantize_options to_format(const char* format) {
  nib_quantize_options options = NIB_QUANTIZE_OPTIONS_INIT;
  options.format = format;
  options.format_size = NIB_NUL;
  return options;
}

nib_status quantize(nib_runtime* runtime, const std::string& target, const nib_quantize_options& options,
                    nib_quantize_report* report, Error& error) {
  return nib_quantize(runtime, model_path(), NIB_NUL, target.data(), target.size(), &options, report, &error);
}

}  // namespace

TEST_CASE("targets: every name once, in a container at least, and accepted") {
  std::map<std::string, std::uint32_t> flags;
  nib_target_info info = NIB_TARGET_INFO_INIT;
  std::uint32_t index = 0;
  for (; nib_quantize_get_target(index, &info) == NIB_OK; ++index) {
    CHECK(std::strlen(info.name) == info.name_size);
    CHECK(std::strlen(info.meaning) == info.meaning_size);
    CHECK(info.meaning_size > 0);
    CHECK((info.flags & (NIB_TARGET_SAFETENSORS | NIB_TARGET_GGUF)) != 0);
    flags[info.name] = info.flags;
  }
  CHECK(nib_quantize_get_target(index, &info) == NIB_END);
  CHECK(flags.size() == index);
  CHECK(flags.at("mxfp4") == (NIB_TARGET_SAFETENSORS | NIB_TARGET_GGUF | NIB_TARGET_HAS_RULES));
  CHECK(flags.at("q4_0") == NIB_TARGET_GGUF);
  CHECK(nib_quantize_get_target(0, nullptr) == NIB_E_ARGUMENT);
}

TEST_CASE("a model written anew opens and says the same; callbacks are heard, the report adds up") {
  const RuntimeHandle runtime = make_runtime();
  const Folder folder;
  Heard heard;
  Error error;
  nib_quantize_options options = to_format("q8_0");
  options.on_progress = Heard::on_progress;
  options.on_progress_user = &heard;
  nib_quantize_report report = NIB_QUANTIZE_REPORT_INIT;
  const std::string gguf = folder / "tales.gguf";
  REQUIRE_MESSAGE(quantize(runtime.get(), gguf, options, &report, error) == NIB_OK, error.text());
  CHECK(heard.calls > 1);
  CHECK(heard.done == heard.total);
  CHECK(heard.total >= report.bytes_before);
  CHECK(report.quantized > 0);
  CHECK(report.quantized < report.tensors);
  CHECK(report.weight_bytes * 32 == report.weights * 34);
  CHECK(report.bytes_after < std::filesystem::file_size(gguf));
  CHECK(10 * std::log10(report.signal / report.noise) > 30);

  nib_model* model = nullptr;
  REQUIRE_MESSAGE(nib_model_open(runtime.get(), gguf.data(), gguf.size(), nullptr, &model, &error) == NIB_OK,
                  error.text());
  const ModelHandle opened(model);
  bool seen = false;
  nib_explain_item item = NIB_EXPLAIN_ITEM_INIT;
  for (std::uint32_t i = 0; nib_model_explain(model, i, &item) == NIB_OK; ++i)
    seen |= std::string_view(item.format) == "q8_0";
  CHECK(seen);

  // Again: not over what is there, unless that is wanted; `out` is not needed.
  CHECK(quantize(runtime.get(), gguf, options, nullptr, error) == NIB_E_ARGUMENT);
  CHECK(error.says("tales.gguf"));
  options.flags = NIB_QUANTIZE_OVERWRITE;
  heard = {};
  CHECK(quantize(runtime.get(), gguf, options, nullptr, error) == NIB_OK);
}

TEST_CASE("who chooses is asked for every matrix, and has the last word") {
  const RuntimeHandle runtime = make_runtime();
  const Folder folder;
  Heard heard;
  Error error;
  nib_quantize_options options = to_format("mxfp4");
  options.choose = Heard::choose;
  options.choose_user = &heard;
  options.scale_rule = NIB_SCALE_RULE_LEAST_ERROR;
  options.on_progress = Heard::on_progress;
  options.on_progress_user = &heard;
  nib_quantize_report report = NIB_QUANTIZE_REPORT_INIT;
  REQUIRE_MESSAGE(quantize(runtime.get(), folder / "out", options, &report, error) == NIB_OK, error.text());
  const auto chosen = std::count_if(heard.asked.begin(), heard.asked.end(), [](const auto& entry) {
    return entry.first.find("gate_up_proj") != std::string::npos &&
           entry.first.find("bias") == std::string::npos;
  });
  CHECK(chosen > 0);
  CHECK(heard.done == heard.total);
  CHECK(heard.total == report.bytes_before);
  CHECK(report.quantized == static_cast<std::uint64_t>(chosen));
  CHECK(report.weight_bytes * 32 == report.weights * 17);
  CHECK(std::filesystem::exists(folder / "out/config.json"));
}

TEST_CASE("files are cut where the caller says") {
  const RuntimeHandle runtime = make_runtime();
  const Folder folder;
  Error error;
  nib_quantize_options options = to_format("nf4");
  options.most_shard_bytes = 4 << 20;
  REQUIRE_MESSAGE(quantize(runtime.get(), folder / "out", options, nullptr, error) == NIB_OK, error.text());
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    CHECK(entry.file_size() < (4 << 20) + (64 << 10));  // with its header; no tensor of tales is as large
  }
  CHECK(files > 2);
}

TEST_CASE("what was not done is counted, and a warning in the log") {
  std::vector<std::string> warnings;
  nib_runtime_options with_log = NIB_RUNTIME_OPTIONS_INIT;
  with_log.threads = 2;
  with_log.on_log = [](void* user, std::int32_t level, const char* text, std::size_t size) {
    if (level == NIB_LOG_WARNING) static_cast<std::vector<std::string>*>(user)->emplace_back(text, size);
  };
  with_log.on_log_user = &warnings;
  nib_runtime* made = nullptr;
  REQUIRE(nib_runtime_create(&with_log, &made, nullptr) == NIB_OK);
  const RuntimeHandle runtime(made);
  const Folder folder;
  const std::string in = folder / "in", out = folder / "out.gguf";
  std::filesystem::create_directory(in);
  for (const char* file : {"config.json", "model.safetensors"})
    std::filesystem::copy_file(std::filesystem::path(model_path()) / file, std::filesystem::path(in) / file);
  const nib_quantize_options options = to_format("q8_0");
  nib_quantize_report report = NIB_QUANTIZE_REPORT_INIT;
  Error error;
  REQUIRE_MESSAGE(nib_quantize(runtime.get(), in.data(), in.size(), out.data(), out.size(), &options, &report,
                               &error) == NIB_OK,
                  error.text());
  CHECK(report.notes == 1);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("tokenizer") != std::string::npos);
}

TEST_CASE("what is asked wrongly is said, and what is stopped leaves nothing") {
  const RuntimeHandle runtime = make_runtime();
  const Folder folder;
  const std::string target = folder / "out";
  Error error;
  const auto refused = [&](const nib_quantize_options& options, nib_status status, const char* part) {
    CAPTURE(std::string(part));
    CHECK(quantize(runtime.get(), target, options, nullptr, error) == status);
    CHECK_MESSAGE(error.says(part), error.text());
    CHECK(folder.empty());
  };
  refused(NIB_QUANTIZE_OPTIONS_INIT, NIB_E_ARGUMENT, "format");
  refused(to_format("q9_9"), NIB_E_ARGUMENT, "q9_9");
  refused(to_format("q4_0"), NIB_E_UNSUPPORTED, "q4_0");
  nib_quantize_options options = to_format("mxfp4");
  options.scale_rule = 9;
  refused(options, NIB_E_ARGUMENT, "scale_rule is 9");
  options = to_format("mxfp4");
  options.flags = 64;
  refused(options, NIB_E_VERSION, "flag");
  options = to_format("mxfp4");
  options.reserved = 1;
  refused(options, NIB_E_VERSION, "reserved");

  Heard heard;
  heard.stop_after = 1;
  options = to_format("mxfp4");
  options.on_progress = Heard::on_progress;
  options.on_progress_user = &heard;
  CHECK(quantize(runtime.get(), target, options, nullptr, error) == NIB_STOPPED);
  CHECK(folder.empty());
  nib_cancel* made = nullptr;
  REQUIRE(nib_cancel_create(&made) == NIB_OK);
  const CancelHandle cancel(made);
  nib_cancel_trigger(made);
  options = to_format("mxfp4");
  options.cancel = made;
  CHECK(quantize(runtime.get(), target, options, nullptr, error) == NIB_STOPPED);
  CHECK(folder.empty());

  // Freed while the call is at work, which keeps it alive.
  REQUIRE(nib_cancel_create(&made) == NIB_OK);
  options.cancel = made;
  options.on_progress_user = &made;
  options.on_progress = [](void* user, const nib_progress*) -> int32_t {
    auto& handle = *static_cast<nib_cancel**>(user);
    nib_cancel_trigger(handle);
    nib_cancel_free(handle);
    handle = nullptr;
    return 0;
  };
  CHECK(quantize(runtime.get(), target, options, nullptr, error) == NIB_STOPPED);
  CHECK(made == nullptr);
  CHECK(folder.empty());

  options = to_format("mxfp4");
  CHECK(nib_quantize(nullptr, model_path(), NIB_NUL, "x", NIB_NUL, &options, nullptr, &error) ==
        NIB_E_ARGUMENT);
  CHECK(nib_quantize(runtime.get(), "no such model", NIB_NUL, target.data(), target.size(), &options, nullptr,
                     &error) == NIB_E_NOT_FOUND);
  CHECK(nib_quantize(runtime.get(), model_path(), NIB_NUL, "", 0, &options, nullptr, &error) ==
        NIB_E_ARGUMENT);
}

TEST_CASE("a prepared model opens and lists what the model does; nothing else can be wished of it") {
  const RuntimeHandle runtime = make_runtime();
  const Folder folder;
  Heard heard;
  Error error;
  nib_quantize_options options = NIB_QUANTIZE_OPTIONS_INIT;
  options.flags = NIB_QUANTIZE_PREPARE;
  options.on_progress = Heard::on_progress;
  options.on_progress_user = &heard;
  nib_quantize_report report = NIB_QUANTIZE_REPORT_INIT;
  const std::string target = folder / "out";
  REQUIRE_MESSAGE(quantize(runtime.get(), target, options, &report, error) == NIB_OK, error.text());
  CHECK(heard.done == heard.total);
  CHECK(report.quantized == 0);
  CHECK(report.tensors > 20);
  CHECK(report.bytes_after > report.bytes_before / 2);
  CHECK(std::filesystem::file_size(target + "/model.safetensors") > report.bytes_after);
  const auto explained = [&](const std::string& path) {
    nib_model* model = nullptr;
    REQUIRE_MESSAGE(
        nib_model_open(runtime.get(), path.data(), path.size(), nullptr, &model, &error) == NIB_OK,
        error.text());
    const ModelHandle opened(model);
    std::vector<std::string> items;
    nib_explain_item item = NIB_EXPLAIN_ITEM_INIT;
    for (std::uint32_t i = 0; nib_model_explain(model, i, &item) == NIB_OK; ++i)
      items.push_back(std::string(item.format) + " " + std::to_string(item.bytes));
    return items;
  };
  CHECK(explained(target) == explained(model_path()));

  const auto refused = [&](nib_quantize_options with, nib_status status) {
    with.flags |= NIB_QUANTIZE_PREPARE;
    CHECK(quantize(runtime.get(), folder / "other", with, nullptr, error) == status);
    CHECK_MESSAGE(error.says("NIB_QUANTIZE_PREPARE"), error.text());
  };
  refused(to_format("bf16"), NIB_E_ARGUMENT);
  options.scale_rule = NIB_SCALE_RULE_FLOOR;
  refused(options, NIB_E_ARGUMENT);
  options.scale_rule = NIB_SCALE_RULE_USUAL;
  options.choose = Heard::choose;
  refused(options, NIB_E_ARGUMENT);
}
