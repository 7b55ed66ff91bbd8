// Whether a sanitizer that keeps memory of its own is compiled in, by GCC or Clang: limits on memory and
// measurements of it then mean nothing.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NIB_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NIB_SANITIZED 1
#endif
#endif
