#!/usr/bin/env python3
"""Random conversations through chat templates: nibble beside jinja2 with the settings of transformers.

    template_peer.py --tool PATH [--data DIR] [--count N] [--seed S] [--record FILE]

PATH is the built text_tool. DIR holds chat_templates/*.jinja and tokenizers/*config.json; without it only the
small templates of ours below run. What jinja2 renders nibble must render, to the byte; where jinja2 raises nibble
must refuse. --record writes the fixture of template_test.cpp: conversations of ours with what jinja2 said to them.
Exits with 77 (skipped) when jinja2 is not installed.
"""
import argparse
import datetime
import glob
import json
import os
import random
import subprocess
import sys

arguments = argparse.ArgumentParser()
arguments.add_argument("--data", default=os.environ.get("NIBBLE_TEST_DATA", ""))
arguments.add_argument("--tool", required=True)
arguments.add_argument("--count", type=int, default=300)
arguments.add_argument("--seed", type=int, default=None)
arguments.add_argument("--record", default="")
options = arguments.parse_args()
try:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    print("skipped: jinja2 is not installed")
    sys.exit(77)

# One for each construct, and for what makes each hard.
OURS = {
    "white space": "  {% if true %}\n  a\n  {%- endif %}  b  \n {# c #}\n\td{{ 1 }}\n  {{- 2 -}}  \n e {%+ if true %}f{% endif +%}\n\ng\n\n",
    "line ends": "a\r\nb\rc\n{% set x = 1 %}\r\n{{ x }}\r\n",
    "literals": "{{ 1 }} {{ 1.5 }} {{ 1e20 }} {{ 0.00001 }} {{ 'a' 'b' }} {{ \"\\n\\t\\x41\\u00e9\\q\" }} {{ [1, 'a', none, true] }} {{ {'a': 1, 'b': [2.0]} }} {{ (1,) }} {{ () }} {{ \"it's\" }} {{ [\"it's\", 'say \"x\"', 'é\\u200b\\n'] }}",
    "arithmetic": "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 + 4 - 1 }} {{ 1 ~ 2 ~ 'x' }} {{ 'ab' * 3 }} {{ -(1 + 2) }} {{ +true }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ [1] + [2] }} {{ 'a' + 2 ~ 3 }}",
    "comparison": "{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ 'a' in 'abc' }} {{ 4 not in [1, 2] }} {{ 'k' in {'k': 1} }} {{ none == none }} {{ x == y }} {{ [1, [2]] == [1, [2]] }} {{ not 1 == 2 }}",
    "logic": "{{ 0 or 'a' }} {{ '' and 'b' }} {{ none or false }} {{ 'a' if 1 else 'b' }}{{ 'a' if 0 }} {{ not not 1 }} {{ 1 if false else 2 if false else 3 }}",
    "undefined": "{{ nothing }}{{ nothing is defined }}{{ messages.foo }}{{ nothing|length }}{{ nothing|list }}{% for x in nothing %}x{% else %}none{% endfor %}{{ 'a' in nothing }}{{ nothing|default('d') }}{{ ''|default('e', true) }}",
    "undefined used": "{{ nothing.more }}",
    "undefined added": "{{ 'a' + nothing }}",
    "slices": "{{ 'héllo'[1:3] }} {{ [1,2,3,4][::-1] }} {{ [1,2,3,4][-3:-1] }} {{ 'abc'[::2] }} {{ [1,2][5:] }} {{ 'abc'[-1] }} {{ [1][3] }} {{ 'abc'[2:0:-1] }} {{ messages[1:]|length }}",
    "loop": "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ loop.last }} {{ loop.revindex0 }} {{ m.role }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "loop filter": "{% for x in range(10) if x % 2 == 0 %}{{ loop.index0 }}:{{ x }} {% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in [[1, 2], [3, 4]] %}{{ a + b }} {% endfor %}{{ range(5, 0, -2)|list }}",
    "loop scope": "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}",
    "loop control": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "previous": "{% for i in [1, 2, 3] %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
    "namespace": "{% set ns = namespace(n=0, found=false) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }} {{ ns.found }} {{ ns.none }}",
    "set": "{% set a, b = [1, 2] %}{{ a }}{{ b }}{% set c %}x {{ a }}\n{% endset %}[{{ c }}]{{ c|length }}",
    "macro": "{% macro m(a, b='x', c=none) -%}\n  {{ a }}{{ b }}{{ c }}\n{%- endmacro %}{{ m(1) }} {{ m(1, 2) }} {{ m(1, c=3) }} {{ m() }} {{ m('<')|length }} {{ m is defined }}",
    "macro scope": "{% set a = 1 %}{% macro m() %}{% if b is not defined %}{% set b = 2 %}{% endif %}{{ a }}{{ b }}{{ messages|length }}{% endmacro %}{% set a = 5 %}{% for a in [7] %}{{ m() }}{% endfor %}{{ b }}",
    "macro recursion": "{% macro m(n) %}{{ n }}{% if n > 0 %},{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}",
    "macro called wrongly": "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "generation": "{% generation %}a{% endgeneration %}b",
    "filters": "{{ ' a '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ [1, 'b']|join('-') }}|{{ 'aBc'|upper }}|{{ 'ABC'|lower }}|{{ 'éTÉ'|capitalize }}|{{ 'aXbX'|replace('X', 'yy') }}|{{ 'aXbX'|replace('X', '', 1) }}|{{ [3, 4]|first }}|{{ [3, 4]|last }}|{{ 'abc'|reverse }}|{{ '12'|int + 1 }}|{{ 'x'|int }}|{{ 3.9|int }}|{{ {'b': 1, 'A': 2}|dictsort }}|{{ 5|string + 'x' }}|{{ 'abc'|list }}|{{ {'a': 1}|items|list }}|{{ none|string }}|{{ 'äÖß'|upper }}",
    "selecting": "{{ messages|selectattr('role', 'equalto', 'user')|list|length }} {{ messages|rejectattr('role', 'eq', 'user')|map(attribute='role')|join(',') }} {{ [1, 0, 2]|select|list }} {{ [1, 2, 3]|reject('odd')|list }} {{ ['a', 'b']|map('upper')|list }} {{ messages|selectattr('tool_calls')|list|length }} {{ messages|map(attribute='x.y', default='-')|join }}",
    "json": "{{ {'a': [1, 2.5, none, true], 'é': 'é\"\\n<'}|tojson }} {{ []|tojson }} {{ {}|tojson(indent=2) }}\n{{ {'a': [1, {'b': []}], 'c': 'x'}|tojson(indent=2) }} {{ 1e16|tojson }} {{ 'x'|tojson }}",
    "json of nothing": "{{ nothing|tojson }}",
    "tests": "{{ 1 is number }}{{ 1 is string }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is iterable }}{{ 'a' is iterable }}{{ 1 is iterable }}{{ none is none }}{{ 1 is not none }}{{ [] is sequence }}{{ true is boolean }}{{ 1 is boolean }}{{ true is integer }}{{ 1.0 is float }}{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 3 is divisibleby(2) }}{{ 1 is eq 1 }}{{ 2 is in [1, 2] }}{{ true is true }}{{ 1 is true }}{{ 3 is gt 2 }}{{ nothing is iterable }}",
    "methods": "{{ ' a '.strip() }}|{{ 'xxa'.lstrip('x') }}|{{ 'a b  c'.split() }}|{{ 'a,b,,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a b c '.split(none, 1) }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'abc'.find('c') }}|{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 2) }}|{{ {'a': 1}.keys()|list }}{{ {'a': 1}.values()|list }}|{{ '-'.join(['a', 'b']) }}|{{ 'abc'.replace('', '.') }}",
    "members that are methods": "{{ {'items': 1}['items'] }} {{ {}['items'] is defined }} {{ {}.items is defined }} {{ {}['x'] is defined }} {{ 'a'.title is defined }} {{ 'a'.x is defined }} {{ 'a'['x'] is defined }}",
    "date": "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %d, %y %j %H:%M:%S %I %p %a %%') }}",
    "no date": "{{ strftime_now is defined }}{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}",
    "raise": "{{ raise_exception('no: ' ~ messages|length) }}",
    "concatenation first": "{{ 1 + 2 ~ 3 }}",
    "division": "{{ 1 // (messages|length - messages|length) }}",
    "order of unlike": "{{ 1 < 'a' }}",
    "unlike added": "{{ 1 + 'a' }}",
    "printed": "{{ messages }}",
    "comment": "a{# {{ x }} {% if %} #}b {#- c -#} d",
    "nested brackets": "{{ {'a': {'b': [1, {'c': '}}'}]}}['a']['b'][1].c }}",
    "precedence": "{{ 1 + 2 * 3 }}{{ (1 + 2) * 3 }}{{ 'a' ~ 1 + 'b' }}{{ -1|string }}{{ 2 - 1 - 1 }}{{ 'x' + ['a', 'b']|join('+') }}{{ not messages is none }}{{ 1 in [1] and 2 not in [1] }}",
}


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    def _say(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def theirs(source, variables, date):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    if date:
        environment.globals["strftime_now"] = lambda form: datetime.datetime(*date).strftime(form)
    try:
        return environment.from_string(source).render(**variables)
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


seed = options.seed if options.seed is not None else random.randrange(1 << 30)
rng = random.Random(seed)
print("seed", seed)
tool = subprocess.Popen([options.tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def ours(source, variables, date):
    tool.stdin.write(json.dumps({"template": source, "variables": variables, "date": date}) + "\n")
    tool.stdin.flush()
    return json.loads(tool.stdout.readline())


def chance(p):
    return rng.random() < p


WORDS = ["story", "dog", " café", "日本語", "🙂", "don't", '"quoted"', "1234", "\n", "  ", "\t", "{{ x }}", "<|start|>", "\\", "\u00a0", "<b>&"]


def text(most=6):
    return "".join(rng.choice(WORDS) + rng.choice(["", " "]) for _ in range(rng.randrange(most)))


def schema(depth=0):
    kind = rng.choice(["string", "number", "integer", "boolean", "array", "object", "union", "one", "any"])
    out = {}
    if kind == "union":
        out["type"] = rng.choice([["string", "null"], ["object", "object"], ["number"]])
    elif kind == "one":
        out["oneOf"] = [schema(depth + 1) for _ in range(rng.randrange(1, 4))] if depth < 3 else []
    elif kind != "any":
        out["type"] = kind
    if kind == "array" and chance(0.8) and depth < 3:
        out["items"] = schema(depth + 1)
    if kind == "object" and depth < 3:
        out["properties"] = {rng.choice("abcdef") + "_" + str(i): schema(depth + 1) for i in range(rng.randrange(4))}
        if chance(0.5):
            out["required"] = [name for name in out["properties"] if chance(0.5)]
    if chance(0.3):
        out["description"] = text()
    if chance(0.2):
        out["nullable"] = chance(0.7)
    if kind == "string" and chance(0.3):
        out["enum"] = [text(3) for _ in range(rng.randrange(3))]
    if chance(0.2):
        out["default"] = rng.choice(["x", 5, 2.5, True, None, [1, "a"], {"k": []}])
    return out


def tool_definition(i):
    parameters = {"type": "object", "properties": {name: schema() for name in rng.sample(["city", "unit", "days"], rng.randrange(4))}}
    if chance(0.6):
        parameters["required"] = [name for name in parameters["properties"] if chance(0.5)]
    function = {"name": f"tool_{i}", "description": text(), "parameters": parameters}
    if chance(0.1):
        del function["parameters"]
    if chance(0.1):
        function["return"] = {"type": "string"}
    return {"type": "function", "function": function}


def call(i):
    values = {name: rng.choice([text(3), 3, 2.5, None, [text(2)]]) for name in rng.sample(["city", "unit", "days"], rng.randrange(4))}
    return {"id": "call%05d" % i if chance(0.9) else "x", "type": "function", "function": {"name": rng.choice(["tool_0", "tool_1", "brave_search"]), "arguments": values}}


def conversation():
    messages = []
    if chance(0.5):
        messages.append({"role": rng.choice(["system", "system", "developer"]), "content": text()})
    for i in range(rng.randrange(1, 5)):
        messages.append({"role": "user", "content": text()})
        if chance(0.3):
            message = {"role": "assistant", "tool_calls": [call(i) for _ in range(1 if chance(0.9) else 2)]}
            if chance(0.4):
                message["content"] = rng.choice([text(), None, ""])
            if chance(0.4):
                message["thinking"] = text()
            messages.append(message)
            messages.append({"role": rng.choice(["tool", "tool", "ipython"]), "content": rng.choice([text(), {"a": 1}, [1, "x"]]), "tool_call_id": "call%05d" % i})
        if chance(0.8):
            message = {"role": "assistant", "content": text()}
            if chance(0.3):
                message["thinking"] = text()
            messages.append(message)
    variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": chance(0.6)}
    if chance(0.4):
        variables["tools"] = [tool_definition(i) for i in range(rng.randrange(1, 3))] if chance(0.9) else None
    if chance(0.2):
        variables["builtin_tools"] = rng.sample(["browser", "python", "code_interpreter", "brave_search"], 2)
    if chance(0.2):
        variables["reasoning_effort"] = "high"
    if chance(0.2):
        variables["tools_in_user_message"] = chance(0.5)
    return variables


templates = dict(OURS)
if options.data:
    for path in sorted(glob.glob(os.path.join(options.data, "chat_templates", "*.jinja")) + glob.glob(os.path.join(options.data, "models", "*", "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as file:
            templates[os.path.relpath(path, options.data)] = file.read()
    for path in sorted(glob.glob(os.path.join(options.data, "tokenizers", "*_config.json"))):
        with open(path, encoding="utf-8") as file:
            source = json.load(file).get("chat_template")
        if isinstance(source, str):
            templates[os.path.relpath(path, options.data)] = source

if options.record:
    records = []
    for name, source in templates.items():
        published = name not in OURS
        for _ in range(8 if published else 1):
            variables, date = conversation(), [2026, 1, 5, 13, 7, 9]
            expected = theirs(source, variables, date)
            records.append({"file": name} if published else {"name": name, "template": source})
            records[-1] |= {"variables": variables, "text": expected}
    with open(options.record, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n]\n")
    print(len(records), "recorded")
    sys.exit(0)

failures = rendered = refused = 0
for name, source in templates.items():
    for _ in range(options.count if name not in OURS else max(1, options.count // 50)):
        variables, date = conversation(), rng.choice([None, [rng.randrange(1990, 2100), rng.randrange(1, 13), rng.randrange(1, 29), rng.randrange(24), 5, 59]])
        expected, got = theirs(source, variables, date), ours(source, variables, date)
        rendered, refused = rendered + (expected is not None), refused + (expected is None)
        if expected is None if "text" in got else expected is not None:
            same = False
        else:
            same = expected is None or got["text"] == expected
        if not same:
            failures += 1
            if failures <= 5:
                print(name, json.dumps(variables, ensure_ascii=False)[:600], "\n  expected", repr(expected)[:1500], "\n  got     ", repr(got)[:1500])
tool.stdin.close()
print(f"{len(templates)} templates, {rendered} texts, {refused} refusals: {failures} differ")
sys.exit(1 if failures else 0)
