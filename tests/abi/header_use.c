/* A file that uses all of nibble.h as the oldest C and C++ would: compiled by every standard and compiler at
 * hand, and linked into the test program as C. */
#include <nibble.h>
#include <nibble.h> /* twice does no harm */
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif
int wrong_initializers_in_c(void);
int on_any_token(void* user, const nib_token_event* event);
#ifdef __cplusplus
}
#endif

/* How many initializers are not all zero but for the size. */
int wrong_initializers_in_c(void) {
  int wrong = 0;
#define STRUCT(type, INIT)                           \
  {                                                  \
    type made = INIT;                                \
    type zero;                                       \
    memset(&zero, 0, sizeof zero);                   \
    zero.struct_size = sizeof zero;                  \
    wrong += memcmp(&made, &zero, sizeof made) != 0; \
  }
#include "structs.inc"
#undef STRUCT
  return wrong;
}

int on_any_token(void* user, const nib_token_event* event) {
  nib_generate_options options = NIB_GENERATE_OPTIONS_INIT;
  nib_session_options session = NIB_SESSION_OPTIONS_INIT;
  options.on_token = on_any_token;
  options.on_token_user = user;
  session.flags = NIB_SESSION_GREEDY | NIB_SESSION_SHOW_SPECIALS;
  return (event->flags & NIB_TOKEN_END) != 0 && event->text_size == NIB_NUL && NIB_VERSION > 0 &&
         options.cancel == session.cancel;
}
