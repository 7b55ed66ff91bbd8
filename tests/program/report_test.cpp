// nibble inspect and nibble doctor: what they say agrees with itself and with the files.
#include "process.hpp"
#include "support/data.hpp"
#include <nibble/base/json.hpp>
#include <nibble/formats/storage.hpp>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

std::int64_t integer(const Json& json, const char* key) {
  const Json* value = json.find(key);
  REQUIRE_MESSAGE((value && value->is_integer()), key);
  return value->as_integer();
}

std::int64_t sum(const Json& list, const char* key) {
  std::int64_t total = 0;
  for (const Json& item : list.items()) total += integer(item, key);
  return total;
}

TEST_CASE("inspect --json: the published numbers of the shipped model, and sums that agree") {
  const Json json = json_report({"inspect", "--json", "--tensors", "-c", "1000", "--memory", "1G"});
  CHECK(integer(json, "parameters") == 23'045'520);
  const auto file =
      static_cast<std::int64_t>(std::filesystem::file_size(std::string(NIBBLE_TALES) + "/model.safetensors"));
  CHECK(integer(json, "bytes") < file);
  CHECK(integer(json, "bytes") > file - 100'000);  // the header

  const Json& config = *json.find("config");
  CHECK(config.find("architecture")->as_string() == "gpt-oss");
  CHECK(integer(config, "layers") == 6);
  CHECK(integer(config, "experts") == 16);
  CHECK(integer(config, "experts_per_token") == 2);
  CHECK(config.find("windows")->items().size() == 6);
  const Json& tokenizer = *json.find("tokenizer");
  CHECK(integer(tokenizer, "tokens") == 4096);
  CHECK(tokenizer.find("chat_template")->as_bool());
  CHECK(tokenizer.find("stop_ids")->items().size() == 3);
  CHECK(tokenizer.find("sampling")->find("temperature")->as_double() == doctest::Approx(0.8));

  const Json& formats = *json.find("formats");
  CHECK(sum(formats, "bytes") == integer(json, "bytes"));
  CHECK(sum(formats, "parameters") == integer(json, "parameters"));
  bool has_mxfp4 = false;
  for (const Json& format : formats.items())
    if (format.find("format")->as_string() == "mxfp4") {
      has_mxfp4 = true;
      CHECK(format.find("bits_per_weight")->as_double() == 4.25);
    }
  CHECK(has_mxfp4);
  const Json& tensors = *json.find("tensors");
  CHECK(sum(tensors, "bytes") == integer(json, "bytes"));
  CHECK(static_cast<std::int64_t>(tensors.items().size()) == sum(formats, "tensors"));

  const Json& plan = *json.find("plan");
  CHECK(sum(*plan.find("items"), "bytes") == integer(plan, "bytes"));
  CHECK(integer(plan, "context") == 1000);
  CHECK(integer(plan, "budget") == std::int64_t{1} << 30);
  CHECK(plan.find("fits")->as_bool());
  CHECK(json.find("error")->is_null());
}

TEST_CASE("inspect: a model that does not fit is still described") {
  const Json json = json_report({"inspect", NIBBLE_TALES, "--json", "--memory", "1M"});
  CHECK_FALSE(json.find("plan")->find("fits")->as_bool());
  CHECK(integer(*json.find("plan"), "longest_context") == 0);
  CHECK_FALSE(json.find("tensors"));
  const Finished text = nibble({"inspect", "--memory", "1M"});
  CHECK(text.code == 0);
  CHECK(text.out.find("Does not fit") != std::string::npos);
}

TEST_CASE("inspect: every recorded model, in every container") {
  NIB_REQUIRE_DATA(data);
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(data + "/models")) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".gguf")) paths.push_back(entry.path().string());
    if (name == "config.json") paths.push_back(entry.path().parent_path().string());
  }
  CHECK(paths.size() > 20);
  for (const std::string& path : paths) {
    CAPTURE(path);
    const Json json = json_report({"inspect", path, "--json", "--tensors"});
    CHECK(json.find("error")->is_null());
    CHECK(json.find("weights")->as_bool());
    CHECK(json.find("container")->as_string() == (path.ends_with(".gguf") ? "gguf" : "safetensors"));
    CHECK(json.find("architecture")->as_string() == json.find("config")->find("architecture")->as_string());
    CHECK(sum(*json.find("tensors"), "bytes") == integer(json, "bytes"));
    CHECK(integer(*json.find("plan"), "stored_bytes") <= integer(json, "bytes"));
    bool double_quantized = false;
    for (const Json& format : json.find("formats")->items()) {
      const std::string& name = format.find("format")->as_string();
      const Storage storage = find_storage(name);
      CHECK(storage.format != Format::none);
      CHECK(format.find("bits_per_weight")->as_double() >= 4);
      CHECK(format.find("bits_per_weight")->as_double() <= 32);
      double_quantized = double_quantized || storage.nested;
    }
    CHECK(double_quantized == (path.find("double") != std::string::npos));
    if (!json.find("tokenizer")->is_null())
      CHECK(json.find("tokenizer")->find("kind")->as_string().find("BPE") != std::string::npos);
    const bool tales = path.find("tales") != std::string::npos;
    if (tales) CHECK(json.find("tokenizer")->find("chat_format")->as_string() == "harmony");
    const std::string text = nibble({"inspect", path}).out;
    CHECK((text.find("experts ") != std::string::npos) != (text.find("feed-forward") != std::string::npos));
  }
}

TEST_CASE("inspect: a vocabulary alone is whole") {
  const Folder folder;
  folder.write("tokenizer.json", read_text(std::string(NIBBLE_TALES) + "/tokenizer.json"));
  std::vector<std::string> paths = {folder.path().string()};
  if (const std::string data = data_root(); !data.empty())
    for (const auto& entry : std::filesystem::directory_iterator(data + "/tokenizers"))
      if (entry.path().extension() == ".gguf") paths.push_back(entry.path().string());
  for (const std::string& path : paths) {
    CAPTURE(path);
    const Json json = json_report({"inspect", path, "--json"});
    CHECK_FALSE(json.find("weights")->as_bool());
    CHECK(json.find("plan")->is_null());
    CHECK(json.find("error")->is_null());
    CHECK(integer(*json.find("tokenizer"), "tokens") > 256);
    const bool spm = path.find("-spm") != std::string::npos;
    const std::string& kind = json.find("tokenizer")->find("kind")->as_string();
    CHECK(kind.starts_with(spm ? "SentencePiece BPE" : "byte-level BPE, split as "));
    const Finished text = nibble({"inspect", path});
    CHECK(text.code == 0);
    CHECK(text.err.empty());
    CHECK(text.out.find("there are no weights") != std::string::npos);
    CHECK(text.out.find("stored as") == std::string::npos);
  }
}

TEST_CASE("inspect: text names every tensor when asked") {
  const std::string text = nibble({"inspect", "--tensors"}).out;
  for (const char* name : {"model.embed_tokens.weight", "model.layers.5.mlp.experts.gate_up_proj", "mxfp4",
                           "[16, 512, 256]", "gpt-oss", "23.0 M"}) {
    CAPTURE(name);
    CHECK(text.find(name) != std::string::npos);
  }
}

TEST_CASE("explain: a token's reads add up, and the generic kernel is named where it is used") {
  const Json json = json_report({"explain", "--json", "--numerics", "bf16"});
  CHECK(sum(*json.find("items"), "decode_bytes") == integer(json, "decode_bytes"));
  double share = 0;
  for (const Json& item : json.find("items")->items()) {
    share += item.find("decode_share")->as_double();
    CHECK_FALSE(item.find("generic")->as_bool());
  }
  CHECK(share == doctest::Approx(1));
  const std::string text = nibble({"explain"}).out;
  CHECK(text.find("mxfp4") != std::string::npos);
  CHECK(text.find("records") == std::string::npos);
  const std::string tensors = nibble({"explain", "--tensors", "-m", NIBBLE_TALES}).out;
  CHECK(tensors.find("model.layers.3.self_attn.{q,k,v}_proj.weight") != std::string::npos);
}

TEST_CASE("int8 numerics: what they multiply is shown, what they cannot is refused with advice") {
  const Folder folder;
  const std::string whole = (folder.path() / "q4.gguf").string(), levels = (folder.path() / "nf4").string();
  REQUIRE(nibble({"quantize", NIBBLE_TALES, whole, "--format", "q4_0"}).code == 0);
  REQUIRE(nibble({"quantize", NIBBLE_TALES, levels, "--format", "nf4"}).code == 0);
  int bytes = 0;
  const Json told = json_report({"explain", "--json", "-m", whole, "--numerics", "int8"});
  for (const Json& item : told.find("items")->items()) bytes += item.find("computed")->as_string() == "int8";
  CHECK(bytes > 10);
  const auto refused = nibble({"run", "-m", levels, "--numerics", "int8", "-p", "Once", "-n", "3"});
  CHECK(refused.code == 6);
  for (const char* part :
       {"tensor model.layers.0.", "is nf4, which int8 numerics cannot multiply", "--allow-fallback"}) {
    CAPTURE(part);
    CHECK(refused.err.find(part) != std::string::npos);
  }
  const auto story = [&](std::vector<std::string> more) {
    std::vector<std::string> all = {"run", "-m", levels, "-p", "Once upon", "-n", "12", "--temp", "0"};
    all.insert(all.end(), more.begin(), more.end());
    const auto run = nibble(all);
    CHECK(run.code == 0);
    return run.out;
  };
  CHECK(story({"--numerics", "int8", "--allow-fallback"}) == story({"--numerics", "bf16"}));
}

// The shipped model as a GGUF file of which one matrix calls itself q3_K: fewer bytes than it has, so that it
// opens.
TEST_CASE("explain: a format without a kernel of its own") {
  const Folder folder;
  const std::string model = (folder.path() / "q3.gguf").string();
  REQUIRE(nibble({"quantize", NIBBLE_TALES, model, "--format", "q8_0"}).code == 0);
  std::fstream file(model, std::ios::in | std::ios::out | std::ios::binary);
  std::string head(4 << 20, '\0');
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  const std::string name = "blk.0.attn_output.weight";
  const std::size_t at = head.find(name);
  REQUIRE(at != std::string::npos);
  file.clear();
  file.seekp(static_cast<std::streamoff>(at + name.size() + 4 + 2 * 8));  // behind the dimensions
  file.write("\x0b\0\0\0", 4);
  file.close();
  CHECK(nibble({"explain", "-m", model}).out.find("No kernel of its own yet: q3_K") != std::string::npos);
  const Json json = json_report({"explain", "-m", model, "--json", "--tensors"});
  int generic = 0;
  for (const Json& item : json.find("items")->items()) {
    generic += item.find("generic")->as_bool();
    CHECK(item.find("generic")->as_bool() == (item.find("format")->as_string() == "q3_K"));
  }
  CHECK(generic == 1);
}

TEST_CASE("doctor --json: measured, and consistent") {
  const Json json = json_report({"doctor", "--json", "-t", "1"});
  const Json& measured = *json.find("measured");
  const double bandwidth = measured.find("read_bytes_per_second")->as_double();
  CHECK(bandwidth > 1e8);
  CHECK(measured.find("bf16_flops_per_second")->as_double() > 1e7);
  CHECK(measured.find("f32_flops_per_second")->as_double() > 1e7);
  CHECK(integer(measured, "threads") == 1);
  const std::int64_t usable = integer(*json.find("memory"), "usable");
  CHECK(usable > 0);
  CHECK(usable <= integer(*json.find("memory"), "total"));
  bool scalar = false;
  for (const Json& backend : json.find("backends")->items())
    scalar = scalar || (backend.find("name")->as_string() == "scalar" && backend.find("present")->as_bool());
  CHECK(scalar);
  std::vector<std::string> names;
  for (const Json& model : json.find("models")->items()) {
    names.push_back(model.find("name")->as_string());
    CHECK(model.find("fits")->as_bool() == (integer(model, "bytes") <= usable));
    CHECK(model.find("decode_tokens_per_second")->as_double() ==
          doctest::Approx(bandwidth / static_cast<double>(integer(model, "decode_bytes"))));
  }
  for (const char* name : {"tales", "gpt-oss-20b", "gpt-oss-120b"})
    CHECK(std::find(names.begin(), names.end(), name) != names.end());
}

TEST_CASE("doctor: the same for people") {
  const Finished doctor = nibble({"doctor", "-t", "1"});
  CHECK(doctor.code == 0);
  CHECK(doctor.err.empty());
  for (const char* word :
       {"processor", "memory", "backends", "CUDA", "GB/s", "FLOP/s", "gpt-oss-120b", "fits"}) {
    CAPTURE(word);
    CHECK(doctor.out.find(word) != std::string::npos);
  }
}

TEST_CASE("doctor says which devices there are and why none is used") {
  const Finished found = nibble({"doctor", "-t", "1", "--cuda-library", NIBBLE_FAKE_devices});
  CHECK(found.code == 0);
  CHECK(found.out.find("Fake 9000, compute capability 9.0, 139 GiB") != std::string::npos);
  CHECK(found.out.find("used where a model is run with -ngl N") != std::string::npos);
  const Finished none = nibble({"doctor", "-t", "1", "--cuda-library", "/no/such/library.so"});
  CHECK(none.code == 0);
  CHECK(none.out.find("CUDA       not used: no CUDA library: /no/such/library.so") != std::string::npos);

  const Json json = json_report({"doctor", "--json", "-t", "1", "--cuda-library", NIBBLE_FAKE_devices});
  const Json& cuda = *json.find("cuda");
  CHECK(cuda.find("library")->as_string() == NIBBLE_FAKE_devices);
  CHECK(cuda.find("missing")->is_null());
  REQUIRE(cuda.find("devices")->items().size() == 2);
  CHECK(integer(cuda.find("devices")->items()[0], "processors") == 132);
  CHECK(cuda.find("devices")->items()[1].find("name")->as_string() == "Fake 7500");
}

}  // namespace
}  // namespace nib::test
