#!/usr/bin/env python3
"""Random conversations through ours and through the openai-harmony package of PyPI; every id must agree.

    harmony_peer.py --data DIR --tool PATH [--count N] [--seed S]

DIR holds tokenizers/o200k_base.tiktoken and tokenizers/gpt-oss.tokenizer.json, PATH is the built harmony_tool.
Exits with 77 (skipped) when the package or the data is missing."""
import argparse, json, os, random, subprocess, sys

arguments = argparse.ArgumentParser()
arguments.add_argument("--data", default=os.environ.get("NIBBLE_TEST_DATA", ""))
arguments.add_argument("--tool", required=True)
arguments.add_argument("--count", type=int, default=2000)
arguments.add_argument("--seed", type=int, default=None)
options = arguments.parse_args()
vocabulary = os.path.join(options.data, "tokenizers")
if not options.data or not os.path.exists(os.path.join(vocabulary, "o200k_base.tiktoken")):
    print("skipped: NIBBLE_TEST_DATA is not set")
    sys.exit(77)
os.environ["TIKTOKEN_ENCODINGS_BASE"] = vocabulary
try:
    import openai_harmony as oh
except ImportError:
    print("skipped: the package openai-harmony is not installed")
    sys.exit(77)

seed = options.seed if options.seed is not None else random.randrange(1 << 30)
rng = random.Random(seed)
print("seed", seed)
encoding = oh.load_harmony_encoding(oh.HarmonyEncodingName.HARMONY_GPT_OSS)
tool = subprocess.Popen([options.tool, os.path.join(vocabulary, "gpt-oss.tokenizer.json")], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True, encoding="utf-8")

WORDS = ["story", "dog", " café", "naïve", "日本語", "🙂", "don't", "<|end|>", "<|start|>assistant", "<|constrain|>", "1234", "\n", "  ", "\t", "to=", "é́"]


def text(most=8):
    return "".join(rng.choice(WORDS) + rng.choice(["", " "]) for _ in range(rng.randrange(most)))


def line():
    return rng.choice(["a thing", "where to look", "naïve 日本", "the `id` of it", "x // y"])


def schema(depth=0):
    kind = rng.choice(["string", "string", "number", "integer", "boolean", "array", "object", "enum", "list", "oneOf", "null", "none"])
    out = {}
    if kind == "enum":
        out = {"type": "string", "enum": rng.sample(["red", "green", "blue"], rng.randrange(1, 3))}
    elif kind == "list":
        out = {"type": rng.sample(["string", "integer", "number", "null"], rng.randrange(1, 4))}
    elif kind == "oneOf":
        out = {"oneOf": [schema(depth + 1) if depth < 3 else {"type": "string"} for _ in range(rng.randrange(1, 4))]}
    elif kind == "array":
        out = {"type": "array"}
        if rng.random() < 0.7:
            out["items"] = schema(depth + 1) if depth < 3 else {"type": "number"}
    elif kind == "object":
        out = object_schema(depth + 1) if depth < 3 else {"type": "object"}
    elif kind != "none":
        out = {"type": kind}
    if rng.random() < 0.3:
        out["description"] = line()
    if rng.random() < 0.15:
        out["title"] = "Title " + line()
    if rng.random() < 0.15:
        out["examples"] = rng.choice([["one", "two"], [], [1, "x"]])
    if rng.random() < 0.25:
        out["default"] = rng.choice(["red", 3, 2.5, True, None, [1, "a"], {"k": 1}])
    if rng.random() < 0.2:
        out["nullable"] = rng.random() < 0.7
    return out


def object_schema(depth=0):
    names = rng.sample(["alpha", "beta", "gamma", "delta", "with_under", "ünïcode"], rng.randrange(0, 5))
    out = {"type": "object", "properties": {name: schema(depth) for name in names}}
    if rng.random() < 0.6:
        out["required"] = [n for n in names if rng.random() < 0.5]
    if rng.random() < 0.2:
        out["description"] = line()
    return out


def functions():
    return [{"name": f"tool_{i}", "description": "\n".join(line() for _ in range(rng.randrange(1, 3))),
             "parameters": rng.choice([None, object_schema(), object_schema()])} for i in range(rng.randrange(0, 3))]


def conversation():
    ours, theirs = [], []

    def add(role, content="", **fields):
        ours.append({"role": role, "content": content, **fields})
        author = oh.Author.new(oh.Role(role), fields["name"]) if fields.get("name") else oh.Author(role=oh.Role(role))
        message = oh.Message.from_author_and_content(author, content)
        if fields.get("recipient"):
            message = message.with_recipient(fields["recipient"])
        if fields.get("channel"):
            message = message.with_channel(fields["channel"])
        if fields.get("content_type"):
            message = message.with_content_type(fields["content_type"])
        theirs.append(message)

    if rng.random() < 0.8:
        system = {"date": rng.choice(["", "2025-06-28"]), "reasoning": rng.choice(["low", "medium", "high"]),
                  "browser": rng.random() < 0.2, "python": rng.random() < 0.2}
        content = oh.SystemContent.new().with_reasoning_effort(oh.ReasoningEffort(system["reasoning"].capitalize()))
        if system["date"]:
            content = content.with_conversation_start_date(system["date"])
        if system["browser"]:
            content = content.with_browser_tool()
        if system["python"]:
            content = content.with_python_tool()
        ours.append({"role": "system", "system": system})
        theirs.append(oh.Message.from_role_and_content(oh.Role.SYSTEM, content))
    if rng.random() < 0.6:
        developer = {"instructions": text(), "functions": functions()}
        content = oh.DeveloperContent.new()
        if developer["instructions"]:
            content = content.with_instructions(developer["instructions"])
        if developer["functions"]:
            content = content.with_function_tools(
                [oh.ToolDescription.new(f["name"], f["description"], parameters=f["parameters"]) for f in developer["functions"]])
        ours.append({"role": "developer", "developer": developer})
        theirs.append(oh.Message.from_role_and_content(oh.Role.DEVELOPER, content))
    for _ in range(rng.randrange(0, 6)):
        kind = rng.choice(["user", "user", "analysis", "final", "call", "result", "plain", "named"])
        if kind == "user":
            add("user", text())
        elif kind == "named":
            add(rng.choice(["user", "assistant"]), text(), name="someone")
        elif kind in ("analysis", "final"):
            add("assistant", text(), channel=kind)
        elif kind == "plain":
            add("assistant", text())
        elif kind == "call":
            add("assistant", '{"a": 1}', channel=rng.choice(["commentary", "analysis"]), recipient="functions.tool_0",
                content_type=rng.choice(["", "json", "<|constrain|>json", "code"]))
        else:
            add("tool", text(), name="functions.tool_0", recipient=rng.choice(["", "assistant", "all"]), channel="commentary")
    return ours, theirs


def ask(request):
    tool.stdin.write(json.dumps(request) + "\n")
    tool.stdin.flush()
    return json.loads(tool.stdout.readline())


def parsed(messages):
    out = []
    for m in messages:
        m = m.to_dict()
        content = m.get("content", "")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        out.append({"role": m.get("role", ""), "name": m.get("name") or "", "recipient": m.get("recipient") or "",
                    "channel": m.get("channel") or "", "content_type": m.get("content_type") or "", "content": content})
    return out


def completion():
    """What a model might say behind <|start|>assistant: a few messages, in both orders of recipient and channel."""
    pieces = []
    count = rng.randrange(1, 4)
    for i in range(count):
        channel = rng.choice(["analysis", "commentary", "final"])
        to = rng.choice(["", "", " to=functions.tool_0"])
        kind = rng.choice(["", " json", " <|constrain|>json", "<|constrain|>json"]) if to else ""
        header = rng.choice([f"<|channel|>{channel}{to}{kind}", f"{to}<|channel|>{channel}{kind}"])
        end = "" if i == count - 1 and rng.random() < 0.3 else rng.choice(["<|end|>", "<|return|>", "<|call|>"] if i == count - 1 else ["<|end|>"])
        content = text().replace("<|end|>", "").replace("<|start|>assistant", "").replace("<|constrain|>", "")
        pieces.append(("" if i == 0 else "<|start|>assistant") + header + "<|message|>" + content + end)
    return encoding.encode("".join(pieces), allowed_special="all")


failures = 0


def compare(what, request, expected, got):
    global failures
    if expected == got:
        return
    failures += 1
    if failures <= 5:
        print(f"{what} differs\n  request  {json.dumps(request, ensure_ascii=False)[:1500]}\n  expected {expected!r:.3000}\n  got      {got!r:.3000}")


for _ in range(options.count):
    ours, theirs = conversation()
    drop = rng.random() < 0.7
    config = oh.RenderConversationConfig(auto_drop_analysis=drop)
    expected = encoding.render_conversation_for_completion(oh.Conversation.from_messages(theirs), oh.Role.ASSISTANT, config=config)
    request = {"render": ours, "drop": drop}
    got = ask(request)["ids"]
    compare("rendering", request, expected if expected == got else encoding.decode_utf8(expected), got if expected == got else encoding.decode_utf8(got))
    ids = completion()
    try:
        messages = parsed(encoding.parse_messages_from_completion_tokens(ids, oh.Role.ASSISTANT))
    except Exception as error:  # the peer refuses: so must we
        messages = None
    answer = ask({"parse": ids, "role": "assistant"})
    compare("parse", {"text": encoding.decode_utf8(ids)}, messages, answer.get("messages"))
tool.stdin.close()
print(f"{options.count} conversations and completions, {failures} differ")
sys.exit(1 if failures else 0)
