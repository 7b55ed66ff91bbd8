// What the tests of the C interface share: handles that free themselves, and a small opened model.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <nibble.h>

namespace nib::test {

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* handle) const {
    Free(handle);
  }
};
using RuntimeHandle = std::unique_ptr<nib_runtime, Freer<nib_runtime_free>>;
using PlanHandle = std::unique_ptr<nib_plan, Freer<nib_plan_free>>;
using ModelHandle = std::unique_ptr<nib_model, Freer<nib_model_free>>;
using SessionHandle = std::unique_ptr<nib_session, Freer<nib_session_free>>;
using CancelHandle = std::unique_ptr<nib_cancel, Freer<nib_cancel_free>>;

struct Error : nib_error {
  Error() : nib_error NIB_ERROR_INIT {}
  std::string_view text() const { return message; }
  bool says(std::string_view part) const { return text().find(part) != text().npos; }
};

// A handle output that is not null, to see that failures make it so.
template <class T>
T* garbage() {
  return reinterpret_cast<T*>(std::uintptr_t{64});
}

// The model that ships with the program.
inline const char* model_path() { return NIB_TEST_MODEL; }

inline RuntimeHandle make_runtime(std::uint32_t threads = 2) {
  nib_runtime_options options = NIB_RUNTIME_OPTIONS_INIT;
  options.threads = threads;
  nib_runtime* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_runtime_create(&options, &out, &error) == NIB_OK, error.text());
  return RuntimeHandle(out);
}

inline ModelHandle open_model(nib_runtime* runtime, std::uint32_t sessions = 1, std::uint32_t context = 0) {
  nib_model_options options = NIB_MODEL_OPTIONS_INIT;
  options.sessions = sessions;
  options.session_context = context;
  nib_model* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_model_open(runtime, model_path(), NIB_NUL, &options, &out, &error) == NIB_OK,
                  error.text());
  return ModelHandle(out);
}

inline SessionHandle make_session(nib_model* model, const nib_session_options* options = nullptr) {
  nib_session* out = nullptr;
  Error error;
  REQUIRE_MESSAGE(nib_session_create(model, options, &out, &error) == NIB_OK, error.text());
  return SessionHandle(out);
}

inline nib_session_options greedy() {
  nib_session_options options = NIB_SESSION_OPTIONS_INIT;
  options.flags = NIB_SESSION_GREEDY;
  return options;
}

inline std::vector<nib_token> encode(const nib_model* model, std::string_view text, std::uint32_t flags = 0) {
  std::size_t count = 0;
  REQUIRE(nib_model_encode(model, text.data(), text.size(), flags, nullptr, 0, &count, nullptr) == NIB_OK);
  std::vector<nib_token> tokens(count);
  REQUIRE(nib_model_encode(model, text.data(), text.size(), flags, tokens.data(), count, &count, nullptr) ==
          NIB_OK);
  return tokens;
}

inline std::string decode(const nib_model* model, const std::vector<nib_token>& tokens,
                          std::uint32_t flags = 0) {
  std::size_t size = 0;
  REQUIRE(nib_model_decode(model, tokens.data(), tokens.size(), flags, nullptr, 0, &size, nullptr) == NIB_OK);
  std::string text(size, '\0');
  REQUIRE(nib_model_decode(model, tokens.data(), tokens.size(), flags, text.data(), size, &size, nullptr) ==
          NIB_OK);
  return text;
}

inline void append(nib_session* session, const std::vector<nib_token>& tokens) {
  Error error;
  REQUIRE_MESSAGE(nib_session_append(session, tokens.data(), tokens.size(), &error) == NIB_OK, error.text());
}

inline std::vector<nib_token> held(const nib_session* session) {
  const nib_token* tokens = nullptr;
  std::size_t count = 0;
  REQUIRE(nib_session_get_tokens(session, &tokens, &count) == NIB_OK);
  return {tokens, tokens + count};
}

inline std::vector<float> logits(const nib_session* session) {
  const float* values = nullptr;
  std::size_t count = 0;
  REQUIRE(nib_session_get_logits(session, &values, &count) == NIB_OK);
  return {values, values + count};
}

}  // namespace nib::test
