// What `nibble --version` says.
#pragma once

#include <string>

namespace nib::program {

// Version and commit, compiler, and the backends with those that this machine lacks something for.
std::string version_text();
// "0.1.0", and "0.1.0 (1a2b3c4)" when it was built from a git checkout.
std::string version_number();

}  // namespace nib::program
