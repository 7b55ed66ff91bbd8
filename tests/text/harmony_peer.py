#!/usr/bin/env python3
"""Random conversations and completions through nibble and through the openai-harmony package of PyPI.

    harmony_peer.py --data DIR --tool PATH [--count N] [--seed S]
    harmony_peer.py --data DIR --record harmony_schemas.jsonl

DIR holds tokenizers/o200k_base.tiktoken and tokenizers/gpt-oss.tokenizer.json, PATH is the built harmony_tool.
The second form writes the package's text beside each schema of the file, for the tests that run without it.
Every id of a rendering and every field of a parsed message must agree. Exits with 77 (skipped) when the package
or the data is missing.

Where nibble differs on purpose, and what is compared instead:
  - A control token inside a header (<|start|>, or an end where the parser is strict) is an error of ours; the
    package takes its spelling for a word.
  - "assistant:name" is read back as role and name, unless the word behind it is "tool"; the package calls it an
    unknown role, or a tool of that name.
  - A lenient parser of ours is at peace with a stream that ends inside a header; the package never is.
  - In a schema's defaults, integers beyond 64 bits become floating point, and floating point inside an array or
    object has Python's exponents (1e-05) where the package has Rust's (0.00001): neither is drawn. Nor are numbers
    of 17 digits, which the package reads with an error in the last.
"""
import argparse
import json
import os
import random
import subprocess
import sys

arguments = argparse.ArgumentParser()
arguments.add_argument("--data", default=os.environ.get("NIBBLE_TEST_DATA", ""))
arguments.add_argument("--tool")
arguments.add_argument("--record")
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

encoding = oh.load_harmony_encoding(oh.HarmonyEncodingName.HARMONY_GPT_OSS)

if options.record:
    with open(options.record, encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    with open(options.record, "w", encoding="utf-8") as file:
        for case in cases:
            described = oh.ToolDescription.new("f", "", parameters=case["parameters"])
            message = oh.Message.from_role_and_content(oh.Role.DEVELOPER, oh.DeveloperContent().with_function_tools([described]))
            case["text"] = encoding.decode(encoding.render(message)).split("<|message|>", 1)[1].removesuffix("<|end|>")
            file.write(json.dumps(case, ensure_ascii=False) + "\n")
    sys.exit(0)

seed = options.seed if options.seed is not None else random.randrange(1 << 30)
rng = random.Random(seed)
print("seed", seed)
tool = subprocess.Popen([options.tool, os.path.join(vocabulary, "gpt-oss.tokenizer.json")], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True, encoding="utf-8")

SPECIALS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>", "<|endoftext|>"]
WORDS = ["story", "dog", " café", "naïve", "日本語", "🙂", "don't", "1234", "\n", "  ", "\t", "to=", "é́", "\r\n", "{}", "null",
         "assistant", "<|", "|>", "\u00a0", "\u2028", "\x00", "\x1c", "// ", '"', "\\", "ﬃ", "ʼn", "\U0001f468\u200d\U0001f469"] + SPECIALS


def chance(p):
    return rng.random() < p


def text(most=8):
    return "".join(rng.choice(WORDS) + rng.choice(["", " "]) for _ in range(rng.randrange(most)))


def line():
    return rng.choice(["a thing", "where to look", "naïve 日本", "the `id` of it", "x // y", "", "two\nlines", "null", "<|end|>"])


# ---- Schemas. Mostly what people write, sometimes what they should not.

KINDS = ["string", "string", "number", "integer", "boolean", "array", "array", "object", "object", "enum", "list", "oneOf",
         "anyOf", "null", "none", "odd"]


def anything(depth=0):
    kind = rng.randrange(9) if depth == 0 else rng.choice([0, 1, 2, 3, 5, 7, 8] if depth < 3 else [0, 1, 2, 3, 5])
    if kind == 7:
        return [anything(depth + 1) for _ in range(rng.randrange(3))]
    if kind == 8:
        return {rng.choice(["k", "z", "a b", "é"]): anything(depth + 1) for _ in range(rng.randrange(3))}
    number = rng.choice([1.0, 0.1, 2.5, -0.0, 1e15, 1e16, 1e17, 1e22, 1e-4, 1e-5, 1e-6, 1.5e-7, 1e300, 123456789.125, 3.5e20])
    return [None, True, False, rng.randrange(-5, 10**rng.randrange(1, 18)), number, rng.choice(["red", text(4)]),
            float(f"{rng.gauss(0, 1) * 10**rng.randrange(-12, 25):.9g}")][kind]


def schema(depth=0):
    kind = rng.choice(KINDS)
    deeper = lambda: schema(depth + 1) if depth < 3 else {"type": rng.choice(["string", "number"])}
    out = {}
    if kind == "enum":
        out = {"type": "string", "enum": rng.choice([rng.sample(["red", "green", "blue"], rng.randrange(4)), [1, "two", None], [1, 2], ["é", 'q"']])}
    elif kind == "list":
        out = {"type": rng.sample(["string", "integer", "number", "null", "array", "object", "boolean"], rng.randrange(4))}
        if chance(0.2):
            out["type"].append(3)
    elif kind in ("oneOf", "anyOf"):
        out = {kind: [deeper() for _ in range(rng.randrange(4))]}
        if chance(0.3):
            out["type"] = rng.choice(["string", "object", ["string", "null"]])
    elif kind == "array":
        out = {"type": "array"}
        if chance(0.7):
            out["items"] = deeper()
    elif kind == "object":
        out = object_schema(depth + 1) if depth < 3 else {"type": "object"}
    elif kind == "odd":
        return rng.choice([{"type": 3}, {"type": None}, {"type": "strange"}, True, False, None, "string", [], {}, 7,
                           {"oneOf": 3}, {"type": "string", "enum": "red"}, {"type": "array", "items": True},
                           {"type": "array", "items": []}, {"properties": {"a": {"type": "string"}}}, {"enum": ["a", "b"]},
                           {"type": "object", "properties": []}, {"type": "object", "required": "a", "properties": {"a": {}}},
                           {"type": "integer", "enum": [1, 2]}, {"const": 1}, {"$ref": "#/x"},
                           {"type": "string", "description": 3, "title": 4, "examples": "x", "nullable": "yes", "default": None},
                           {"type": "object", "additionalProperties": {"type": "string"}}])
    elif kind != "none":
        out = {"type": kind}
    if chance(0.3):
        out["description"] = line()
    if chance(0.15):
        out["title"] = "Title " + line()
    if chance(0.15):
        out["examples"] = rng.choice([["one", "two"], [], [1, "x"], [1], ['q"uote', "é"]])
    if chance(0.25):
        out["default"] = rng.choice(["red", anything()])
    if chance(0.2):
        out["nullable"] = chance(0.7)
    return out


def object_schema(depth=0):
    names = rng.sample(["alpha", "beta", "gamma", "delta", "with_under", "ünïcode", "a b", ""], rng.randrange(0, 5))
    out = {"type": "object", "properties": {name: schema(depth) for name in names}}
    if chance(0.6):
        out["required"] = [n for n in names if chance(0.5)]
    if chance(0.2):
        out["description"] = line()
    return out


def functions():
    return [{"name": f"tool_{i}", "description": "\n".join(line() for _ in range(rng.randrange(1, 3))),
             "parameters": rng.choice([None, object_schema(), object_schema(), schema()])} for i in range(rng.randrange(0, 4))]


def as_dict(parameters):
    return parameters is None or isinstance(parameters, dict)


# ---- Conversations, as our tool reads them and as the package does.

def their_tools(functions):
    return [oh.ToolDescription.new(f["name"], f["description"], parameters=f["parameters"]) for f in functions]


def system():
    ours = {"identity": rng.choice(["You are ChatGPT, a large language model trained by OpenAI.", "", text()]),
            "cutoff": rng.choice(["2024-06", "", "soon"]), "date": rng.choice(["", "2025-06-28"]),
            "reasoning": rng.choice(["low", "medium", "high", ""]), "required": chance(0.7), "tools": [],
            "channels": rng.choice([["analysis", "commentary", "final"], ["analysis", "final"], ["final"], [], [text(3), "x"]])}
    content = oh.SystemContent(
        model_identity=ours["identity"] or None, knowledge_cutoff=ours["cutoff"] or None,
        conversation_start_date=ours["date"] or None,
        reasoning_effort=oh.ReasoningEffort(ours["reasoning"].capitalize()) if ours["reasoning"] else None,
        channel_config=oh.ChannelConfig(valid_channels=ours["channels"], channel_required=ours["required"]))
    if chance(0.2):
        ours["tools"].append("python")
        content = content.with_python_tool()
    if chance(0.2):
        ours["tools"].append("browser")
        content = content.with_browser_tool()
    if chance(0.2):
        space = {"name": rng.choice(["zoo", "ant", "micro"]), "description": rng.choice(["", "what\nit does"]), "tools": functions()}
        space["tools"] = [f for f in space["tools"] if as_dict(f["parameters"])]
        ours["tools"].append(space)
        content = content.with_tools(oh.ToolNamespaceConfig(name=space["name"], description=space["description"] or None,
                                                            tools=their_tools(space["tools"])))
    return ours, content


def developer():
    ours = {"instructions": text(), "functions": [f for f in functions() if as_dict(f["parameters"])]}
    content = oh.DeveloperContent(instructions=ours["instructions"] or None)
    if ours["functions"]:
        content = content.with_function_tools(their_tools(ours["functions"]))
    return ours, content


def conversation():
    ours, theirs = [], []

    def add(role, content="", **fields):
        ours.append({"role": role, "content": content, **fields})
        message = oh.Message.from_author_and_content(oh.Author(role=oh.Role(role), name=fields.get("name") or None), content)
        message.recipient = fields.get("recipient") or None
        message.channel = fields.get("channel") or None
        message.content_type = fields.get("content_type") or None
        theirs.append(message)

    if chance(0.6):
        content, message = system()
        ours.append({"role": "system", "system": content})
        theirs.append(oh.Message.from_role_and_content(oh.Role.SYSTEM, message))
    if chance(0.6):
        content, message = developer()
        at = rng.randrange(len(ours) + 1)
        ours.insert(at, {"role": "developer", "developer": content})
        theirs.insert(at, oh.Message.from_role_and_content(oh.Role.DEVELOPER, message))
    for _ in range(rng.randrange(0, 7)):
        kind = rng.choice(["user", "user", "analysis", "final", "final", "call", "result", "result", "any", "any"])
        if kind == "user":
            add("user", text())
        elif kind in ("analysis", "final"):
            add("assistant", text(), channel=kind)
        elif kind == "call":
            add("assistant", '{"a": 1}', channel=rng.choice(["commentary", "analysis"]), recipient="functions.tool_0",
                content_type=rng.choice(["", "json", "<|constrain|>json", "code"]))
        elif kind == "result":
            add("tool", text(), name=rng.choice(["functions.tool_0", "browser.open", "python"]),
                recipient=rng.choice(["", "assistant", "all"]), channel=rng.choice(["commentary", "analysis", ""]))
        else:
            role = rng.choice(["system", "developer", "user", "assistant", "tool"])
            add(role, text(), name=rng.choice(["", "bob", text(3)]) or ("t" if role == "tool" else ""),
                recipient=rng.choice(["", "all", "functions.f", text(3)]), channel=rng.choice(["", "final", "analysis", text(3)]),
                content_type=rng.choice(["", "json", "<|constrain|>json", "<|constrain|>", "a<|constrain|>b", "<|constrain|> x", text(3)]))
    return ours, theirs


# ---- Completions.

def completion():
    """What a model might say behind <|start|>assistant: a few messages, in both orders of recipient and channel."""
    pieces = []
    count = rng.randrange(1, 4)
    for i in range(count):
        channel = rng.choice(["analysis", "commentary", "final"])
        to = rng.choice(["", "", " to=functions.tool_0"])
        kind = rng.choice(["", " json", " <|constrain|>json", "<|constrain|>json"]) if to else ""
        header = rng.choice([f"<|channel|>{channel}{to}{kind}", f"{to}<|channel|>{channel}{kind}"])
        last = i == count - 1
        end = "" if last and chance(0.3) else rng.choice(["<|end|>", "<|return|>", "<|call|>"] if last else ["<|end|>"])
        pieces.append(("" if i == 0 else "<|start|>assistant") + header + "<|message|>")
        pieces.append(content_tokens())
        pieces.append(end)
    return tokens_of(pieces)


def content_tokens():
    """Ordinary text, and sometimes any tokens at all: halves of characters, and bytes that are none."""
    if chance(0.5):
        return encoding.encode(text(), disallowed_special=())
    return [rng.choice([rng.randrange(256), rng.randrange(199998), 200003, 199999]) for _ in range(rng.randrange(12))]


SOUP = ["assistant", "user", "tool", "functions.f", "foo", " ", " ", " to=a", "to=b", " json", "to=", "assistant:bob", "user:", ":x", "\n",
        "\u3000", "\u0085", "\u1680", "\x1c", "é", "<", "<|channel|>", "<|channel|>analysis", "<|channel|>c", "<|constrain|>json",
        "<|constrain|>", "<|message|>", "<|message|>", "<|end|>", "<|endoftext|>"]


def soup(lenient):
    """Headers that are nearly right."""
    pieces = []
    for i in range(rng.randrange(1, 3)):
        pieces.append("<|start|>" if i or chance(0.1) else "")
        pieces += [rng.choice(SOUP) for _ in range(rng.randrange(1 + (i == 0 or not lenient) * 7))]
        pieces += ["<|message|>"] if chance(0.9) or (lenient and i) else []
        pieces += [content_tokens()] if chance(0.7) else []
        pieces += [rng.choice(["<|end|>", "<|return|>", "<|call|>"])] if chance(0.9) else []
    if chance(0.05):
        pieces.append([rng.choice([176, 162, 254])])  # a byte that begins a character
    return tokens_of(pieces)


def tokens_of(pieces):
    ids = []
    for piece in pieces:
        ids += encoding.encode(piece, allowed_special="all") if isinstance(piece, str) else piece
    return ids


# ---- Comparing.

def ask(request):
    tool.stdin.write(json.dumps(request) + "\n")
    tool.stdin.flush()
    return json.loads(tool.stdout.readline())


def is_named(author):
    role, _, name = author.partition(":")
    return role in ("system", "developer", "user", "assistant") and name != ""


def author(role, name):
    """Role and name as we read them back."""
    return tuple(name.split(":", 1)) if role == "tool" and is_named(name) else (role, name)


def plain(messages):
    out = []
    for m in messages:
        content = "".join(part.text for part in m.content)
        role, name = author(m.author.role.value, m.author.name or "")
        out.append({"role": role, "name": name, "recipient": m.recipient or "", "channel": m.channel or "",
                    "content_type": m.content_type or "", "content": content})
    return out


START, END, MESSAGE, RETURN, CALL = tokens_of(["<|start|>", "<|end|>", "<|message|>", "<|return|>", "<|call|>"])


def control_in_header(ids, role, lenient):
    """Whether our parser meets a control token in a header, and so refuses."""
    state = "header" if role else "start"
    for id in ids:
        if state == "start":
            if id != START:
                return False
            state = "header"
        elif state == "header":
            if id == START or (id in (END, RETURN, CALL) and not lenient):
                return True
            state = "content" if id == MESSAGE else "start" if id in (END, RETURN, CALL) else "header"
        elif id in (END, RETURN, CALL):
            state = "start"
    return False


failures = refused = 0


def compare(what, request, expected, got):
    global failures
    if expected == got:
        return
    failures += 1
    if failures <= 5:
        expected, got = str(expected), str(got)
        same = max(len(os.path.commonprefix([expected, got])) - 60, 0)
        print(f"{what} differs\n  request  {json.dumps(request, ensure_ascii=False)}\n"
              f"  expected ...{expected[same:same + 300]!r}\n  got      ...{got[same:same + 300]!r}")


def compare_parse(ids, role, lenient=False):
    global refused
    request = {"parse": ids, "role": role, "lenient": lenient}
    answer = ask(request)
    got = answer.get("messages", answer.get("error"))
    for message in answer.get("messages", []):
        message["role"], message["name"] = author(message["role"], message["name"])
    why = ""
    try:
        expected = plain(encoding.parse_messages_from_completion_tokens(ids, oh.Role(role) if role else None, strict=not lenient))
    except BaseException as error:
        expected, why = None, str(error)
    if control_in_header(ids, role, lenient):
        expected = "an error"
    elif "Unexpected EOS" in why and lenient:
        return
    elif is_named(why.removeprefix("Unknown role: ")):
        return
    if expected is None or expected == "an error":
        refused += 1
        expected, got = "an error", "an error" if "error" in answer else got
    compare("parsing", {"text": encoding.decode(ids), **request, "why": why}, expected, got)


for _ in range(options.count):
    ours, theirs = conversation()
    drop, following = chance(0.7), rng.choice(["assistant", "assistant", "user", "tool", None])
    arguments = {"conversation": oh.Conversation.from_messages(theirs), "config": oh.RenderConversationConfig(auto_drop_analysis=drop)}
    if following:
        expected = encoding.render_conversation_for_completion(next_turn_role=oh.Role(following), **arguments)
    else:
        expected = encoding.render_conversation(**arguments)
    request = {"render": ours, "drop": drop, "next": following}
    answer = ask(request)
    got = answer.get("ids", answer)
    if expected != got and encoding.decode(expected) != (encoding.decode(got) if isinstance(got, list) else ""):
        expected, got = encoding.decode(expected), encoding.decode(got) if isinstance(got, list) else got
    compare("rendering", request, expected, got)
    if not following and expected == got:
        compare_parse(got, None)
    compare_parse(completion(), "assistant")
    role, lenient = rng.choice(["assistant", "assistant", "user", "tool", None]), chance(0.3)
    compare_parse(soup(lenient), role if not lenient else role or "user", lenient)
tool.stdin.close()
print(f"{options.count} conversations, and twice as many completions of which both refuse {refused}: {failures} differ")
sys.exit(1 if failures else 0)
