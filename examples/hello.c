/* hello: writes a story with a model, through nibble.h and nothing else.
 *
 *   hello MODEL [BEGINNING]        hello examples/models/tales "Once upon a time"
 */
#include <nibble.h>
#include <stdio.h>
#include <stdlib.h>

static int32_t print_text(void* user, const nib_token_event* event) {
  (void)user;
  fwrite(event->text, 1, event->text_size, stdout);
  return fflush(stdout); /* not zero, when nobody reads any more: stop */
}

/* Opens a model, appends a beginning and generates until the model says that the story is over. */
static nib_status tell(const char* path, const char* beginning, nib_usage* usage, nib_error* error) {
  nib_runtime* runtime = NULL;
  nib_model* model = NULL;
  nib_session* session = NULL;
  nib_token* tokens = NULL;
  size_t count = 0;
  nib_session_options drawing = NIB_SESSION_OPTIONS_INIT;
  nib_generate_options options = NIB_GENERATE_OPTIONS_INIT;
  nib_status status;
  drawing.seed = 7; /* another seed, another story; the same seed, the same story on every machine */
  options.max_tokens = 300;
  options.on_token = print_text;

  status = nib_runtime_create(NULL, &runtime, error);
  if (status == NIB_OK) status = nib_model_open(runtime, path, NIB_NUL, NULL, &model, error);
  if (status == NIB_OK) status = nib_session_create(model, &drawing, &session, error);

  /* Text to tokens: ask how many, make room, encode. */
  if (status == NIB_OK) status = nib_model_encode(model, beginning, NIB_NUL, 0, NULL, 0, &count, error);
  if (status == NIB_OK) {
    tokens = (nib_token*)malloc((count + 1) * sizeof *tokens);
    if (!tokens) status = NIB_E_MEMORY;
  }
  if (status == NIB_OK) status = nib_model_encode(model, beginning, NIB_NUL, 0, tokens, count, &count, error);
  if (status == NIB_OK) status = nib_session_append(session, tokens, count, error);
  if (status == NIB_OK) {
    printf("%s", beginning);
    status = nib_session_generate(session, &options, usage, error);
  }
  free(tokens);
  nib_runtime_free(runtime); /* in any order: what is still needed is kept */
  nib_model_free(model);
  nib_session_free(session);
  return status;
}

int main(int argc, char** argv) {
  nib_usage usage = NIB_USAGE_INIT;
  nib_error error = NIB_ERROR_INIT;
  nib_status status;
  if (argc < 2) {
    fprintf(stderr, "usage: hello MODEL [BEGINNING]\n");
    return 2;
  }
  status = tell(argv[1], argc > 2 ? argv[2] : "Once upon a time", &usage, &error);
  if (status < 0) {
    fprintf(stderr, "\nhello: %s: %s\n", nib_status_name(status), error.message);
    return 1;
  }
  printf("\n");
  fprintf(stderr, "%.0f tokens per second\n", (double)usage.tokens / usage.decode_seconds);
  return 0;
}
