// Where models are looked for, and how much memory there is, on made-up systems.
#include "memory_limit.hpp"
#include "paths.hpp"
#include "process.hpp"

#include <map>

#include <doctest/doctest.h>

namespace nib::program {
namespace {

using test::Folder;

Places places_with(std::map<std::string, std::string> environment, std::string program = "") {
  return {std::move(program), [environment = std::move(environment)](const char* name) {
            const auto found = environment.find(name);
            return found == environment.end() ? std::string() : found->second;
          }};
}

TEST_CASE("a path is taken as it is; the shipped model lies beside the program") {
  const Folder folder;
  folder.write("share/nibble/models/tales/config.json", "{}");
  const Places places = places_with({}, (folder.path() / "bin/nibble").string());
  const auto shipped = find_model("", places);
  REQUIRE(shipped.ok());
  CHECK(shipped.value().shipped);
  CHECK(shipped.value().path == (folder.path() / "share/nibble/models/tales").string());
  const std::string path = (folder.path() / "share").string();
  const auto named = find_model(path, places);
  REQUIRE(named.ok());
  CHECK(named.value().path == path);
  CHECK_FALSE(named.value().shipped);

  const auto missing = find_model("", places_with({}, "/nowhere/bin/nibble"));
  CHECK(missing.status().code() == Code::not_found);
  CHECK(missing.status().message().find("/nowhere/share/nibble") != std::string::npos);
}

TEST_CASE("the name of a repository is looked up in the Hugging Face cache that the settings name") {
  const Folder folder;
  const std::string root = folder.path().string();
  const std::string repository = "hub/models--some-one--model.x_1";
  folder.write(repository + "/refs/main", "abc123\n");
  folder.write(repository + "/snapshots/abc123/config.json", "{}");
  folder.write(repository + "/snapshots/older/config.json", "{}");
  folder.write(".cache/huggingface/hub/models--a--b/snapshots/only/config.json", "{}");
  folder.write(".cache/huggingface/hub/models--a--empty/refs/main", "gone");
  folder.write(".cache/huggingface/hub/models--a--evil/refs/main", "../../models--a--b");

  for (const auto& environment : std::vector<std::map<std::string, std::string>>{
           {{"HF_HUB_CACHE", root + "/hub"}, {"HF_HOME", "/nope"}}, {{"HF_HOME", root}, {"HOME", "/nope"}}}) {
    const auto found = find_model("some-one/model.x_1", places_with(environment));
    REQUIRE_MESSAGE(found.ok(), found.status().message());
    CHECK(found.value().path == root + "/" + repository + "/snapshots/abc123");
  }
  for (const auto& environment : std::vector<std::map<std::string, std::string>>{
           {{"HOME", root}}, {{"XDG_CACHE_HOME", root + "/.cache"}}}) {
    const auto found = find_model("a/b", places_with(environment));
    REQUIRE_MESSAGE(found.ok(), found.status().message());
    CHECK(found.value().path == root + "/.cache/huggingface/hub/models--a--b/snapshots/only");
  }
  const Places home = places_with({{"HOME", root}});
  for (const char* name : {"a/c", "a/empty", "a/evil"}) {
    CAPTURE(name);
    const auto missing = find_model(name, home);
    CHECK(missing.status().code() == Code::not_found);
    CHECK(missing.status().message().find(root + "/.cache/huggingface/hub") != std::string::npos);
    CHECK(advice_about(name).find("hf download") != std::string::npos);
  }
  for (const char* name : {"nothing", "../x/y", "a/b/c", "/a/b", "a/", ".a/b"}) {
    CAPTURE(name);
    CHECK(find_model(name, home).status().code() == Code::not_found);
    CHECK(advice_about(name).empty());
  }
}

TEST_CASE("history is kept where the user's settings say, or nowhere") {
  const Folder folder;
  const std::string root = folder.path().string();
  CHECK(history_path(places_with({{"XDG_STATE_HOME", root + "/state"}})) ==
        root + "/state/nibble/chat_history");
  CHECK(history_path(places_with({{"HOME", root}})) == root + "/.local/state/nibble/chat_history");
  CHECK(std::filesystem::is_directory(root + "/.local/state/nibble"));
  CHECK(history_path(places_with({})).empty());
  folder.write("file", "");
  CHECK(history_path(places_with({{"XDG_STATE_HOME", root + "/file"}})).empty());
}

TEST_CASE("memory: the machine's, and the container's in both versions of cgroups") {
  const Folder folder;
  const std::string root = folder.path().string();
  CHECK_FALSE(read_memory_limits(root).usable());
  folder.write("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:   800 kB\n");
  CHECK(read_memory_limits(root).usable() == 800 * 1024);

  SUBCASE("version 2: the tightest of a group and its ancestors; reclaimable pages are free") {
    folder.write("proc/self/cgroup", "0::/user/job\n");
    folder.write("sys/fs/cgroup/user/job/memory.max", "max\n");
    folder.write("sys/fs/cgroup/user/memory.max", "500000\n");
    folder.write("sys/fs/cgroup/user/memory.current", "300000\n");
    folder.write("sys/fs/cgroup/user/memory.stat", "anon 5\ninactive_file 100000\nactive_file 7\n");
    const MemoryLimits limits = read_memory_limits(root);
    CHECK(limits.container == 500000);
    CHECK(limits.usable() == 300000);
    folder.write("sys/fs/cgroup/user/memory.current", "700000\n");
    folder.write("sys/fs/cgroup/user/memory.stat", "");
    CHECK(read_memory_limits(root).usable() == 0);
  }
  SUBCASE("version 2 inside a container: its own root") {
    folder.write("proc/self/cgroup", "0::/\n");
    folder.write("sys/fs/cgroup/memory.max", "4096\n");
    CHECK(read_memory_limits(root).usable() == 4096);
  }
  SUBCASE("version 1, a group that the mount does not show") {
    folder.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n");
    folder.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "600000\n");
    folder.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "50000\n");
    folder.write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 50000\n");
    CHECK(read_memory_limits(root).usable() == 600000);
  }
  SUBCASE("version 1 without a limit") {
    folder.write("proc/self/cgroup", "4:memory:/\n");
    folder.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    CHECK_FALSE(read_memory_limits(root).container);
    CHECK(read_memory_limits(root).usable() == 800 * 1024);
  }
  SUBCASE("nonsense") {
    folder.write("proc/self/cgroup", "\n::\nabc\n0::\n0::relative\n");
    CHECK(read_memory_limits(root).usable() == 800 * 1024);
  }
}

}  // namespace
}  // namespace nib::program
