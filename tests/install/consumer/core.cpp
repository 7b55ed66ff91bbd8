// A program that composes its own runtime of the C++ rooms: core MODEL.
#include <nibble/runtime/session.hpp>

#include <cstdio>

int main(int, char** arguments) {
  auto runtime = nib::Runtime::create();
  if (!runtime) return 1;
  auto model = nib::Model::open(*runtime, arguments[1]);
  if (!model) {
    std::fprintf(stderr, "%s\n", model.status().message().c_str());
    return 1;
  }
  std::printf("%s: %u layers\n", (*model)->info().architecture.c_str(), (*model)->info().layers);
  return 0;
}
