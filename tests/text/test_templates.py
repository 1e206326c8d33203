"""Chat templates: as transformers renders them, and where they are meant to do harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tabml.errors import CorruptModelError, ModelClosedError, OptionError, UnsafeModelError
from tabml.generation.templates import MAX_TEMPLATE, ChatTemplate

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if tools is not none and tools %}
    {{- "Environment: ipython\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' + (tool_call.arguments | tojson) + '}' + "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" + message.content + "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% set ns = namespace(first=true) %}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{% if not ns.first %}{{ '\n' }}{% endif %}{% set ns.first = false %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>' }}"
    "{% if loop.index > 50 %}{% break %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{'\n<start_of_turn>model\n'}}{% endif %}"
)
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
BLOCKS = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{{ c.text }}|{% endfor %}{% endif %}{% endfor %}"
SCOPES = (
    "{% for m in messages %}{% generation %}{% set x = 5 %}{{ x }}{{ m.role }}{% endgeneration %}{{ x }}{% endfor %}"
    "{{ dict.fromkeys(['a', 'b'], 1) }}{{ namespace(self=1).self }}"
)
THINKING = (
    "{% for m in messages %}{% generation %}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{% endgeneration %}{{ m.content }}{% endfor %}{{ strftime_now('%Y')[:2] }}{{ dict(a=1) }}"
    "{% if enable_thinking %}ON{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "thinking": THINKING,
             "qwen": QWEN, "scopes": SCOPES}  # fmt: skip
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Häuser <b>", "parameters": {"a": "int"}}}]
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [{"role": "user", "content": " hi & <b>bye</b>  "}],
    "turns": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello 😀", "thinking": "greet"},
        {"role": "user", "content": "Grüße\n"},
    ],
    "calls": [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "2"},
    ],
}


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_render_as_in_transformers(name: str, chat: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = ChatTemplate(TEMPLATES[name], TOKENS)
    try:
        for tools in (None, TOOLS):
            for add in (True, False):
                try:
                    want, _ = render_jinja_template(
                        [CHATS[chat]], tools, chat_template=TEMPLATES[name], add_generation_prompt=add,
                        enable_thinking=add, **TOKENS,
                    )  # fmt: skip
                except jinja2.exceptions.TemplateError as problem:
                    with pytest.raises(OptionError, match=str(problem)[:20]):
                        template.render(CHATS[chat], tools=tools, add_generation_prompt=add)
                    continue
                found = template.render(
                    CHATS[chat], tools=tools, add_generation_prompt=add, extra={"enable_thinking": add}
                )
                assert found == want[0]
    finally:
        template.close()


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "qwen"])
def test_the_last_message_can_be_continued(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "It is a  "}]
    want, _ = render_jinja_template([chat], chat_template=TEMPLATES[name], continue_final_message=True, **TOKENS)
    template = ChatTemplate(TEMPLATES[name], TOKENS)
    try:
        found = template.render(chat, add_generation_prompt=False, continue_final_message=True)
        assert found == want[0]
        with pytest.raises(OptionError, match="text to continue"):
            template.render([{"role": "assistant", "content": None}], continue_final_message=True)
    finally:
        template.close()


def test_the_last_block_of_the_last_message_can_be_continued() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two "}, {"type": "image"}]
    chat: list[dict[str, Any]] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": blocks}]
    want, _ = render_jinja_template([chat], chat_template=BLOCKS, continue_final_message=True)
    template = ChatTemplate(BLOCKS)
    try:
        assert template.render(chat, continue_final_message=True) == want[0]
        assert blocks[1]["text"] == "two "
    finally:
        template.close()


HARM = {
    "a power": "{{ 9**(9**(messages | length + 8)) }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a long text": "{{ ('a' * 10**10) | length }}",
    "a long answer": "{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a list": "{% set ns = namespace(a=[1]) %}{% for x in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "a long range": "{% for a in range(10**12) %}{% endfor %}",
    "an attribute": "{{ ''.__class__.__mro__ }}",
    "a format": "{{ '%999999999999d' % 1 }}",
}
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}", "{{ messages.append(1) }}", "{{ dict.__class__ }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{{ ('{0.__class__}').format(1) }}",
]  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_a_template_that_means_harm_is_stopped_and_the_next_render_works(name: str) -> None:
    bad = "{% if messages[0].content == 'bad' %}" + HARM[name] + "{% endif %}ok"
    template = ChatTemplate(bad, timeout_s=1.0)
    try:
        template.start()
        with pytest.raises((UnsafeModelError, OptionError)):
            template.render([{"role": "user", "content": "bad"}])
        assert template.render([{"role": "user", "content": "good"}]) == "ok"
    finally:
        template.close()


@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_leads_out_of_the_template(escape: str) -> None:
    template = ChatTemplate("{% if true %}" + escape + "{% endif %}")
    try:
        text = template.render([{"role": "user", "content": "x"}])
    except (OptionError, CorruptModelError, UnsafeModelError):
        return
    finally:
        template.close()
    assert "class" not in text
    assert "root" not in text
    assert "function" not in text


def test_a_template_that_cannot_be_read_says_so() -> None:
    for broken in ("{% if %}", "{{ a", "{% nosuchtag %}"):
        template = ChatTemplate(broken)
        with pytest.raises(CorruptModelError, match="can't be read"):
            template.render([{"role": "user", "content": "x"}])
    with pytest.raises(UnsafeModelError, match="limit"):
        ChatTemplate(" " * (MAX_TEMPLATE + 1))
    with pytest.raises(UnsafeModelError, match="limit"):
        ChatTemplate("é" * (MAX_TEMPLATE // 2 + 1))


@pytest.mark.parametrize("deep", ["{% for a in [1] %}", "{% if 1 %}"])
def test_a_template_that_is_nested_too_deeply_says_so(deep: str) -> None:
    end = "{% endfor %}" if "for" in deep else "{% endif %}"
    template = ChatTemplate(deep * 3000 + end * 3000)
    with pytest.raises(CorruptModelError, match="can't be read"):
        template.start()


def test_a_template_that_takes_too_long_to_read_is_stopped() -> None:
    """Jinja computes constants as it reads."""
    template = ChatTemplate("{{ 9**(9**9) }}", timeout_s=1.0)
    with pytest.raises(UnsafeModelError, match="can't be read within"):
        template.start()


def test_a_refusal_of_the_template_reaches_the_caller() -> None:
    template = ChatTemplate(MISTRAL, TOKENS)
    try:
        with pytest.raises(OptionError, match="roles must alternate"):
            template.render([{"role": "assistant", "content": "x"}])
        with pytest.raises(OptionError, match="plain JSON"):
            template.render([{"role": "user", "content": object()}])
        for wrong in (["text"], [5], None, "text"):
            with pytest.raises(OptionError, match="must be a list"):
                template.render(wrong)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="the limit is"):
            template.render([{"role": "user", "content": "x" * (65 << 20)}])
    finally:
        template.close()


def test_a_refusal_longer_than_any_answer_still_reaches_the_caller() -> None:
    template = ChatTemplate("{{ raise_exception('é\\n' * 200) }}", max_characters=5)
    try:
        with pytest.raises(OptionError, match="é é") as caught:
            template.render([{"role": "user", "content": "x"}])
        assert "\n" not in str(caught.value)
    finally:
        template.close()


def test_what_reaches_for_the_insides_of_python_is_called_unsafe() -> None:
    for template in map(ChatTemplate, ("{{ ''.__class__.__mro__ }}", "{% set n = namespace(_a=1) %}")):
        with pytest.raises(UnsafeModelError, match="SecurityError"):
            template.render([{"role": "user", "content": "x"}])
        template.close()


def test_a_closed_template_says_so_and_starts_nothing() -> None:
    template = ChatTemplate("x")
    template.close()
    with pytest.raises(ModelClosedError):
        template.render([{"role": "user", "content": "x"}])
    assert template._child is None


def test_an_interrupted_render_answers_nobody_else() -> None:
    """The answer that nobody waited for must not be the next conversation's."""
    template = ChatTemplate(
        "{% if messages[0].content == 'slow' %}{% for a in range(9999) %}{% for b in range(99) %}{% endfor %}"
        "{% endfor %}{% endif %}{{ messages[0].content }}"
    )

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        template.start()
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            template.render([{"role": "user", "content": "slow"}])
        assert template.render([{"role": "user", "content": "mine"}]) == "mine"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        template.close()


def test_the_child_has_its_limits() -> None:
    template = ChatTemplate("x")
    try:
        template.start()
        assert template._child is not None
        place = Path(f"/proc/{template._child.pid}")
        limits = {line[:26].strip(): line[26:47].strip() for line in (place / "limits").read_text().splitlines()}
        assert limits["Max address space"] == str(1 << 30)
        assert limits["Max file size"] == limits["Max core file size"] == "0"
        assert int(limits["Max open files"]) == 16
        assert int(limits["Max cpu time"]) < 10
        assert b"=" not in (place / "environ").read_bytes()
        assert len(os.listdir(place / "fd")) == 3
    finally:
        template.close()


def test_limits_that_are_lower_already_stay(run_python: Any) -> None:
    ended = run_python(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
        from tabml.generation.templates import ChatTemplate
        template = ChatTemplate("{{ messages[0].content }}")
        print(template.render([{"role": "user", "content": "fine"}]))
        template.close()
        """
    )
    assert ended.stdout.strip() == "fine"


def test_threads_get_their_own_answers() -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    try:
        with ThreadPoolExecutor(8) as threads:
            texts = [str(number) * 50 for number in range(200)]
            assert list(threads.map(lambda text: template.render([{"role": "user", "content": text}]), texts)) == texts
    finally:
        template.close()


def test_nothing_is_left_behind() -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    ChatTemplate("x").close()
    before = held()
    for _ in range(5):
        template = ChatTemplate(CHATML)
        template.start()
        child = template._child
        assert child is not None
        template.close()
        template.close()
        assert child.poll() is not None
    assert held() == before


def test_a_child_that_was_killed_is_replaced() -> None:
    template = ChatTemplate(CHATML)
    try:
        want = template.render(CHATS["one"])
        assert template._child is not None
        template._child.kill()
        template._child.wait()
        assert template.render(CHATS["one"]) == want
    finally:
        template.close()


def test_the_child_ends_with_its_parent(run_python: Any) -> None:
    ended = run_python(
        """
        import os
        from tabml.generation.templates import ChatTemplate
        template = ChatTemplate("x")
        template.start()
        print(template._child.pid, flush=True)
        os._exit(0)
        """
    )
    pid = int(ended.stdout)
    end = time.monotonic() + 5
    while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}") or ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_child_that_is_busy_ends_soon_after_its_parent() -> None:
    """It doesn't read stdin then: the kernel ends it, by its processor time."""
    code = (
        "from tabml.generation.templates import ChatTemplate\n"
        "template = ChatTemplate('{% if messages %}{{ 9**(9**(messages | length + 8)) }}{% endif %}', timeout_s=1.0)\n"
        "template.start()\n"
        "print(template._child.pid, flush=True)\n"
        "template.render([{'role': 'user', 'content': 'x'}])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    stat = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + 30
    while time.monotonic() < end and stat.exists() and ") Z " not in stat.read_text():
        time.sleep(0.05)
    assert not stat.exists() or ") Z " in stat.read_text()


def test_messages_that_are_longer_than_any_answer_are_the_callers_fault() -> None:
    template = ChatTemplate("{{ messages[0].content }}", max_characters=1000)
    try:
        with pytest.raises(
            OptionError, match=r"messages have 1\d+ bytes as JSON; the chat template was stopped: it writes"
        ):
            template.render([{"role": "user", "content": "x" * 1001}])
    finally:
        template.close()


@pytest.mark.parametrize("name", ["messages", "tools", "documents", "add_generation_prompt"])
def test_options_of_a_template_are_not_what_the_call_sets(name: str) -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    try:
        with pytest.raises(OptionError, match=f"template_options has '{name}', which the call sets itself"):
            template.render([{"role": "user", "content": "x"}], extra={name: []})
    finally:
        template.close()
