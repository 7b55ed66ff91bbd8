// The registry: the only place that knows every backend by name.
#include <nibble/base/concat.hpp>
#include <nibble/kernels/backend.hpp>
#include <nibble/runtime/runtime.hpp>

namespace nib::inline v0 {

Result<std::shared_ptr<Runtime>> Runtime::create(const RuntimeOptions& options) {
  if (options.threads < 0 || options.threads > 4096)
    return Status(Code::argument,
                  concat("threads: expected 0 (one for each processor) to 4096, found ", options.threads));
  std::shared_ptr<Runtime> runtime(new Runtime);
  runtime->machine_ = this_machine();
  runtime->allocator_ = options.allocator;
  if (options.runner.run) {
    runtime->pool_ = Pool::borrow(options.runner);
  } else {
    NIB_ASSIGN(runtime->pool_, Pool::start(options.threads ? options.threads : runtime->machine_.threads));
  }
  for (const Backend* backend : cpu_backends()) {
    const bool present = backend->present(runtime->machine_.features);
    runtime->backends_.push_back({backend, backend->name, present, present ? "" : backend->needs});
  }
  return runtime;
}

Runtime::~Runtime() = default;

Result<const Backend*> Runtime::backend(std::string_view name) const {
  std::string known;
  for (const BackendInfo& info : backends_) {
    if (name.empty() ? info.present : info.name == name) {
      if (info.present) return info.backend;
      return Status(Code::unsupported, concat("backend ", name, ": this processor lacks ", info.missing));
    }
    known += concat(known.empty() ? "" : ", ", info.name);
  }
  return Status(Code::not_found, concat("backend \"", name, "\" is not known (known: ", known, ")"));
}

}  // namespace nib::inline v0
