"""Chat templates: as transformers renders them, and where they are meant to do harm."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tabml.errors import CorruptModelError, OptionError, UnsafeModelError
from tabml.text.templates import MAX_TEMPLATE, ChatTemplate

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
THINKING = (
    "{% for m in messages %}{% generation %}{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{% endgeneration %}{{ m.content }}{% endfor %}{{ strftime_now('%Y')[:2] }}{{ dict(a=1) }}"
    "{% if enable_thinking %}ON{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "thinking": THINKING}
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
                want, _ = render_jinja_template(
                    [CHATS[chat]], tools, chat_template=TEMPLATES[name], add_generation_prompt=add, enable_thinking=add,
                    **TOKENS,
                )  # fmt: skip
                found = template.render(
                    CHATS[chat], tools=tools, add_generation_prompt=add, extra={"enable_thinking": add}
                )
                assert found == want[0]
    finally:
        template.close()


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral"])
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


HARM = {
    "a power": "{{ 9**(9**(messages | length + 8)) }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a long text": "{{ ('a' * 10**10) | length }}",
    "a long answer": "{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a list": "{% set ns = namespace(a=[1]) %}{% for x in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
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
    except (OptionError, CorruptModelError):
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
        from tabml.text.templates import ChatTemplate
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
