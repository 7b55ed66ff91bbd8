// How fast texts become ids and back: bench_tokenizer TOKENIZER.JSON [FOLDER OR FILE...] [benchmark options]
//
// Every file of a folder is one text; bytes per second are of its bytes. The `word` rows encode one word
// without a break; their time per byte should hardly grow with the length (ratio 2 MB : 1 MB below 2.3).
#include <nibble/text/tokenizer.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace nib;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void load(benchmark::State& state, const std::string& json) {
  for (auto _ : state) {
    auto tokenizer = Tokenizer::from_json(json, "tokenizer.json");
    if (!tokenizer.ok()) return state.SkipWithError(tokenizer.status().message().c_str());
    benchmark::DoNotOptimize(tokenizer->size());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * json.size()));
}

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text, Specials specials) {
  std::vector<Token> ids;
  for (auto _ : state) {
    ids.clear();
    const Status status = tokenizer.encode(text, specials, ids);
    if (!status.ok()) return state.SkipWithError(status.message().c_str());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
  state.counters["bytes/token"] =
      static_cast<double>(text.size()) / static_cast<double>(std::max<std::size_t>(ids.size(), 1));
}

void decode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  std::vector<Token> ids;
  if (!tokenizer.encode(text, Specials::ordinary, ids).ok()) return state.SkipWithError("not enough memory");
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.decode(ids, Specials::ordinary));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}

std::string letters(std::size_t size, unsigned alphabet) {
  std::mt19937 random(1);
  std::string word(size, 'a');
  for (char& c : word) c = static_cast<char>('a' + random() % alphabet);
  return word;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s TOKENIZER.JSON [FOLDER OR FILE...] [benchmark options]\n", argv[0]);
    return 2;
  }
  const std::string json = read(argv[1]);
  const auto tokenizer = Tokenizer::from_json(json, argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().message().c_str());
    return 1;
  }
  std::vector<std::filesystem::path> files;
  for (int i = 2; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i]))
      files.emplace_back(argv[i]);
    else
      for (const auto& entry : std::filesystem::directory_iterator(argv[i]))
        if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  struct File {
    std::string name, text;
  };
  std::vector<File> texts;
  for (const auto& path : files) texts.push_back({path.filename().string(), read(path)});

  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMillisecond);
  };
  add("load", [&](benchmark::State& state) { load(state, json); });
  for (const File& file : texts) {
    add("encode/" + file.name,
        [&](benchmark::State& state) { encode(state, *tokenizer, file.text, Specials::ordinary); });
    add("encode with specials/" + file.name,
        [&](benchmark::State& state) { encode(state, *tokenizer, file.text, Specials::recognised); });
    add("decode/" + file.name, [&](benchmark::State& state) { decode(state, *tokenizer, file.text); });
  }
  for (const unsigned alphabet : {1u, 26u})
    for (const std::size_t megabytes : {1, 2, 4}) {
      const std::string name = std::string(alphabet == 1 ? "word of one letter/" : "word of random letters/");
      add(name + std::to_string(megabytes) + " MB", [&, alphabet, megabytes](benchmark::State& state) {
        encode(state, *tokenizer, letters(megabytes << 20, alphabet), Specials::ordinary);
      });
    }
  std::mt19937 random(2);
  std::string bytes(std::size_t{1} << 20, ' ');
  const std::string spaces = bytes;
  for (char& c : bytes) c = static_cast<char>(random());
  add("spaces/1 MB", [&](benchmark::State& state) { encode(state, *tokenizer, spaces, Specials::ordinary); });
  add("random bytes/1 MB",
      [&](benchmark::State& state) { encode(state, *tokenizer, bytes, Specials::ordinary); });
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
