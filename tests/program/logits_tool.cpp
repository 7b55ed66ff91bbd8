// logits_tool MODEL ID...: the logits behind these tokens, in f32 numerics, as raw little-endian floats.
#include <nibble/runtime/session.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

using namespace nib;

namespace {

Status print(const char* path, const std::vector<Token>& tokens) {
  NIB_ASSIGN(const std::shared_ptr<Runtime> runtime, Runtime::create({}));
  ModelOptions options;
  options.numerics = Numerics::f32;
  SessionOptions session_options;
  session_options.context = 256;
  NIB_ASSIGN(const std::shared_ptr<Model> model, Model::open(runtime, path, options, session_options));
  NIB_ASSIGN(const std::unique_ptr<Session> session, Session::create(model, session_options));
  NIB_TRY(session->append(tokens));
  std::fwrite(session->logits().data(), sizeof(float), session->logits().size(), stdout);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Token> tokens;
  for (int i = 2; i < argc; ++i) tokens.push_back(static_cast<Token>(std::strtoul(argv[i], nullptr, 10)));
  const Status status =
      argc > 2 ? print(argv[1], tokens) : Status(Code::argument, "usage: logits_tool MODEL ID...");
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
