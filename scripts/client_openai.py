"""The `openai` package as a client: everything that it can ask of the completions of a base model, with assertions. Needs
scripts/venv.sh and a built program.

  .venv/bin/python scripts/client_openai.py [MODEL]     a run folder or a Hugging Face folder [default: fixtures/eval/model]

Exit code 1 and a Python traceback at the first thing that is not as the package, or OpenAI's documentation, has it.
"""
import math
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import OpenAI

from serving import ROOT, serving

KEY = "a-key-of-the-test"
PROMPT = "Somebody takes a kite and"
checks = 0


def check(condition, what):
    global checks
    checks += 1
    assert condition, what


def client_of(url, key=KEY):
    return OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=120)


def completions(client):
    model = client.models.list().data[0].id
    # The context is what max_tokens is cut to; the tests stay below it.
    ask = lambda **extra: client.completions.create(model=model, **{"prompt": PROMPT, "max_tokens": 6, "seed": 7, **extra})

    one = ask()
    check(one.object == "text_completion" and one.choices[0].index == 0 and one.choices[0].text != "", "a completion")
    check(one.choices[0].finish_reason in ("length", "stop"), "a reason to end")
    check(one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens, "usage adds up")
    check(ask().choices[0].text == one.choices[0].text, "the same seed gives the same text")
    check(len({ask(seed=s).choices[0].text for s in range(6)}) > 1, "another seed gives another text")

    both = ask(prompt=[PROMPT, "Hanna asked"])
    check([c.index for c in both.choices] == [0, 1], "a list of prompts")
    check(both.choices[0].text == one.choices[0].text, "a prompt among others gives what it gives alone")
    three = ask(n=3)
    check(len(three.choices) == 3 and three.choices[0].text == one.choices[0].text, "n")
    best = ask(n=1, best_of=4, logprobs=0)
    drawn = ask(n=4, logprobs=0)
    mean = lambda c: sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs)
    check(abs(mean(best.choices[0]) - max(map(mean, drawn.choices))) < 1e-6, "best_of returns the likeliest per token")

    echo = ask(echo=True, logprobs=2, temperature=0)
    lists = echo.choices[0].logprobs
    n = echo.usage.prompt_tokens + echo.usage.completion_tokens
    check(len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset) == n, "lists with echo")
    check(lists.token_logprobs[0] is None and all(x <= 0 for x in lists.token_logprobs[1:]), "the first token has no probability")
    check(echo.choices[0].text.startswith(PROMPT), "echo")
    for own, top in list(zip(lists.token_logprobs, lists.top_logprobs))[echo.usage.prompt_tokens:]:
        check(math.isclose(own, max(top.values())), "temperature 0 takes the likeliest")
    scored = ask(echo=True, logprobs=1, max_tokens=0)
    check(scored.choices[0].text == PROMPT and scored.usage.completion_tokens == 0, "scoring without a new token")
    check(scored.choices[0].logprobs.token_logprobs == lists.token_logprobs[: len(scored.choices[0].logprobs.tokens)], "the same scores from the cache")

    ids = ask(extra_body={"return_token_ids": True}).choices[0].model_extra
    from_ids = ask(prompt=ids["prompt_token_ids"])
    check(from_ids.choices[0].text == one.choices[0].text, "token ids as the prompt")
    check([c.text for c in ask(prompt=[ids["prompt_token_ids"]] * 2).choices] == [one.choices[0].text] * 2, "lists of token ids")
    banned = ids["token_ids"][0]
    without = ask(logit_bias={str(banned): -100}, extra_body={"return_token_ids": True}).choices[0].model_extra["token_ids"]
    check(banned not in without, "a logit bias of -100 forbids a token")
    forced = ask(logit_bias={str(banned): 100}, extra_body={"return_token_ids": True}).choices[0].model_extra["token_ids"]
    check(set(forced) == {banned}, "a logit bias of 100 forces a token")
    text = one.choices[0].text
    part = text[2:4]
    cut = ask(stop=[part])
    check(cut.choices[0].text == text[: text.index(part)] and cut.choices[0].finish_reason == "stop", "a stop string cuts the text")
    check(ask(frequency_penalty=2, presence_penalty=2, top_p=0.9, temperature=1.2).choices[0].text is not None, "penalties, top-p")

    events = list(ask(stream=True, n=2, logprobs=1, stream_options={"include_usage": True}))
    joined = ["", ""]
    for event in events:
        for choice in event.choices:
            joined[choice.index] += choice.text
    check(joined[0] == text and joined[1] == ask(n=2).choices[1].text, "a stream brings the same texts")
    check(events[-1].usage.completion_tokens == ask(n=2).usage.completion_tokens and not events[-1].choices, "usage comes last")
    check(sum(c.finish_reason is not None for e in events for c in e.choices) == 2, "each choice ends once")
    with client.completions.create(model=model, prompt=PROMPT, max_tokens=40, n=16, stream=True) as stream:
        next(iter(stream))
    check(ask().choices[0].text == text, "leaving a stream disturbs nobody")
    with ThreadPoolExecutor(16) as pool:
        check({c.choices[0].text for c in pool.map(lambda _: ask(), range(48))} == {text}, "48 requests at once, one text")


def chats(client):
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": "Why?"}]
    transcript = client.get("/../corella/transcript", cast_to=object)["transcript"]
    check((transcript["human"], transcript["assistant"]) == ("Q", "A"), "the transcript is configurable and visible")
    ask = lambda **extra: client.chat.completions.create(model=model, messages=messages, max_tokens=8, seed=3, **extra)
    answer = ask()
    about = answer.model_extra["corella"]
    check(answer.object == "chat.completion" and answer.choices[0].message.role == "assistant", "a chat completion")
    check("base model" in about["note"] and about["prompt"].endswith(f"Why?\n{transcript['assistant']}:"), "it says what it did")
    events = list(ask(stream=True, stream_options={"include_usage": True}))
    check(events[0].object == "chat.completion.chunk" and events[0].choices[0].delta.role == "assistant", "a stream of a chat begins with the role")
    check(events[0].model_extra["corella"]["prompt"] == about["prompt"], "the stream shows the page too")
    joined = "".join(c.delta.content or "" for e in events for c in e.choices)
    check(joined == answer.choices[0].message.content, f"the same text: {joined!r}, {answer.choices[0].message.content!r}")
    check(events[-1].usage.completion_tokens == answer.usage.completion_tokens, "usage of a streamed chat")
    check([c.finish_reason for e in events for c in e.choices if c.finish_reason] == [answer.choices[0].finish_reason], "it ends once")
    two = ask(n=2)
    check(len(two.choices) == 2 and two.choices[0].message.content == answer.choices[0].message.content, "n of a chat")


def refused(kind, what, call, param=None):
    try:
        call()
    except kind as error:
        check(param is None or error.param == param, f"{what}: {error.param} is named, not {param}")
        check(error.body["message"], what)
        return
    raise AssertionError(f"{what}: no {kind.__name__}")


def errors(url, client):
    model = client.models.list().data[0].id
    ask = lambda **extra: client.completions.create(model=model, **{"prompt": PROMPT, "max_tokens": 2, **extra})
    refused(openai.AuthenticationError, "a wrong key", lambda: client_of(url, "wrong").models.list())
    refused(openai.NotFoundError, "another model", lambda: client.completions.create(model="gpt-5", prompt="a"), "model")
    for param, value in dict(n=0, best_of=1000, temperature=-1, top_p=0, logprobs=10**6, max_tokens=-1, suffix="end", logit_bias={"1": 500},
                             stop=[str(i) for i in range(1000)], prompt=[10**9], frequency_penalty=9).items():
        refused(openai.BadRequestError, param, lambda: ask(**{param: value}), param)
    refused(openai.BadRequestError, "a prompt over the context", lambda: ask(prompt="kite " * 100_000), "prompt")
    refused(openai.BadRequestError, "tools", lambda: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "a"}], tools=[{"type": "function", "function": {"name": "f"}}]), "tools")


def busy(model):
    """One place to run, one to wait: of many requests some are refused, with the time to wait."""
    with serving(model, "--queue", "1", "--parallel", "1") as url:
        client = client_of(url)
        name = client.models.list().data[0].id
        def ask(_):
            try:
                client.completions.create(model=name, prompt=PROMPT, max_tokens=40, n=8, extra_body={"ignore_eos": True})
                return 200
            except openai.RateLimitError as error:
                check(float(error.response.headers["retry-after"]) > 0, "Retry-After")
                return error.status_code
        with ThreadPoolExecutor(24) as pool:
            seen = list(pool.map(ask, range(24)))
        check(set(seen) == {200, 429}, f"some are answered, some are refused: {seen}")


def all_pages_free(url):
    for _ in range(200):
        request = urllib.request.Request(url + "/metrics", headers={"authorization": "Bearer " + KEY})
        held = [l for l in urllib.request.urlopen(request).read().decode().splitlines() if l.startswith("corella_pages_held ")]
        if held == ["corella_pages_held 0"]:
            return True
        time.sleep(0.05)
    return False


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else ROOT / "fixtures" / "eval" / "model"
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as transcript:
        # Short, so that it fits into a context of 64 tokens.
        transcript.write('preamble = "A talk."\nhuman = "Q"\nassistant = "A"\n')
        transcript.flush()
        with serving(model, "--api-key", KEY, "--transcript", transcript.name) as url:
            client = client_of(url)
            completions(client)
            chats(client)
            errors(url, client)
            check(all_pages_free(url), "all pages are free at the end")
    busy(model)
    print(f"openai {openai.__version__}: {checks} checks passed")


if __name__ == "__main__":
    main()
