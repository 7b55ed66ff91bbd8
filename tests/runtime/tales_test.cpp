// The story model against what transformers recorded: logits and greedy texts.
#include "support/data.hpp"
#include "support/model_rig.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/runtime/session.hpp>

#include <cmath>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

TEST_CASE("slow: tales: recorded logits and greedy texts, f32") {
  NIB_REQUIRE_DATA(data);
  const std::string folder = data + "/models/tales";
  const std::string golden = folder + "/golden.safetensors";
  auto runtime = Runtime::create({.threads = 2}).take();
  for (const BackendInfo& info : runtime->backends()) {
    if (!info.present) continue;
    CAPTURE(std::string(info.name));
    auto model = Model::open(runtime, folder, {.backend = info.name, .numerics = Numerics::f32});
    REQUIRE_MESSAGE(model.ok(), model.status().message());

    ModelRig rig(folder, {.backend = info.backend, .numerics = Numerics::f32});
    auto cache = rig.cache();
    const auto logits = rig.feed(*cache, Golden::ids(golden, "input_ids"));
    const auto expected = Golden::floats(golden, "logits");
    REQUIRE(logits.size() == expected.size());
    double most = 0;
    for (std::size_t i = 0; i < logits.size(); ++i)
      most = std::max(most, std::abs(static_cast<double>(logits[i]) - expected[i]));
    CHECK(most < 1e-3);

    const Json record = parse_json(read_text(folder + "/golden.json"), "golden.json").take();
    for (const char* name : {"once", "dog", "book"}) {
      const auto prompt = Golden::ids(golden, concat("greedy_", name, "_prompt"));
      const auto wanted = Golden::ids(golden, concat("greedy_", name));
      auto session =
          Session::create(*model,
                          {.sampler = {.greedy = true}, .ignore_model_stops = true, .show_specials = true})
              .take();
      REQUIRE(session->append(prompt).ok());
      std::string text;
      const auto collect = [](void* user, const StepResult& step) {
        *static_cast<std::string*>(user) += step.text;
        return 0;
      };
      auto result = session->generate(
          {.max_tokens = static_cast<std::uint32_t>(wanted.size()), .on_token = collect, .user = &text});
      REQUIRE(result.ok());
      const auto held = session->tokens().subspan(prompt.size());
      CHECK(std::equal(held.begin(), held.end(), wanted.begin(), wanted.end()));
      CHECK(text == record.find(name)->find("text")->as_string());
    }
  }
}

}  // namespace
}  // namespace nib::test
