// Cancel is sticky and may be triggered from anywhere; ProgressSink hands everything on.
#include <nibble/base/cancel.hpp>

#include <atomic>
#include <csignal>
#include <string>
#include <thread>

#include <doctest/doctest.h>

namespace nib::test {
namespace {

Cancel of_the_signal;
void on_signal(int) { of_the_signal.trigger(); }

TEST_CASE("cancel: untriggered, triggered for good, and again after a reset") {
  Cancel cancel;
  CHECK_FALSE(cancel.triggered());
  cancel.reset();
  CHECK_FALSE(cancel.triggered());
  cancel.trigger();
  cancel.trigger();
  CHECK(cancel.triggered());
  CHECK(cancel.triggered());
  cancel.reset();
  CHECK_FALSE(cancel.triggered());
  cancel.trigger();
  CHECK(cancel.triggered());
}

TEST_CASE("cancel: from another thread") {
  Cancel cancel, back;
  std::thread other([&] {
    while (!cancel.triggered()) std::this_thread::yield();
    back.trigger();
  });
  cancel.trigger();
  other.join();
  CHECK(back.triggered());
}

TEST_CASE("cancel: from a signal handler") {
  static_assert(std::atomic<bool>::is_always_lock_free);  // what a handler may touch
  of_the_signal.reset();
  const auto before = std::signal(SIGUSR1, on_signal);
  std::raise(SIGUSR1);
  std::signal(SIGUSR1, before);
  CHECK(of_the_signal.triggered());
}

TEST_CASE("progress: the sink gets what is said; not zero asks to stop; no sink never does") {
  struct Heard {
    int answer = 0;
    Progress last{Stage::read, 0, 0, {}};
    int calls = 0;
  } heard;
  const ProgressSink sink{[](void* user, const Progress& progress) {
                            Heard& to = *static_cast<Heard*>(user);
                            to.last = progress;
                            ++to.calls;
                            return to.answer;
                          },
                          &heard};
  const std::string name = "model.norm.weight";
  CHECK_FALSE(sink({Stage::pack, 7, 9, name}));
  CHECK(heard.calls == 1);
  CHECK(heard.last.stage == Stage::pack);
  CHECK(heard.last.done == 7);
  CHECK(heard.last.total == 9);
  CHECK(heard.last.name == name);
  for (const int answer : {1, -1, 255}) {
    heard.answer = answer;
    CHECK(sink({Stage::prefill, 1, 1, {}}));
  }
  CHECK_FALSE(ProgressSink{}({Stage::read, 0, 0, {}}));
}

}  // namespace
}  // namespace nib::test
