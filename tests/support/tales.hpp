// The story model that ships with nibble: always there, so that every room is tested without the data folder.
#pragma once

#include <nibble/runtime/session.hpp>

#include <cstddef>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace nib::test {

inline const std::string kTales = NIBBLE_TALES;  // set by CMake

inline std::shared_ptr<Runtime> make_runtime(int threads = 2) {
  return Runtime::create({.threads = threads}).take();
}

inline std::shared_ptr<Model> open_tales(const ModelOptions& options = {}, const SessionOptions& session = {},
                                         int threads = 2) {
  auto model = Model::open(make_runtime(threads), kTales, options, session);
  REQUIRE_MESSAGE(model.ok(), model.status().message());
  return model.take();
}

inline std::unique_ptr<Session> start(const std::shared_ptr<Model>& model,
                                      const SessionOptions& options = {}) {
  auto session = Session::create(model, options);
  REQUIRE_MESSAGE(session.ok(), session.status().message());
  return session.take();
}

// Words of its vocabulary, none of them special.
inline std::vector<Token> random_tokens(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(random() % 4000);
  return tokens;
}

}  // namespace nib::test
