// Room capi: nib_model.
#include "handles.hpp"
#include "versioned.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace nib::capi {
namespace {

Result<nib_model*> open_planned(const std::shared_ptr<const Host>& host, const Plan& plan) {
  NIB_ASSIGN(auto model, nib::Model::open(host->runtime, plan));
  const ModelInfo& info = model->info();
  host->log(NIB_LOG_INFO,
            concat(info.path, ": ", info.architecture, ", ", info.layers, " layers, backend ", info.backend,
                   ", ", plan.summary.host_bytes, " bytes planned",
                   info.device.empty() ? std::string()
                                       : concat(", ", plan.summary.device_bytes, " on ", info.device)));
  return new nib_model{host, std::move(model)};
}

std::uint64_t in_use(const Memory& memory) {
  std::uint64_t bytes = 0;
  for (int purpose = 0; purpose < kPurposes; ++purpose) bytes += memory.in_use(static_cast<Purpose>(purpose));
  return bytes;
}

Result<const Tokenizer*> tokenizer_of(const nib_model& model) {
  if (const Tokenizer* tokenizer = model.model->tokenizer()) return tokenizer;
  return Status(Code::not_found, concat(model.model->info().path, " has no tokenizer.json"));
}

Result<Specials> read_text_flags(std::uint32_t flags) {
  NIB_TRY(check_flags(flags, NIB_TEXT_SPECIALS, "the call"));
  return flags & NIB_TEXT_SPECIALS ? Specials::recognised : Specials::ordinary;
}

// Gives the caller `values`, or what size would hold them. A capacity of zero only asks.
template <class T>
Status fill(std::span<const T> values, T* buffer, std::size_t capacity, std::size_t* out_size) {
  if (capacity != 0 && capacity < values.size()) {
    *out_size = values.size();
    return {Code::small_buffer,
            concat("buffer has room for ", capacity, ", but ", values.size(), " are needed")};
  }
  if (capacity != 0 && !values.empty()) std::memcpy(buffer, values.data(), values.size_bytes());
  *out_size = values.size();
  return {};
}

}  // namespace
}  // namespace nib::capi

using namespace nib;
using namespace nib::capi;

extern "C" {

nib_status nib_model_open(nib_runtime* runtime, const char* path, size_t path_size,
                          const nib_model_options* options, nib_model** out, nib_error* error) {
  if (out) *out = nullptr;
  return guard(error, [&]() -> Status {
    NIB_TRY(require(out, "out"));
    NIB_TRY(usable_here(runtime, "runtime"));
    NIB_ASSIGN(const std::string_view where, read_path(path, path_size));
    ModelRequest request;
    NIB_TRY(request.read(options));
    SessionOptions planned;
    planned.context = request.context;
    NIB_ASSIGN(const Plan plan,
               make_plan(*runtime->host->runtime, where, request.options, planned, request.sessions));
    NIB_ASSIGN(*out, open_planned(runtime->host, plan));
    return {};
  });
}

nib_status nib_model_open_planned(nib_plan* plan, nib_model** out, nib_error* error) {
  if (out) *out = nullptr;
  return guard(error, [&]() -> Status {
    NIB_TRY(require(out, "out"));
    NIB_TRY(usable_here(plan, "plan"));
    if (plan->opened.exchange(true)) return {Code::state, "the plan has been opened before"};
    // Until the model stands the plan may be tried again, whatever ends the attempt.
    struct Attempt {
      std::atomic<bool>* opened;
      ~Attempt() {
        if (opened) *opened = false;
      }
    } attempt{&plan->opened};
    NIB_ASSIGN(*out, open_planned(plan->host, plan->plan));
    attempt.opened = nullptr;
    return {};
  });
}

nib_status nib_model_get_info(const nib_model* model, nib_model_info* out) {
  return guard(nullptr, [&]() -> Status {
    NIB_TRY(usable_here(model, "model"));
    NIB_TRY(check_output(out, "nib_model_info"));
    const ModelInfo& info = model->model->info();
    const auto& bos = model->model->defaults().bos;
    nib_model_info value = NIB_MODEL_INFO_INIT;
    if (bos) value.flags |= NIB_MODEL_HAS_BOS;
    if (model->model->tokenizer()) value.flags |= NIB_MODEL_HAS_TOKENIZER;
    value.path = info.path.c_str();
    value.path_size = info.path.size();
    value.architecture = info.architecture.c_str();
    value.architecture_size = info.architecture.size();
    value.backend = info.backend.c_str();
    value.backend_size = info.backend.size();
    value.numerics = static_cast<uint32_t>(info.numerics);
    value.kv_format = static_cast<uint32_t>(info.kv_format);
    value.layers = info.layers;
    value.hidden = info.hidden;
    value.vocabulary = info.vocabulary;
    value.experts = info.experts;
    value.experts_per_token = info.experts_per_token;
    value.max_context = info.max_context;
    value.parameters = info.parameters;
    value.decode_bytes = info.decode_bytes;
    value.prefill_flops = info.prefill_flops;
    value.host_bytes = in_use(model->model->memory());
    value.device = info.device.c_str();
    value.device_size = info.device.size();
    if (const Memory* there = model->model->device_memory()) value.device_bytes = in_use(*there);
    value.bos = bos.value_or(0);
    write_struct(value, out);
    return {};
  });
}

nib_status nib_model_explain(const nib_model* model, uint32_t index, nib_explain_item* out) {
  return guard(nullptr, [&]() -> Status {
    NIB_TRY(usable_here(model, "model"));
    NIB_TRY(check_output(out, "nib_explain_item"));
    const auto items = model->model->explain();
    if (index >= items.size()) return {Code::end, ""};
    const ExplainItem& item = items[index];
    nib_explain_item value = NIB_EXPLAIN_ITEM_INIT;
    value.flags = is_generic(item.kernel) ? NIB_EXPLAIN_GENERIC : 0;
    value.purpose = static_cast<uint32_t>(item.purpose);
    value.bytes = item.bytes;
    value.decode_bytes = item.decode_bytes;
    const auto lend = [](std::string_view text, const char*& data, size_t& size) {
      data = text.data();
      size = text.size();
    };
    lend(item.name, value.name, value.name_size);
    lend(item.op, value.op, value.op_size);
    lend(format_name(item.format), value.format, value.format_size);
    lend(format_name(item.computed), value.computed, value.computed_size);
    lend(kernel_name(item.kernel), value.kernel, value.kernel_size);
    lend(item.instruction_set, value.instruction_set, value.instruction_set_size);
    lend(item.device, value.device, value.device_size);
    value.slots = item.slots;
    value.locked_bytes = item.locked_bytes;
    write_struct(value, out);
    return {};
  });
}

nib_status nib_model_encode(const nib_model* model, const char* text, size_t text_size, uint32_t flags,
                            nib_token* buffer, size_t capacity, size_t* out_count, nib_error* error) {
  return guard(error, [&]() -> Status {
    NIB_TRY(usable_here(model, "model"));
    NIB_TRY(require(out_count, "out_count"));
    if (capacity != 0) NIB_TRY(require(buffer, "buffer"));
    NIB_ASSIGN(const std::string_view given, read_text(text, text_size, "text"));
    NIB_ASSIGN(const Specials specials, read_text_flags(flags));
    NIB_ASSIGN(const Tokenizer* tokenizer, tokenizer_of(*model));
    std::vector<Token> ids;
    NIB_TRY(tokenizer->encode(given, specials, ids));
    return fill<Token>(ids, buffer, capacity, out_count);
  });
}

nib_status nib_model_decode(const nib_model* model, const nib_token* tokens, size_t count, uint32_t flags,
                            char* buffer, size_t capacity, size_t* out_size, nib_error* error) {
  return guard(error, [&]() -> Status {
    NIB_TRY(usable_here(model, "model"));
    NIB_TRY(require(out_size, "out_size"));
    if (capacity != 0) NIB_TRY(require(buffer, "buffer"));
    if (count != 0) NIB_TRY(require(tokens, "tokens"));
    NIB_ASSIGN(const Specials specials, read_text_flags(flags));
    NIB_ASSIGN(const Tokenizer* tokenizer, tokenizer_of(*model));
    // A model may have more rows than its tokenizer has names: those are known, and spelled as nothing.
    const std::size_t known = std::max<std::size_t>(tokenizer->size(), model->model->info().vocabulary);
    const std::span<const Token> ids(tokens, count);
    const auto unknown = std::find_if(ids.begin(), ids.end(), [&](Token id) { return id >= known; });
    if (unknown != ids.end())
      return {Code::argument, concat("token ", *unknown, " is not among the ", known, " of the model")};
    const std::string text = tokenizer->decode(ids, specials);
    return fill<char>(text, buffer, capacity, out_size);
  });
}

void nib_model_free(nib_model* model) { free_here(model); }

}  // extern "C"
