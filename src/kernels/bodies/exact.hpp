// Canonical results on processors that flush otherwise (canonical.hpp says how). Their verbs A are fast and
// know whether a result was flushed meanwhile (A::flushes); then the work is done again by A::Exact, verbs
// that look at every result. Other processors have nothing of it.
#pragma once

#include <nibble/kernels/backend.hpp>

#include <type_traits>

namespace nib::inline v0::cpu {

template <class A>
struct ExactVerbs {
  using Type = A;
};
template <class A>
requires requires { typename A::Exact; }
struct ExactVerbs<A> {
  using Type = typename A::Exact;
};
template <class A>
using ExactOf = typename ExactVerbs<A>::Type;

template <class A>
struct Verbs {};

// Calls work(Verbs<A>()), whose results are the same however often, and perhaps work(Verbs<A::Exact>()).
template <class A, class Work>
[[gnu::always_inline]] inline void exactly(Work&& work) {
  if constexpr (std::is_same_v<A, ExactOf<A>>)
    work(Verbs<A>());
  else if (A::flushes([&] { work(Verbs<A>()); }))
    work(Verbs<ExactOf<A>>());
}

// T<A, ...> as T<B, ...>.
template <class T, class B>
struct Rebind;
template <template <class...> class T, class A, class... Rest, class B>
struct Rebind<T<A, Rest...>, B> {
  using Type = T<B, Rest...>;
};
template <class T, class B>
using Rebound = typename Rebind<T, B>::Type;

}  // namespace nib::inline v0::cpu
