// nib_session and the batch step: pull, push and batch give the same tokens; limits, stops, rewinds.
#include "support.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

using namespace nib::test;

namespace {

constexpr const char* kPrompt = "Once upon a time there was a little dog";

struct Story {
  std::vector<nib_token> tokens;
  std::vector<float> log_probabilities;
  std::string text;
  std::uint32_t last_flags = 0;
  nib_usage usage = NIB_USAGE_INIT;
  nib_status status = NIB_OK;
};

// Generates with every check of the events that can be made.
Story generate(nib_session* session, std::uint32_t max_tokens) {
  struct Watch {
    Story story;
    std::uint64_t next_position;
  } watch{{}, held(session).size()};
  nib_generate_options options = NIB_GENERATE_OPTIONS_INIT;
  options.max_tokens = max_tokens;
  options.on_token_user = &watch;
  options.on_token = [](void* user, const nib_token_event* event) -> std::int32_t {
    auto& to = *static_cast<Watch*>(user);
    CHECK(event->struct_size == sizeof(nib_token_event));
    CHECK(event->position == to.next_position++);
    to.story.log_probabilities.push_back(event->log_probability);
    CHECK(event->text != nullptr);
    to.story.tokens.push_back(event->id);
    to.story.text.append(event->text, event->text_size);
    to.story.last_flags = event->flags;
    return 0;
  };
  Error error;
  watch.story.status = nib_session_generate(session, &options, &watch.story.usage, &error);
  REQUIRE_MESSAGE(watch.story.status >= 0, error.text());
  CHECK(watch.story.usage.tokens == watch.story.tokens.size());
  return watch.story;
}

nib_session_options seeded(std::uint64_t seed) {
  nib_session_options options = NIB_SESSION_OPTIONS_INIT;
  options.seed = seed;
  return options;
}

}  // namespace

TEST_CASE("push, pull and batch draw the same tokens, and text is the tokens' text") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 4, 256);
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  const nib_session_options drawing = seeded(seed);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);

  const SessionHandle push = make_session(model.get(), &drawing);
  append(push.get(), prompt);
  const Story story = generate(push.get(), 24);
  std::vector<nib_token> all = prompt;
  all.insert(all.end(), story.tokens.begin(), story.tokens.end());
  CHECK(held(push.get()) == all);
  CHECK(decode(model.get(), story.tokens) == story.text);

  const SessionHandle pull = make_session(model.get(), &drawing);
  append(pull.get(), prompt);
  Error error;
  for (const nib_token expected : story.tokens) {
    nib_token id = 0;
    const nib_status status = nib_session_step(pull.get(), &id, &error);
    REQUIRE_MESSAGE((status == NIB_OK || status == NIB_END), error.text());
    CHECK(id == expected);
  }

  // The same session in a batch, beside one of another seed.
  const nib_session_options other = seeded(seed + 1);
  const SessionHandle batched = make_session(model.get(), &drawing),
                      beside = make_session(model.get(), &other);
  append(batched.get(), prompt);
  append(beside.get(), encode(model.get(), "The cat"));
  nib_session* const both[] = {beside.get(), batched.get()};
  std::string text;
  for (std::size_t i = 0; i < story.tokens.size(); ++i) {
    nib_step_result results[2];
    REQUIRE(nib_batch_step(both, 2, results, sizeof results[0], &error) == NIB_OK);
    CHECK(results[1].status >= 0);
    CHECK(results[1].id == story.tokens[i]);
    CHECK(results[1].position == prompt.size() + i);
    CHECK(results[1].message_size == 0);
    CHECK(results[1].log_probability == story.log_probabilities[i]);
    text.append(results[1].text, results[1].text_size);
  }
  CHECK(story.text.substr(0, text.size()) == text);
}

TEST_CASE("greedy takes the largest logit") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  const nib_session_options options = greedy();
  const SessionHandle session = make_session(model.get(), &options);
  append(session.get(), encode(model.get(), kPrompt));
  for (int i = 0; i < 4; ++i) {
    const std::vector<float> before = logits(session.get());
    nib_token id = 0;
    REQUIRE(nib_session_step(session.get(), &id, nullptr) >= 0);
    CHECK(id == static_cast<nib_token>(std::max_element(before.begin(), before.end()) - before.begin()));
    const float* none = nullptr;
    std::size_t count = 77;
    CHECK(nib_session_get_logits(session.get(), &none, &count) == NIB_E_STATE);  // of the new token: not yet
    CHECK(count == 77);
    append(session.get(), {5});
  }
}

TEST_CASE("without cuts a log probability is that of the softmax") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  nib_session_options options = seeded(std::random_device{}());
  CAPTURE(options.seed);
  options.temperature = 1;
  options.top_p = 1;
  const SessionHandle session = make_session(model.get(), &options);
  for (int i = 0; i < 8; ++i) {
    append(session.get(), encode(model.get(), kPrompt));
    const std::vector<float> before = logits(session.get());
    const double largest = *std::max_element(before.begin(), before.end());
    double sum = 0;
    for (const float logit : before) sum += std::exp(logit - largest);
    const Story story = generate(session.get(), 1);
    const double expected = before[story.tokens[0]] - largest - std::log(sum);
    // 4096 weights in f32, each e^x and the sum of them good to some 2^-20.
    CHECK(std::abs(story.log_probabilities[0] - expected) < 1e-4);
  }
}

TEST_CASE("an answer's end: the model's own stops count or not, and are spelled out or not") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 1, 512);
  const auto told = [&](std::uint64_t seed, std::uint32_t flags, std::uint32_t most) {
    nib_session_options options = seeded(seed);
    options.flags = flags;
    const SessionHandle session = make_session(model.get(), &options);
    append(session.get(), encode(model.get(), kPrompt));
    return generate(session.get(), most);
  };
  std::uint64_t seed = 0;
  Story ended;
  do ended = told(++seed, 0, 400);
  while (ended.usage.finish != NIB_FINISH_STOP && seed < 20);
  REQUIRE(ended.usage.finish == NIB_FINISH_STOP);
  CAPTURE(seed);
  const auto count = static_cast<std::uint32_t>(ended.tokens.size());

  const Story spelled = told(seed, NIB_SESSION_SHOW_SPECIALS, 400);
  CHECK(spelled.tokens == ended.tokens);
  const std::string spelling = decode(model.get(), {ended.tokens.back()}, NIB_TEXT_SPECIALS);
  CHECK(spelling.size() > 4);
  CHECK(spelled.text == ended.text + spelling);

  const Story longer = told(seed, NIB_SESSION_IGNORE_MODEL_STOPS, count + 1);
  CHECK(longer.usage.finish == NIB_FINISH_LENGTH);
  REQUIRE(longer.tokens.size() == count + 1);
  CHECK(std::equal(ended.tokens.begin(), ended.tokens.end(), longer.tokens.begin()));
}

TEST_CASE("what the caller leaves zero, the model's files decide") {
  // tales wishes for temperature 0.8 and top-p 0.95; saying so must not change anything, saying otherwise
  // must.
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 4, 256);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  const auto story = [&](nib_session_options options) {
    options.flags |= NIB_SESSION_IGNORE_MODEL_STOPS;
    const SessionHandle session = make_session(model.get(), &options);
    append(session.get(), prompt);
    return generate(session.get(), 30).tokens;
  };
  nib_session_options wish = seeded(3), said = seeded(3), hot = seeded(3), one = seeded(4);
  said.temperature = 0.8f;
  said.top_p = 0.95f;
  hot.temperature = 3;
  one.top_k = 1;
  CHECK(story(wish) == story(said));
  CHECK(story(wish) != story(hot));
  CHECK(story(one) == story(greedy()));
}

TEST_CASE("sampling options out of range are refused by name") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  Error error;
  nib_session_options options = NIB_SESSION_OPTIONS_INIT;
  const auto refused = [&](nib_status expected, std::string_view part) {
    nib_session* out = garbage<nib_session>();
    CHECK(nib_session_create(model.get(), &options, &out, &error) == expected);
    CHECK(out == nullptr);
    CHECK_MESSAGE(error.says(part), error.text());
    options = NIB_SESSION_OPTIONS_INIT;
  };
  options.temperature = -1;
  refused(NIB_E_ARGUMENT, "temperature");
  options.top_p = 1.5f;
  refused(NIB_E_ARGUMENT, "top_p");
  options.min_p = 2;
  refused(NIB_E_ARGUMENT, "min_p");
  options.repetition_penalty = -1;
  refused(NIB_E_ARGUMENT, "repetition_penalty");
  options.flags = 8;
  refused(NIB_E_VERSION, "flag");
  options.context = 0x7fffffff;
  refused(NIB_E_ARGUMENT, "context");
  options.stop_id_count = 1;
  refused(NIB_E_ARGUMENT, "stop_ids");
  options.stop_text_count = 1;
  refused(NIB_E_ARGUMENT, "stop_texts");
  const nib_string empty = {"", 0};
  options.stop_texts = &empty;
  options.stop_text_count = 1;
  refused(NIB_E_ARGUMENT, "stop text");
}

TEST_CASE("stop ids and stop texts end an answer; the text of a stop does not leak") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 1, 256);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  const nib_session_options plain = greedy();
  Story free_story;
  {
    const SessionHandle session = make_session(model.get(), &plain);
    append(session.get(), prompt);
    free_story = generate(session.get(), 40);
  }
  REQUIRE(free_story.tokens.size() > 12);

  nib_session_options by_id = greedy();
  const nib_token stop = free_story.tokens[10];
  by_id.stop_ids = &stop;
  by_id.stop_id_count = 1;
  {
    const SessionHandle session = make_session(model.get(), &by_id);
    append(session.get(), prompt);
    const Story story = generate(session.get(), 40);
    const auto first = std::find(free_story.tokens.begin(), free_story.tokens.end(), stop);
    CHECK(story.tokens == std::vector<nib_token>(free_story.tokens.begin(), first + 1));
    CHECK(story.usage.finish == NIB_FINISH_STOP);
    CHECK(story.last_flags == NIB_TOKEN_END);
    CHECK(story.status == NIB_OK);
  }

  nib_session_options by_text = greedy();
  const std::string word = free_story.text.substr(free_story.text.size() / 2, 5);
  const nib_string texts[] = {{"never said, never seen", NIB_NUL}, {word.data(), word.size()}};
  by_text.stop_texts = texts;
  by_text.stop_text_count = 2;
  {
    const SessionHandle session = make_session(model.get(), &by_text);
    append(session.get(), prompt);
    const Story story = generate(session.get(), 40);
    CHECK(story.text == free_story.text.substr(0, free_story.text.find(word)));
    CHECK(story.usage.finish == NIB_FINISH_STOP);
    CHECK(story.last_flags == NIB_TOKEN_END);
  }
}

TEST_CASE("usage counts the prompt and the answer, and starts anew each time") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 1, 256);
  nib_session_options options = greedy();
  options.flags |= NIB_SESSION_IGNORE_MODEL_STOPS;
  const SessionHandle session = make_session(model.get(), &options);
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  append(session.get(), prompt);
  append(session.get(), prompt);
  const Story first = generate(session.get(), 5);
  CHECK(first.usage.prompt_tokens == 2 * prompt.size());
  CHECK(first.usage.tokens == 5);
  CHECK(first.usage.finish == NIB_FINISH_LENGTH);
  CHECK(first.usage.prefill_seconds > 0);
  CHECK(first.usage.decode_seconds > 0);
  const Story second = generate(session.get(), 3);
  CHECK(second.usage.prompt_tokens == 0);
  CHECK(second.usage.prefill_seconds == 0);
  CHECK(second.usage.tokens == 3);

  nib_usage wrong = NIB_USAGE_INIT;
  wrong.struct_size = 0;
  const std::size_t before = held(session.get()).size();
  CHECK(nib_session_generate(session.get(), nullptr, &wrong, nullptr) == NIB_E_ARGUMENT);
  CHECK(held(session.get()).size() == before);  // refused before any work
  nib_generate_options unknown = NIB_GENERATE_OPTIONS_INIT;
  unknown.flags = 1;
  CHECK(nib_session_generate(session.get(), &unknown, nullptr, nullptr) == NIB_E_VERSION);
}

TEST_CASE("a context has an end") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 1, 64);
  nib_session_options options = greedy();
  options.flags |= NIB_SESSION_IGNORE_MODEL_STOPS;
  const SessionHandle session = make_session(model.get(), &options);
  std::size_t position = 77, context = 0;
  REQUIRE(nib_session_get_position(session.get(), &position, &context) == NIB_OK);
  CHECK(position == 0);
  CHECK(context == 64);
  Error error;
  const std::vector<nib_token> long_prompt(65, 5);
  CHECK(nib_session_append(session.get(), long_prompt.data(), 65, &error) == NIB_E_CONTEXT_FULL);
  CHECK(error.says("65"));
  CHECK(error.says("64"));
  CHECK(held(session.get()).empty());
  append(session.get(), {5, 6, 7});
  const Story story = generate(session.get(), 0);
  CHECK(story.usage.finish == NIB_FINISH_CONTEXT_FULL);
  CHECK(story.status == NIB_OK);
  CHECK(held(session.get()).size() == 64);
  nib_token id = 77;
  CHECK(nib_session_step(session.get(), &id, &error) == NIB_E_CONTEXT_FULL);
  CHECK(id == 77);
}

TEST_CASE("an empty session and wrong tokens") {
  const RuntimeHandle runtime = make_runtime(1);
  const ModelHandle model = open_model(runtime.get());
  const SessionHandle session = make_session(model.get());
  Error error;
  nib_token id = 77;
  CHECK(nib_session_step(session.get(), &id, &error) == NIB_E_STATE);
  CHECK(nib_session_generate(session.get(), nullptr, nullptr, &error) == NIB_E_STATE);
  CHECK(id == 77);
  const nib_token unknown[] = {5, 4096};
  CHECK(nib_session_append(session.get(), unknown, 2, &error) == NIB_E_ARGUMENT);
  CHECK(error.says("4096"));
  CHECK(nib_session_append(session.get(), nullptr, 2, &error) == NIB_E_ARGUMENT);
  CHECK(nib_session_append(session.get(), nullptr, 0, &error) == NIB_OK);
  CHECK(nib_session_rewind(session.get(), 1, &error) == NIB_E_ARGUMENT);
  CHECK(nib_session_append(nullptr, unknown, 1, &error) == NIB_E_ARGUMENT);
  CHECK(error.says("session"));
  CHECK(held(session.get()).empty());
  append(session.get(), {5});
  CHECK(nib_session_step(session.get(), nullptr, &error) == NIB_E_ARGUMENT);
  CHECK(held(session.get()).size() == 1);
}

TEST_CASE("resume computes only what is new, rewind forgets, and both give the bits of a fresh session") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 2, 512);
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<nib_token> any(0, 4000);
  std::vector<nib_token> first(100);
  for (nib_token& id : first) id = any(random);
  std::vector<nib_token> second = first;
  for (int i = 0; i < 40; ++i) second.push_back(any(random));

  const SessionHandle session = make_session(model.get()), fresh = make_session(model.get());
  append(session.get(), first);
  append(fresh.get(), second);
  std::size_t computed = 0;
  Error error;
  REQUIRE(nib_session_resume(session.get(), second.data(), second.size(), &computed, &error) == NIB_OK);
  CHECK(computed == 40);
  CHECK(held(session.get()) == second);
  CHECK(logits(session.get()) == logits(fresh.get()));

  REQUIRE(nib_session_rewind(session.get(), 70, &error) == NIB_OK);
  CHECK(held(session.get()).size() == 70);
  const std::vector<nib_token> tail(second.begin() + 70, second.end());
  append(session.get(), tail);
  CHECK(logits(session.get()) == logits(fresh.get()));
  CHECK(nib_session_resume(session.get(), second.data(), second.size(), nullptr, nullptr) == NIB_OK);
}

TEST_CASE("a batch step tells each session apart") {
  const RuntimeHandle runtime = make_runtime(2);
  const ModelHandle model = open_model(runtime.get(), 4, 64), other = open_model(runtime.get());
  nib_cancel* made = nullptr;
  REQUIRE(nib_cancel_create(&made) == NIB_OK);
  const CancelHandle cancel(made);
  nib_session_options options = greedy(), cancelled = greedy();
  options.flags |= NIB_SESSION_IGNORE_MODEL_STOPS;
  cancelled.cancel = made;
  const SessionHandle good = make_session(model.get(), &options), full = make_session(model.get(), &options),
                      stopped = make_session(model.get(), &cancelled),
                      empty = make_session(model.get(), &options), foreign = make_session(other.get());
  const std::vector<nib_token> prompt = encode(model.get(), kPrompt);
  append(good.get(), prompt);
  append(stopped.get(), prompt);
  append(full.get(), std::vector<nib_token>(64, 5));
  nib_cancel_trigger(made);

  // The result of a release to come: larger. What lies beyond ours is zeroed.
  struct Newer {
    nib_step_result known;
    std::uint64_t added;
  } results[4];
  std::memset(results, 0x5a, sizeof results);
  nib_session* const all[] = {stopped.get(), full.get(), good.get(), empty.get()};
  Error error;
  REQUIRE(nib_batch_step(all, 4, &results[0].known, sizeof results[0], &error) == NIB_OK);
  CHECK(results[0].known.status == NIB_STOPPED);
  CHECK(results[1].known.status == NIB_E_CONTEXT_FULL);
  CHECK(std::string_view(results[1].known.message, results[1].known.message_size).find("64") !=
        std::string_view::npos);
  CHECK(results[2].known.status == NIB_OK);
  CHECK(results[3].known.status == NIB_E_STATE);
  for (const Newer& result : results) CHECK(result.added == 0);
  CHECK(held(good.get()).size() == prompt.size() + 1);
  CHECK(held(stopped.get()) == prompt);

  // Of an older release: shorter. What lies beyond its end is not touched.
  nib_step_result one;
  std::memset(&one, 0x5a, sizeof one);
  nib_session* const alone[] = {good.get()};
  REQUIRE(nib_batch_step(alone, 1, &one, offsetof(nib_step_result, position), &error) == NIB_OK);
  CHECK(one.id == held(good.get()).back());
  CHECK(one.position == 0x5a5a5a5a5a5a5a5aull);

  nib_step_result untouched[2];
  std::memset(untouched, 0x5a, sizeof untouched);
  nib_session* const twice[] = {good.get(), good.get()};
  CHECK(nib_batch_step(twice, 2, untouched, sizeof untouched[0], &error) == NIB_E_ARGUMENT);
  nib_session* const mixed[] = {good.get(), foreign.get()};
  append(foreign.get(), prompt);
  CHECK(nib_batch_step(mixed, 2, untouched, sizeof untouched[0], &error) == NIB_E_ARGUMENT);
  nib_session* const missing[] = {good.get(), nullptr};
  CHECK(nib_batch_step(missing, 2, untouched, sizeof untouched[0], &error) == NIB_E_ARGUMENT);
  CHECK(nib_batch_step(alone, 1, untouched, 0, &error) == NIB_E_ARGUMENT);
  CHECK(nib_batch_step(nullptr, 1, untouched, sizeof untouched[0], &error) == NIB_E_ARGUMENT);
  CHECK(nib_batch_step(nullptr, 0, nullptr, 0, &error) == NIB_OK);
  CHECK(untouched[0].id == 0x5a5a5a5au);
  append(good.get(), {5});  // every claim was given back
}
