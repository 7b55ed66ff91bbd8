// The emulated backend is joined to this library where it can be built.
#include "support/backends.hpp"
