/* nibble.h: the stable C interface of nibble, which runs 4-bit language models inside your program.
 *
 * C99, enough on its own. What is not in this file is not promised; what is in it stays (docs/ABI.md). Six
 * rules hold everywhere and are not repeated below:
 *
 * 1. Status. A negative nib_status means failed: outputs are untouched, and a handle output is NULL. A
 *    positive one means done, with news. After any failure every object may still be used and must still be
 *    freed.
 * 2. Zero means default, in every field of every struct. The NIB_..._INIT macros set the size and zero the
 *    rest. NULL for a whole options struct means all defaults. `reserved` stays zero.
 * 3. Sized structs. The first field is the caller's sizeof. What an older caller does not have counts as
 *    zero; what a newer caller sets and this library does not know is NIB_E_VERSION, and so is an unknown
 *    flag. Structs that come back are filled as far as they fit, and zeroed beyond what the library knows.
 *    A struct_size of 0 is always NIB_E_ARGUMENT.
 * 4. Ownership. Handles are yours until you free them; every _free accepts NULL; free in any order, because
 *    what is still needed is kept inside. Buffers are yours. Pointers that come back are borrowed: each
 *    declaration says until when. Nothing else is ever freed by you.
 * 5. Text is UTF-8 as pointer and size; a size of NIB_NUL says that it ends with a NUL. Text that comes back
 *    in an _info, _item or nib_error also ends with one.
 * 6. Threads. [any]: any number of threads at once. [session]: one thread at a time for each session; a
 *    second caller, also a callback calling back into its own session, gets NIB_E_BUSY. [signal]: like [any],
 *    and from signal handlers. After fork() a handle of the parent is good for nothing in the child but
 *    nib_cancel and the _free functions (which do nothing there): all else that takes one is NIB_E_STATE. A
 *    child that wants to compute makes a runtime of its own.
 */
#ifndef NIBBLE_H
#define NIBBLE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NIB_API __attribute__((visibility("default")))
#else
#define NIB_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Versions, status, errors -------------------------------------------------------------------------- */

#define NIB_VERSION_MAJOR 0
#define NIB_VERSION_MINOR 1
#define NIB_VERSION_PATCH 0
/* 1002003 is 1.2.3; to compare with nib_version(). */
#define NIB_VERSION (NIB_VERSION_MAJOR * 1000000 + NIB_VERSION_MINOR * 1000 + NIB_VERSION_PATCH)
/* Grows by one with every release that adds to this file; to compare with nib_abi_version(). */
#define NIB_ABI_VERSION 1

typedef int32_t nib_status;
/* Values are never reused. */
enum {
  NIB_OK = 0,
  NIB_STOPPED = 1, /* a callback or a cancel asked; everything is consistent and usable */
  NIB_END = 2,     /* this token ends the answer; or: past the last item */

  NIB_E_ARGUMENT = -1, /* the call cannot be right: a NULL, a value out of range */
  NIB_E_STATE = -2,    /* right, but not now: nothing computed yet, a plan opened twice, a forked child */
  NIB_E_VERSION = -3,  /* asks for something that this version does not know */
  NIB_E_BUSY = -4,     /* the session is at work for another caller */

  NIB_E_NOT_FOUND = -10,   /* no such file, backend, device */
  NIB_E_IO = -11,          /* reading failed */
  NIB_E_FORMAT = -12,      /* a file says something it must not say */
  NIB_E_UNSUPPORTED = -13, /* the file may be right, but this library or this machine cannot do it */

  NIB_E_MEMORY = -20,        /* the host gave no memory */
  NIB_E_BUDGET = -21,        /* it would not fit into what was allowed */
  NIB_E_DEVICE_MEMORY = -22, /* the device gave no memory */
  NIB_E_DEVICE = -23,        /* the device failed or is lost */

  NIB_E_CONTEXT_FULL = -30, /* more positions than the session has */
  NIB_E_SMALL_BUFFER = -31, /* the size that is needed has been written: the one output on a failure */

  NIB_E_INTERNAL = -99 /* a defect of nibble: please report it with the message */
};

/* As a size of text: it ends with a NUL. */
#define NIB_NUL SIZE_MAX

/* Why a call failed, in one sentence that names your thing: the file, the tensor, the option. Yours, and
 * optional: pass NULL to do without. Written by every call it is given to: after NIB_OK, status is NIB_OK and
 * message is empty. A longer sentence is cut at a character. */
typedef struct nib_error {
  uint32_t struct_size;
  nib_status status;
  char message[504];
} nib_error;
#define NIB_ERROR_INIT          \
  {                             \
    sizeof(nib_error), 0, { 0 } \
  }

/* Text with its size. This pair never grows. */
typedef struct nib_string {
  const char* data;
  size_t size;
} nib_string;

typedef struct nib_runtime nib_runtime;
typedef struct nib_plan nib_plan;
typedef struct nib_model nib_model;
typedef struct nib_session nib_session;
typedef struct nib_cancel nib_cancel;
typedef uint32_t nib_token;

/* NIB_VERSION of the library that is loaded. [signal] */
NIB_API uint32_t nib_version(void);
/* NIB_ABI_VERSION of the library that is loaded: has everything that a header of this or a smaller number
 * declares. [signal] */
NIB_API uint32_t nib_abi_version(void);
/* Version, compiler, weight formats and backends compiled in, for a bug report. Static. [signal] */
NIB_API const char* nib_build_info(void);
/* "NIB_E_FORMAT" and so on; "NIB_E_INTERNAL" for a number that is none of ours. Static. [signal] */
NIB_API const char* nib_status_name(nib_status status);

/* ---- Cancel: a flag that anyone may raise -------------------------------------------------------------- */

/* Work that was given a cancel returns NIB_STOPPED soon after it is triggered: within one tensor of a load or
 * one layer of a forward pass. It stays triggered until it is reset. One cancel may serve any number of
 * calls, models and sessions; they keep it alive. */

/* A cancel that is not triggered. On failure *out is NULL. Errors: ARGUMENT, MEMORY. [any] */
NIB_API nib_status nib_cancel_create(nib_cancel** out);
/* Accepts NULL. [signal] */
NIB_API void nib_cancel_trigger(nib_cancel* cancel);
/* Accepts NULL. [signal] */
NIB_API void nib_cancel_reset(nib_cancel* cancel);
/* Accepts NULL. [any] */
NIB_API void nib_cancel_free(nib_cancel* cancel);

/* ---- Runtime: threads, memory source, backends --------------------------------------------------------- */

/* Part `index` of the work that run_threads was given. */
typedef void (*nib_task_fn)(void* task_arg, int32_t index);
/* Your threads instead of ours: calls task(task_arg, i) once for each i in [0, threads), on any threads, and
 * returns when all have returned. The tasks do not wait for one another. */
typedef void (*nib_run_threads_fn)(void* user, int32_t threads, nib_task_fn task, void* task_arg);
/* Memory for weights, caches and activations (objects of a few bytes come from operator new). Returns NULL
 * when there is none. Called from any thread. */
typedef void* (*nib_allocate_fn)(void* user, size_t bytes, size_t alignment);
/* Takes back what nib_allocate_fn gave, with the same number of bytes. Called from any thread. */
typedef void (*nib_release_fn)(void* user, void* memory, size_t bytes);
/* One line, without a newline; `text` lives for the call. Called from any thread. */
typedef void (*nib_log_fn)(void* user, int32_t level, const char* text, size_t size);
enum { NIB_LOG_ERROR = 1, NIB_LOG_WARNING = 2, NIB_LOG_INFO = 3 };

typedef struct nib_runtime_options {
  uint32_t struct_size;
  uint32_t flags;                 /* none yet */
  uint32_t threads;               /* threads that compute, the caller counted; 0: one per usable processor */
  uint32_t reserved;              /* zero */
  nib_run_threads_fn run_threads; /* NULL: the runtime starts its own. Set: `threads` must be set as well */
  void* run_threads_user;
  nib_allocate_fn allocate; /* both or neither; NULL: the system */
  nib_release_fn release;
  void* allocator_user;
  nib_log_fn on_log; /* NULL: silence. nibble writes to no stream of its own */
  void* on_log_user;
  const char* cuda_library; /* libnibble-cuda.so or its folder; empty: beside this library, then anywhere.
                               Opened by the first model that has layers on a device */
  size_t cuda_library_size;
} nib_runtime_options;
#define NIB_RUNTIME_OPTIONS_INIT \
  { sizeof(nib_runtime_options), 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0 }

enum { NIB_BACKEND_PRESENT = 1 }; /* this machine can run it */

typedef struct nib_backend_info {
  uint32_t struct_size;
  uint32_t flags;   /* NIB_BACKEND_... */
  const char* name; /* "avx512", "avx-vnni", "avx2", "neon", "scalar" */
  size_t name_size;
  const char* missing; /* "some of AVX2, FMA and F16C"; empty when it is present */
  size_t missing_size;
} nib_backend_info;
#define NIB_BACKEND_INFO_INIT \
  { sizeof(nib_backend_info), 0, NULL, 0, NULL, 0 }

/* How activations are kept at the inputs of matrix products. Weights are never rounded. */
enum {
  NIB_NUMERICS_BF16 = 0, /* rounded to bf16 */
  NIB_NUMERICS_F32 = 1,  /* not rounded; half the prefill rate */
  NIB_NUMERICS_INT8 = 2  /* rounded to whole numbers of a byte where weights are such; the fastest */
};

/* The best that this machine does, measured: the ceiling of every rate. */
typedef struct nib_machine_rates {
  uint32_t struct_size;
  uint32_t reserved;
  double read_bytes_per_second; /* from main memory, all threads together */
  double dot_flops_per_second;  /* a multiply-add is two, all threads together */
} nib_machine_rates;
#define NIB_MACHINE_RATES_INIT \
  { sizeof(nib_machine_rates), 0, 0, 0 }

/* Starts threads; reads no environment. On failure *out is NULL. Errors: ARGUMENT, VERSION, MEMORY. [any] */
NIB_API nib_status nib_runtime_create(const nib_runtime_options* options, nib_runtime** out,
                                      nib_error* error);
/* Backend number `index` of those compiled in, best first. NIB_END past the last, and *out is untouched.
 * Strings are borrowed until the runtime is freed. Errors: ARGUMENT, STATE. [any] */
NIB_API nib_status nib_runtime_get_backend(const nib_runtime* runtime, uint32_t index, nib_backend_info* out);
/* Measures for about `seconds` (up to 60; 0: half a second) with all threads: nothing else should run.
 * `backend` is a name, empty for the best present; `numerics` is a NIB_NUMERICS_... Keep the result for
 * nib_plan_predict. Errors: ARGUMENT, NOT_FOUND, UNSUPPORTED, MEMORY, STATE. [any], blocks */
NIB_API nib_status nib_runtime_measure(const nib_runtime* runtime, const char* backend, size_t backend_size,
                                       uint32_t numerics, double seconds, nib_machine_rates* out,
                                       nib_error* error);
/* Accepts NULL. Threads end when the last model and session of the runtime are freed too. [any] */
NIB_API void nib_runtime_free(nib_runtime* runtime);

/* ---- Options of models and sessions -------------------------------------------------------------------- */

enum {
  NIB_STAGE_READ = 0,    /* done and total are bytes, name is a tensor */
  NIB_STAGE_PACK = 1,    /* the same */
  NIB_STAGE_PREFILL = 2, /* done and total are tokens */
  NIB_STAGE_QUANTIZE = 3 /* as NIB_STAGE_READ */
};

typedef struct nib_progress {
  uint32_t struct_size; /* the library's */
  uint32_t stage;       /* NIB_STAGE_... */
  uint64_t done, total;
  const char* name; /* lives for the call, like the struct itself */
  size_t name_size;
} nib_progress;
/* Called on the thread that called nibble, never twice at once. Non-zero stops: the call returns NIB_STOPPED.
 * May not throw or longjmp. */
typedef int32_t (*nib_progress_fn)(void* user, const nib_progress* progress);

/* The most that nibble may take of one device. One that the model does not use may have a budget, too. */
typedef struct nib_budget {
  const char* device; /* "host", "cuda:0"; empty: the host */
  size_t device_size;
  uint64_t bytes; /* 0: what the device has; of a cuda device: what is free when the model is opened */
} nib_budget;

/* How keys and values are kept. */
enum {
  NIB_KV_AUTO = 0, /* as the numerics */
  NIB_KV_BF16 = 1,
  NIB_KV_F32 = 2,
  NIB_KV_INT8 = 3, /* a byte each, and a scale for every head and position */
  NIB_KV_FP8 = 4   /* the same with E4M3 */
};

enum {
  /* The tokenizer alone, for nib_model_encode and nib_model_decode. The path may then also be a
   * tokenizer.json, and neither weights nor a configuration need be there. */
  NIB_MODEL_VOCABULARY_ONLY = 1,
  /* With NIB_NUMERICS_INT8: tensors that it cannot multiply are computed as with BF16, not refused. */
  NIB_MODEL_ALLOW_FALLBACK = 2,
  /* Experts of device_layers stay with the processor, in main memory. */
  NIB_MODEL_HOST_EXPERTS = 4,
  /* Where the device can (compute capability 9.0), it multiplies long prompts by other instructions than
   * single tokens: faster, but in another order of additions, so that results depend, by rounding, on
   * prefill_rows and on how a prompt is cut. nib_model_explain tells where it does: "wgmma". */
  NIB_MODEL_MAY_BE_FAST = 8
};

typedef struct nib_model_options {
  uint32_t struct_size;
  uint32_t flags;      /* NIB_MODEL_... */
  const char* backend; /* a name from nib_runtime_get_backend; empty: the best present */
  size_t backend_size;
  uint32_t numerics;         /* NIB_NUMERICS_... */
  uint32_t kv_format;        /* NIB_KV_... */
  const nib_budget* budgets; /* for each device at most one; none: what there is */
  size_t budget_count;
  size_t budget_size;          /* sizeof(nib_budget), when there are any */
  uint32_t prefill_rows;       /* tokens of one forward pass; 0: chosen */
  uint32_t sessions;           /* sessions that will be open at once; 0: one */
  uint32_t session_context;    /* positions of each; 0: the smaller of 4096 and what the model was made for */
  uint32_t reserved;           /* zero */
  nib_progress_fn on_progress; /* of the load */
  void* on_progress_user;
  nib_cancel* cancel; /* of the load */
  /* Layers that a CUDA device computes, the last so many; more than the model has: the head, too. With
   * NIB_NUMERICS_BF16 alone; results are those of the processor up to rounding. */
  uint32_t device_layers;
  uint32_t device; /* which: N is "cuda:N" */
  /* Bytes of the device for the experts that it computes; 0: as many as they take. Where they do not fit,
   * they lie in page-locked memory of the host and take turns in slots there, equally many in each layer. The
   * bits of results are the same. Too few for the experts of one token is BUDGET, and a model that has none
   * on the device ARGUMENT. */
  uint64_t expert_cache_bytes;
} nib_model_options;
#define NIB_MODEL_OPTIONS_INIT \
  { sizeof(nib_model_options), 0, NULL, 0, 0, 0, NULL, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, 0, 0, 0 }

enum {
  NIB_SESSION_GREEDY = 1,             /* always the likeliest token; temperature and cuts are ignored */
  NIB_SESSION_IGNORE_MODEL_STOPS = 2, /* only stop_ids and stop_texts end an answer */
  NIB_SESSION_SHOW_SPECIALS = 4       /* special tokens are spelled out in generated text */
};

/* How tokens are drawn, in this order: repetition penalty, temperature, top-k, min-p, top-p. A field left
 * zero takes what the model's own files wish for (its generation_config.json), else the value named. A model
 * whose files wish for greedy is greedy unless one of the four cuts is set. */
typedef struct nib_session_options {
  uint32_t struct_size;
  uint32_t flags;            /* NIB_SESSION_... */
  uint32_t context;          /* positions; 0: as planned with the model */
  uint32_t top_k;            /* the k likeliest; 0: all (a k beyond the vocabulary says so outright) */
  float temperature;         /* > 0; 0: 1 */
  float top_p;               /* the smallest set with this probability, up to 1; 0: 1, no cut */
  float min_p;               /* drop what is less likely than this times the likeliest; 0: no cut */
  float repetition_penalty;  /* > 1 makes what was said less likely; 0: 1, none */
  uint64_t seed;             /* the same seed, the same answer. 0 is a seed like any other */
  const nib_token* stop_ids; /* end an answer, beside the model's own; copied */
  size_t stop_id_count;
  const nib_string* stop_texts; /* end an answer and are not part of it; copied */
  size_t stop_text_count;
  nib_progress_fn on_progress; /* of nib_session_append and nib_session_resume */
  void* on_progress_user;
  nib_cancel* cancel; /* of every call on the session that computes, unless the call brings its own */
} nib_session_options;
#define NIB_SESSION_OPTIONS_INIT \
  { sizeof(nib_session_options), 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, NULL, 0, NULL, NULL, NULL }

/* ---- Plan: what a model will cost, before a byte of weight is read ------------------------------------- */

enum {
  NIB_PURPOSE_WEIGHTS = 0,
  NIB_PURPOSE_KV_CACHE = 1,
  NIB_PURPOSE_ACTIVATIONS = 2,
  NIB_PURPOSE_STAGING = 3
};

typedef struct nib_plan_item {
  uint32_t struct_size;
  uint32_t purpose; /* NIB_PURPOSE_... */
  uint64_t bytes;
  const char* device; /* "host", "cuda:0" */
  size_t device_size;
  const char* name; /* "experts (mxfp4)" */
  size_t name_size;
} nib_plan_item;
#define NIB_PLAN_ITEM_INIT \
  { sizeof(nib_plan_item), 0, 0, NULL, 0, NULL, 0 }

enum { NIB_PLAN_FITS = 1 }; /* within the budgets */

typedef struct nib_plan_summary {
  uint32_t struct_size;
  uint32_t flags;              /* NIB_PLAN_... */
  uint64_t host_bytes;         /* items of the host: the ceiling that opening and sessions keep to */
  uint64_t host_budget;        /* what was allowed */
  uint32_t context;            /* positions of each session */
  uint32_t longest_context;    /* that would fit; 0 when not even the weights do */
  uint64_t kv_bytes_per_token; /* growth of the cache of one session */
  uint64_t decode_bytes;       /* weights read for one token of one session */
  uint64_t prefill_flops;      /* for one prompt token; a multiply-add is two */
  uint64_t device_bytes;       /* items of the device; 0: the processor computes everything */
  uint64_t device_budget;      /* what was allowed there; 0: no budget */
} nib_plan_summary;
#define NIB_PLAN_SUMMARY_INIT \
  { sizeof(nib_plan_summary), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Tokens per second that a machine would allow at best. */
typedef struct nib_predicted_rates {
  uint32_t struct_size;
  uint32_t reserved;
  double prefill_tokens_per_second;
  double decode_tokens_per_second; /* one session */
} nib_predicted_rates;
#define NIB_PREDICTED_RATES_INIT \
  { sizeof(nib_predicted_rates), 0, 0, 0 }

/* Reads configuration and headers only. `path` is a directory with config.json, tokenizer.json and weights,
 * or a GGUF file (any file of a split one). A model that does not fit is no failure here: NIB_PLAN_FITS
 * says so. The plan keeps its own copy of the options; a progress callback must stay callable while the plan
 * is opened. `session`, if given, has the last word on the context. On failure *out is NULL. Errors: what
 * reading finds (NOT_FOUND, IO, FORMAT, UNSUPPORTED), BUDGET (an expert cache that is too small for one
 * token), MEMORY, ARGUMENT, VERSION, STATE. [any], blocks for the disk */
NIB_API nib_status nib_plan_create(nib_runtime* runtime, const char* path, size_t path_size,
                                   const nib_model_options* model, const nib_session_options* session,
                                   nib_plan** out, nib_error* error);
/* Item number `index`: what takes memory, where, what for. NIB_END past the last, and *out is untouched.
 * Strings are borrowed until the plan is freed. Errors: ARGUMENT, STATE. [any] */
NIB_API nib_status nib_plan_get_item(const nib_plan* plan, uint32_t index, nib_plan_item* out);
/* Errors: ARGUMENT, STATE; *out is untouched. [any] */
NIB_API nib_status nib_plan_get_summary(const nib_plan* plan, nib_plan_summary* out);
/* What this model would reach on a machine of these rates; zero where a rate is zero, and with layers on a
 * device, which have others. On failure *out is untouched. Errors: ARGUMENT, VERSION, STATE. [any] */
NIB_API nib_status nib_plan_predict(const nib_plan* plan, const nib_machine_rates* machine,
                                    nib_predicted_rates* out, nib_error* error);
/* Accepts NULL. [any] */
NIB_API void nib_plan_free(nib_plan* plan);

/* ---- Model: weights and vocabulary, immutable and shared ----------------------------------------------- */

enum { NIB_MODEL_HAS_BOS = 1, NIB_MODEL_HAS_TOKENIZER = 2 };

typedef struct nib_model_info {
  uint32_t struct_size;
  uint32_t flags; /* NIB_MODEL_HAS_... */
  const char* path;
  size_t path_size;
  const char* architecture; /* "gpt-oss" */
  size_t architecture_size;
  const char* backend; /* "avx2" */
  size_t backend_size;
  uint32_t numerics;  /* NIB_NUMERICS_... */
  uint32_t kv_format; /* NIB_KV_..., never AUTO */
  uint32_t layers, hidden, vocabulary, experts, experts_per_token;
  uint32_t max_context; /* what the model was made for */
  uint64_t parameters;
  uint64_t decode_bytes;  /* weights read for one token of one session */
  uint64_t prefill_flops; /* for one prompt token */
  uint64_t host_bytes;    /* in use now, by the model and its sessions */
  nib_token bos;          /* begins a text, with NIB_MODEL_HAS_BOS */
  uint32_t reserved;
  const char* device; /* that computes beside the backend: "NVIDIA H200"; empty: none */
  size_t device_size;
  uint64_t device_bytes; /* in use there now */
} nib_model_info;
#define NIB_MODEL_INFO_INIT                                                                                  \
  {                                                                                                          \
    sizeof(nib_model_info), 0, NULL, 0, NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, \
        0                                                                                                    \
  }

enum { NIB_EXPLAIN_GENERIC = 1 }; /* a generic kernel of any format: right, but slow */

/* How one tensor, or several that are one matrix here, is stored and computed. */
typedef struct nib_explain_item {
  uint32_t struct_size;
  uint32_t flags;   /* NIB_EXPLAIN_... */
  uint32_t purpose; /* NIB_PURPOSE_WEIGHTS or NIB_PURPOSE_KV_CACHE */
  uint32_t reserved;
  uint64_t bytes;        /* in memory; of a cache: planned */
  uint64_t decode_bytes; /* of weights, read for one token of one session */
  const char* name;      /* "model.layers.0.self_attn.{q,k,v}_proj.weight"; "*" stands for every expert */
  size_t name_size;
  const char* op; /* that reads it: "embed", "qkv", "attention", "project", "route", "experts", "head" */
  size_t op_size;
  const char* format; /* as stored: "mxfp4" */
  size_t format_size;
  const char* computed; /* what inputs are rounded to before they are multiplied: "bf16" or "f32" */
  size_t computed_size;
  const char*
      kernel; /* "tiles", "lookup", "vector", "cache", "wgmma"; the generic ones: "records", "chain" */
  size_t kernel_size;
  const char* instruction_set; /* "avx2", "cuda" */
  size_t instruction_set_size;
  const char* device; /* "host", "cuda:0" */
  size_t device_size;
  uint64_t slots;        /* in which experts take turns there, `bytes` in all; 0: every expert is there */
  uint64_t locked_bytes; /* of all of them then, in page-locked memory of the host */
} nib_explain_item;
#define NIB_EXPLAIN_ITEM_INIT                                                                               \
  {                                                                                                         \
    sizeof(nib_explain_item), 0, 0, 0, 0, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, NULL, 0, \
        0, 0                                                                                                \
  }

enum { NIB_TEXT_SPECIALS = 1 }; /* special tokens are spelled in the text: "<|start|>" */

/* Plans and opens. On failure *out is NULL. Errors: what reading finds (NOT_FOUND, IO, FORMAT, UNSUPPORTED),
 * BUDGET when it does not fit, MEMORY, ARGUMENT, VERSION, STATE; with layers on a device also DEVICE_MEMORY
 * (less is free there) and DEVICE, NOT_FOUND and VERSION also of the CUDA library; NIB_STOPPED when a
 * callback or the cancel asked, and *out is NULL then too. [any], blocks for seconds */
NIB_API nib_status nib_model_open(nib_runtime* runtime, const char* path, size_t path_size,
                                  const nib_model_options* options, nib_model** out, nib_error* error);
/* Opens what was planned. A plan is opened once: again, or by two threads at once, is STATE; after a failure
 * or NIB_STOPPED it may be tried again. The plan stays yours. On failure *out is NULL. Errors as
 * nib_model_open. [any], blocks for seconds */
NIB_API nib_status nib_model_open_planned(nib_plan* plan, nib_model** out, nib_error* error);
/* Strings are borrowed until the model is freed. Errors: ARGUMENT, STATE; *out is untouched. [any] */
NIB_API nib_status nib_model_get_info(const nib_model* model, nib_model_info* out);
/* Item number `index`: how every tensor is computed, in the order of the graph, then the caches. NIB_END past
 * the last (of a vocabulary alone: at once), and *out is untouched. Strings are borrowed until the model is
 * freed. Errors: ARGUMENT, STATE. [any] */
NIB_API nib_status nib_model_explain(const nib_model* model, uint32_t index, nib_explain_item* out);
/* Text to tokens; none is added at the start. Any bytes are text. With NIB_TEXT_SPECIALS, spellings of
 * special tokens become those tokens: not for text from strangers. *out_count is how many there are. When
 * `capacity` is smaller: NIB_E_SMALL_BUFFER, the number needed in *out_count, `buffer` untouched; a capacity
 * of 0 only asks, and is NIB_OK. Errors: SMALL_BUFFER, NOT_FOUND (no tokenizer), ARGUMENT, VERSION, MEMORY,
 * STATE. [any] */
NIB_API nib_status nib_model_encode(const nib_model* model, const char* text, size_t text_size,
                                    uint32_t flags, nib_token* buffer, size_t capacity, size_t* out_count,
                                    nib_error* error);
/* Tokens to text; bytes that are not UTF-8 become U+FFFD. Special tokens are left out unless
 * NIB_TEXT_SPECIALS. No NUL is written. *out_size and a short buffer as in nib_model_encode, in bytes. For
 * text as it is generated use the text of nib_token_event or nib_step_result: it never splits a character.
 * Errors: SMALL_BUFFER, NOT_FOUND (no tokenizer), ARGUMENT (an id the model does not have), VERSION, MEMORY,
 * STATE. [any] */
NIB_API nib_status nib_model_decode(const nib_model* model, const nib_token* tokens, size_t count,
                                    uint32_t flags, char* buffer, size_t capacity, size_t* out_size,
                                    nib_error* error);
/* Accepts NULL. Memory goes back when the last session of the model is freed too. [any] */
NIB_API void nib_model_free(nib_model* model);

/* ---- Session: one conversation, tokens with their keys and values -------------------------------------- */

enum { NIB_TOKEN_END = 1 }; /* a stop token, or the last of a stop text: the answer is over */

typedef struct nib_token_event {
  uint32_t struct_size; /* the library's */
  uint32_t flags;       /* NIB_TOKEN_... */
  uint64_t position;    /* of the token */
  const char* text;     /* whole characters that became certain with this token, maybe none; lives for the
                           call, like the struct itself */
  size_t text_size;
  nib_token id;
  float log_probability; /* natural, under the distribution it was drawn from */
} nib_token_event;
/* Called on the thread that called nib_session_generate. Non-zero stops after this token. May not call the
 * session (it may free it: the call stops and frees it at its end), throw or longjmp. */
typedef int32_t (*nib_token_fn)(void* user, const nib_token_event* event);

typedef struct nib_generate_options {
  uint32_t struct_size;
  uint32_t flags;      /* none yet */
  uint32_t max_tokens; /* 0: until a stop or the context is full */
  uint32_t reserved;   /* zero */
  nib_token_fn on_token;
  void* on_token_user;
  nib_cancel* cancel; /* NULL: the session's */
} nib_generate_options;
#define NIB_GENERATE_OPTIONS_INIT \
  { sizeof(nib_generate_options), 0, 0, 0, NULL, NULL, NULL }

/* Why generation ended. */
enum {
  NIB_FINISH_STOP = 1,         /* a stop token or a stop text */
  NIB_FINISH_LENGTH = 2,       /* max_tokens */
  NIB_FINISH_CONTEXT_FULL = 3, /* no position left */
  NIB_FINISH_CANCELLED = 4     /* the callback or the cancel */
};

typedef struct nib_usage {
  uint32_t struct_size;
  uint32_t finish;        /* NIB_FINISH_... */
  uint64_t prompt_tokens; /* computed by append and resume since the last generate */
  uint64_t tokens;        /* generated by this call */
  double prefill_seconds; /* that append and resume took since the last generate */
  double decode_seconds;  /* of this call */
} nib_usage;
#define NIB_USAGE_INIT \
  { sizeof(nib_usage), 0, 0, 0, 0, 0 }

/* What one session got of a batch step; as an array, with its element size beside it. */
typedef struct nib_step_result {
  nib_status status; /* NIB_OK, NIB_END (this token ends the answer), NIB_STOPPED or why there is no token */
  nib_token id;
  uint64_t position;
  const char* text; /* whole characters that became certain; borrowed until the session's next call */
  size_t text_size;
  const char* message; /* why it failed, else empty; borrowed until the session's next call */
  size_t message_size;
  float log_probability;
  uint32_t reserved;
} nib_step_result;

/* An empty conversation. On failure *out is NULL. Errors: BUDGET when all planned sessions are open, STATE (a
 * vocabulary alone), ARGUMENT (a context beyond what the model was made for), VERSION, MEMORY. [any] */
NIB_API nib_status nib_session_create(nib_model* model, const nib_session_options* options, nib_session** out,
                                      nib_error* error);
/* Appends tokens and computes them. All or nothing: on a failure or NIB_STOPPED the session holds what it
 * held. Stops for the session's cancel and progress callback. Errors: CONTEXT_FULL, BUDGET (a context longer
 * than planned), ARGUMENT (an id the model does not have), MEMORY, DEVICE (with layers on one), BUSY, STATE.
 * [session], blocks */
NIB_API nib_status nib_session_append(nib_session* session, const nib_token* tokens, size_t count,
                                      nib_error* error);
/* Makes the session hold exactly these tokens and keeps the longest common beginning, so that the next turn
 * of a chat computes only what is new. *out_computed (may be NULL) is how many were computed. Otherwise as
 * nib_session_append. [session], blocks */
NIB_API nib_status nib_session_resume(nib_session* session, const nib_token* tokens, size_t count,
                                      size_t* out_computed, nib_error* error);
/* One more token, drawn and kept. NIB_END when it ends the answer: *out is set then as well. On a failure or
 * NIB_STOPPED neither *out nor the session has changed. (A batch step of one session gives text and
 * probability too.) Errors: STATE (the session is empty), CONTEXT_FULL, BUDGET, MEMORY, DEVICE, ARGUMENT,
 * BUSY. [session], blocks */
NIB_API nib_status nib_session_step(nib_session* session, nib_token* out, nib_error* error);
/* Steps until a stop, a limit, the callback or the cancel; `options` and `out` may be NULL. NIB_STOPPED when
 * the callback or the cancel asked: what was generated stays and *out is filled. On a failure *out is
 * untouched, and tokens that were reported stay. A context that is full ends it like any other limit, and is
 * no failure. Errors otherwise as nib_session_step, and VERSION. [session], blocks */
NIB_API nib_status nib_session_generate(nib_session* session, const nib_generate_options* options,
                                        nib_usage* out, nib_error* error);
/* Forgets everything from `position` on. What has to be computed again is computed by the next call, under
 * its cancel. On failure the session is unchanged. Errors: ARGUMENT (beyond what it holds), BUSY, STATE.
 * [session] */
NIB_API nib_status nib_session_rewind(nib_session* session, size_t position, nib_error* error);
/* The logits of the last token, one for each token of the vocabulary; borrowed until the session's next call.
 * To draw by rules of your own: append, get, choose, append the choice. Outputs are untouched on failure.
 * Errors: STATE (not computed yet: only an append or a resume ends with them), ARGUMENT, BUSY. [session] */
NIB_API nib_status nib_session_get_logits(const nib_session* session, const float** out, size_t* out_count);
/* The tokens the session holds; borrowed until the session's next call. Outputs are untouched on failure.
 * Errors: ARGUMENT, BUSY, STATE. [session] */
NIB_API nib_status nib_session_get_tokens(const nib_session* session, const nib_token** out,
                                          size_t* out_count);
/* How many tokens the session holds, and how many it can (either output may be NULL). Outputs are untouched
 * on failure. Errors: ARGUMENT, BUSY, STATE. [session] */
NIB_API nib_status nib_session_get_position(const nib_session* session, size_t* out, size_t* out_context);
/* Accepts NULL. While another call is at work in the session, that call frees it at its end. [any] */
NIB_API void nib_session_free(nib_session* session);

/* One step of `count` sessions of one model in one forward pass, to the same bits as one by one. results[i],
 * at (char*)results + i * result_size, belongs to sessions[i]; result_size is sizeof(nib_step_result). A
 * session that cannot go on says so in its status, and so does one whose cancel was triggered before
 * (NIB_STOPPED): the others go on and the call is NIB_OK. On failure results and sessions are unchanged.
 * Errors: ARGUMENT (a session twice, sessions of two models), BUSY, BUDGET, MEMORY, DEVICE, STATE. [session],
 * blocks */
NIB_API nib_status nib_batch_step(nib_session* const* sessions, size_t count, nib_step_result* results,
                                  size_t result_size, nib_error* error);

/* ---- Quantize: a model written anew -------------------------------------------------------------------- */

enum {
  NIB_TARGET_SAFETENSORS = 1, /* a directory of safetensors files holds it */
  NIB_TARGET_GGUF = 2,        /* a GGUF file holds it */
  NIB_TARGET_HAS_RULES = 4    /* a scale rule may be chosen */
};

/* A format that weights can be written in. */
typedef struct nib_target_info {
  uint32_t struct_size;
  uint32_t flags;   /* NIB_TARGET_... */
  const char* name; /* "nf4-double" */
  size_t name_size;
  const char* meaning; /* in a few words */
  size_t meaning_size;
} nib_target_info;
#define NIB_TARGET_INFO_INIT \
  { sizeof(nib_target_info), 0, NULL, 0, NULL, 0 }

/* How the scale of a group of values is chosen, of formats that leave it open. */
enum {
  NIB_SCALE_RULE_USUAL = 0,      /* the rule that the format's specification or its makers use */
  NIB_SCALE_RULE_FLOOR = 1,      /* the power of two of the largest value (OCP) */
  NIB_SCALE_RULE_ROUND_UP = 2,   /* the smallest scale that cuts nothing off */
  NIB_SCALE_RULE_LEAST_ERROR = 3 /* the least sum of squared errors */
};

/* Whether this tensor is to be quantized: 0 is no. Called on the thread that called nibble. May not throw or
 * longjmp. */
typedef int32_t (*nib_choose_fn)(void* user, const char* tensor, size_t tensor_size);

enum {
  NIB_QUANTIZE_OVERWRITE = 1, /* what stands at the target is replaced, once all is written */
  NIB_QUANTIZE_PREPARE = 2    /* no format: a directory for nibble alone, that opens without packing */
};

typedef struct nib_quantize_options {
  uint32_t struct_size;
  uint32_t flags;     /* NIB_QUANTIZE_... */
  const char* format; /* a name from nib_quantize_get_target; it must be given, unless it is to be prepared */
  size_t format_size;
  uint32_t scale_rule;  /* NIB_SCALE_RULE_... */
  uint32_t reserved;    /* zero */
  nib_choose_fn choose; /* NULL: the weights of matrix products inside the layers; of a plain format all */
  void* choose_user;
  uint64_t most_shard_bytes; /* of one safetensors file, if its tensors let it; 0: 5 GiB */
  nib_progress_fn on_progress;
  void* on_progress_user;
  nib_cancel* cancel; /* seen within a block of rows */
} nib_quantize_options;
#define NIB_QUANTIZE_OPTIONS_INIT \
  { sizeof(nib_quantize_options), 0, NULL, 0, 0, 0, NULL, NULL, 0, NULL, NULL, NULL }

typedef struct nib_quantize_report {
  uint32_t struct_size;
  uint32_t notes;        /* warnings that went to the runtime's log: what was not done, and why */
  uint64_t tensors;      /* written */
  uint64_t quantized;    /* of them, into the format asked for */
  uint64_t weights;      /* values of those */
  uint64_t weight_bytes; /* bytes of those, scales included */
  uint64_t bytes_before; /* of all tensors */
  uint64_t bytes_after;
  double signal; /* of the quantized: the sum of the squares of the values before, */
  double noise;  /* and of what changed */
} nib_quantize_report;
#define NIB_QUANTIZE_REPORT_INIT \
  { sizeof(nib_quantize_report), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Format number `index` of those that weights can be written in. NIB_END past the last, and *out is
 * untouched. Strings are static. Errors: ARGUMENT. [any] */
NIB_API nib_status nib_quantize_get_target(uint32_t index, nib_target_info* out);
/* Writes the model at `path` (a directory as on Hugging Face, or a GGUF file) to `target`: a GGUF file when
 * that name ends in ".gguf", else a directory. A few MiB for each thread (to prepare, one expert or 64 MiB
 * more); the runtime's sessions take turns with it. Files appear whole or not at all: after a failure or
 * NIB_STOPPED nothing is left behind. `out` may be NULL. Errors: ARGUMENT (an unknown format, a rule that it
 * does not have, nothing to quantize, `target` exists or is `path`), UNSUPPORTED (what the container cannot
 * hold, a model that it does not describe), NOT_FOUND and FORMAT of reading, IO, MEMORY, VERSION, STATE.
 * [any], blocks for minutes */
NIB_API nib_status nib_quantize(nib_runtime* runtime, const char* path, size_t path_size, const char* target,
                                size_t target_size, const nib_quantize_options* options,
                                nib_quantize_report* out, nib_error* error);

#ifdef __cplusplus
}
#endif

#endif /* NIBBLE_H */
