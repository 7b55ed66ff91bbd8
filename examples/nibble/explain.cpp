// nibble explain: how an opened model is stored and computed, tensor by tensor.
#include "exit_code.hpp"
#include "interrupt.hpp"
#include "numbers.hpp"
#include "opening.hpp"
#include "report.hpp"
#include "terminal.hpp"
#include "verbs.hpp"
#include <nibble/base/concat.hpp>
#include <nibble/kernels/device_layout.hpp>
#include <nibble/runtime/explain.hpp>

#include <algorithm>
#include <cstdio>
#include <set>

namespace nib::program {
namespace {

// Items that differ in nothing but their tensor.
struct Group {
  ExplainItem first;  // bytes and decode_bytes are of all
  std::uint64_t items = 0;

  bool holds(const ExplainItem& item) const {
    return item.op == first.op && item.purpose == first.purpose && item.format == first.format &&
           item.computed == first.computed && item.kernel == first.kernel && item.device == first.device &&
           item.slots == first.slots;
  }
};
std::vector<Group> grouped(std::span<const ExplainItem> items) {
  std::vector<Group> groups;
  for (const ExplainItem& item : items) {
    auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.holds(item); });
    if (same == groups.end()) {
      groups.push_back({item, 1});
    } else {
      same->first.bytes += item.bytes;
      same->first.decode_bytes += item.decode_bytes;
      same->first.locked_bytes += item.locked_bytes;
      ++same->items;
    }
  }
  return groups;
}

double share(std::uint64_t part, std::uint64_t all) {
  return all ? static_cast<double>(part) / static_cast<double>(all) : 0;
}

std::string share_text(const ExplainItem& item, std::uint64_t all) {
  if (item.purpose != Purpose::weights) return "";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%%", 100 * share(item.decode_bytes, all));
  return text;
}

// Where formats without a kernel of their own are multiplied by one for all of them.
std::string generic_text(const Model& model, KernelKind kernel, std::string_view opening,
                         std::string_view closing) {
  std::set<std::string> formats;
  for (const ExplainItem& item : model.explain())
    if (item.kernel == kernel) formats.insert(format_name(item.format));
  std::string text;
  for (const std::string& format : formats) text += concat(text.empty() ? opening : ", ", format);
  return text.empty() ? text : concat(text, closing);
}

// Where experts are when no token needs them.
std::string slots_text(const Model& model) {
  std::uint64_t slots = 0, locked = 0;
  for (const ExplainItem& item : model.explain()) {
    slots = std::max<std::uint64_t>(slots, item.slots);
    locked += item.locked_bytes;
  }
  if (slots == 0) return "";
  return concat("\nExperts take turns in ", slots, " slots of each layer on the device. All of them, ",
                bytes_text(locked),
                ", lie in page-locked\nmemory of the host, and are copied to a slot when a ",
                "token chooses them.\n");
}

// What --fast is about, and whether this device does it.
std::string fast_text(const Model& model, bool asked) {
  if (!asked || model.info().device.empty()) return "";
  for (const ExplainItem& item : model.explain())
    if (item.kernel == KernelKind::wgmma)
      return concat("\nIn passes of ", kFastRows,
                    " rows or more, wgmma is another kernel than for fewer (tiles), ",
                    "of another order\nof additions: results depend on how a prompt is cut, by rounding.\n");
  return "\nNothing is faster with --fast: the device or the formats have no kernels for it.\n";
}

std::string text_report(const Model& model, bool every, bool asked_for_fast) {
  const ModelInfo& info = model.info();
  const bool devices = !info.device.empty();
  Table table(concat("l", every ? "l" : "", "llll", devices ? "l" : "", every ? "" : "r", "rr"));
  const auto row = [&](std::string op, std::string tensor, std::vector<std::string> how, std::string device,
                       std::string items, std::string size, std::string reads) {
    std::vector<std::string> cells = {std::move(op)};
    if (every) cells.push_back(std::move(tensor));
    cells.insert(cells.end(), how.begin(), how.end());
    if (devices) cells.push_back(std::move(device));
    if (!every) cells.push_back(std::move(items));
    cells.insert(cells.end(), {std::move(size), std::move(reads)});
    table.row(std::move(cells));
  };
  row("op", "tensor", {"stored as", "computed in", "kernel", "instructions"}, "device", "items", "size",
      "of a token's reads");
  const auto item_row = [&](const ExplainItem& item, std::uint64_t items) {
    row(std::string(item.op), item.name,
        {format_name(item.format), format_name(item.computed), kernel_name(item.kernel),
         std::string(item.instruction_set)},
        item.device, concat(items), bytes_text(item.bytes), share_text(item, info.decode_bytes));
  };
  if (every) {
    for (const ExplainItem& item : model.explain()) item_row(item, 1);
  } else {
    for (const Group& group : grouped(model.explain())) item_row(group.first, group.items);
  }
  return concat(info.path, ": ", info.architecture, ", ", numerics_name(info.numerics), " numerics, ",
                devices ? concat("on ", computed_by(model)) : "all on the host", "; ",
                bytes_text(info.decode_bytes), " of weights read for one token\n\n", table.text(),
                generic_text(model, KernelKind::records, "\nNo kernel of its own yet: ",
                             ". The generic one (records) decodes value by value from the stored\n"
                             "bytes: right, but slower than reading them would allow.\n"),
                generic_text(model, KernelKind::chain, "\nNo kernel of its own on the device yet: ",
                             ". One for all of these (chain) decodes them\n"
                             "there: right, but slower than reading them would allow.\n"),
                slots_text(model), fast_text(model, asked_for_fast));
}

// For programs: keys are part of what the command line promises.
Json item_json(const ExplainItem& item, std::uint64_t all) {
  return Json::object({{"name", json(item.name)},
                       {"op", json(item.op)},
                       {"purpose", json(purpose_name(item.purpose))},
                       {"format", json(format_name(item.format))},
                       {"computed", json(format_name(item.computed))},
                       {"kernel", json(kernel_name(item.kernel))},
                       {"generic", json(is_generic(item.kernel))},
                       {"instruction_set", json(item.instruction_set)},
                       {"device", json(item.device)},
                       {"bytes", json(item.bytes)},
                       {"decode_bytes", json(item.decode_bytes)},
                       {"decode_share", json(share(item.decode_bytes, all))},
                       {"slots", json(item.slots)},
                       {"locked_bytes", json(item.locked_bytes)}});
}

std::string json_report(const Model& model) {
  const ModelInfo& info = model.info();
  std::vector<Json> items;
  for (const ExplainItem& item : model.explain()) items.push_back(item_json(item, info.decode_bytes));
  return write_json(Json::object({{"path", json(info.path)},
                                  {"architecture", json(info.architecture)},
                                  {"backend", json(info.backend)},
                                  {"device", json_or_null(info.device)},
                                  {"numerics", json(numerics_name(info.numerics))},
                                  {"decode_bytes", json(info.decode_bytes)},
                                  {"items", Json::array(std::move(items))}}),
                    true) +
         "\n";
}

}  // namespace

int explain(const ExplainFlags& flags) {
  const Interrupts interrupts;
  std::string advice;
  const auto opened = open_for(flags.model, interrupts.cancel(), advice, {.tokenizer = false});
  if (!opened.ok()) return fail(opened.status(), advice);
  const Model& model = *opened->model;
  const Status written =
      put(flags.json ? json_report(model) : text_report(model, flags.tensors, flags.model.may_be_fast));
  return written.ok() ? kSuccess : fail(written);
}

}  // namespace nib::program
