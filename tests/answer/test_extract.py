"""The extractor: what it finds, what it leaves, and that nothing hurts it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grhpc.answer.extract import extract_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{\sqrt{\frac{a_{1}}{b}}}", r"\sqrt{\frac{a_{1}}{b}}"),
        (r"\boxed {5}", "5"),
        ("\\boxed\n{5}", "5"),
        (r"\fbox{7}", "7"),
        (r"$\boxed{ 3 }$", "3"),
        (r"\boxed{$3$}", "3"),
        (r"\boxed{\$3}", r"\$3"),
        (r"\boxed{$x$, $y$}", "$x$, $y$"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{1} then \fbox{2}", "2"),
        (r"\boxed{5} and then \boxed{6", "5"),
        (r"put it in \boxed{}: \boxed{5}, as \boxed{ } says", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"\boxed{\text{the answer is: no}}", r"\text{the answer is: no}"),
        (r"\boxed{5} Final Answer: 6", "5"),
        ("\\boxed{multi\nline}", "multi\nline"),
        (r"\boxed{日本 {x}}", "日本 {x}"),
        ("they arrive at \\(\\boxed{4:30 \\text{ p.m.}}\\).", "4:30 \\text{ p.m.}"),
        ("\\[\n\\boxed{\nC: they decide to be tested.\n}\n\\]", "C: they decide to be tested."),
        (
            "**5** is it\n\n---\n\n\\[\n\\boxed{\\dfrac{(1+\\sqrt{3})^{4}}{2^{2}}}\n\\]",
            "\\dfrac{(1+\\sqrt{3})^{4}}{2^{2}}",
        ),
    ],
)
def test_boxes(response, answer):
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is: 42", "42"),
        ("The answer is 42.", "42"),
        ("the final answer is 3.5", "3.5"),
        ("The correct answer is (B).", "(B)"),
        ("The best answer is B", "B"),
        ("the right answer is: 12", "12"),
        ("Answer: 7\n", "7"),
        ("answer:7", "7"),
        ("**Final Answer:** 7", "7"),
        ("**Final Answer**: **7**", "7"),
        ("**Final Answer: 7**", "7"),
        ("Final Answer is: yes", "yes"),
        ("Final Answer:\n\n  7 apples\nbecause I say so", "7 apples"),
        ("Final Answer:\n\\[\n42\n\\]", "42"),
        ("### Final Answer\n\n$42$", "42"),
        ("Answer: $$42$$", "42"),
        ("Answer: \\(4^2\\).", "4^2"),
        ("The answer is \\[x\\]", "x"),
        ("Answer: $5", "$5"),
        ("Answer: $x$ and $y$", "$x$ and $y$"),
        ("Answer: $5 or $6", "$5 or $6"),
        ("**Final Answer**\n42", "42"),
        ("The solution is: x = 2", "x = 2"),
        ("Solution: x = 2", "x = 2"),
        ("Answer: 1\nWait.\nAnswer: 2", "2"),
        ("Answer: 12\nThis is how the answer is found.", "12"),
        ("**Final answer: 12**\n\nThe answer is derived from the first line.", "12"),
        ("### Final Answer\n12\n\nWhy the answer is 12: it is even.", "12"),
        ("The answer is 3.\nThe solution is: x = 2\nSo the answer is plain.", "x = 2"),
        ("The answer is 1. So the answer is 2.", "2"),
        ("Final Answer: The final answer is $12$. I hope it is correct.", "12"),
        ("Final Answer: The final answer is 12. I hope it is correct.", "12"),
        ("Answer: 7\n\nFinal Answer:\nThe final answer is $12$. I hope it is correct.", "12"),
        ("Final Answer: The final answer is $12$. I hope this is correct.\n\nThe answer is 13", "12"),
        ("Answer: 12 m, since the answer is in metres", "12 m"),
        ("Answer: 12 (the answer is in metres)", "12"),
        ("Answer: 12, so the answer is 12.", "12"),
        ("Answer: Let's think step by step.\n2 + 3 = 5.\nThe answer is (B).", "(B)"),
        ("Answer: The sum of two and three is five. The answer is 5.", "5"),
        ("Answer: To find x, we divide.\nSo the answer is 5", "5"),
        ("### Final Answer\n\n**Step by step:**\n2 + 3 = 5\nSo the answer is 5.", "5"),
        ("Answer: Given what was said of justice and its use, option C seems the best.\nHence, the answer is C", "C"),
        ("Answer: First Amendment\nThat the answer is so follows from the text.", "First Amendment"),
        ("Answer: let us see", "let us see"),
        ("Solution: Let x be the number.\nx = 2\nThe answer is 2.", "2"),
        ("The answer is 2.\nSolution: x + 1 = 3", "x + 1 = 3"),
        ("Answer: 5\nFinal Answer:", "5"),
        ("Answer: 5<|im_end|>", "5"),
        ("The answer is 5. </s><|endoftext|>", "5"),
        ("\r\nAnswer:\r\n5\r\nmore", "5"),
        ("İ Answer: 5", "5"),
        ("Answers: 2 and 3", "2 and 3"),
        ("\u7b54\u6848\uff1a5", "5"),  # Chinese, which sets no spaces
        ("\u56e0\u6b64\uff0c\u6700\u7ec8\u7b54\u6848\u662f **5**\u3002", "5"),
        ("\u7b54\u6848\u4e3a: 5", "5"),
        ("\u7b54\u6848\u662f4\u3002\nAnswer: 5", "5"),
        ("\u7b54\u6848\uff1a4\n\u8fd9\u5c31\u662f\u7b54\u6848\u662f5", "4"),  # an explicit one goes before prose
        ("<answer>5</answer>", "5"),
        ("<ANSWER>The answer is 5.</ANSWER>", "5"),
        ("<think>6?</think>\n<answer>\n**5**\n</answer>", "5"),
        ("<answer>4</answer> no: <answer>5</answer>. The answer is above.", "5"),
        ("<answer>First we add two and three, which makes five. The answer is 5</answer>", "5"),
        ("Put it in <answer></answer>. The answer is 5.", "5"),
        ("Student Answer\uff1a 5", "5"),
        ("### Final Answer\n\n<final_answer>1</final_answer>", "1"),
        ("Answer: <answer> (2, 3) </answer>.", "(2, 3)"),
        ("Answer: a < b", "a < b"),
        ("The answer is 3.\nThe answer is (D)\n\nMore would be needed for the last question.", "(D)"),
        ("so her family arrives.\nThe answer is 4:30 p.m.\n```python\n", "4:30 p.m"),
        ("The answer is 5. </s> <|endoftext|>\n</s>", "5"),
        ("The answer is \\boxed5", "\\boxed5"),
    ],
)
def test_markers(response, answer):
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    [
        "",
        "42",
        "I would answer that it is 42",
        "an unanswerable: 5",
        r"\boxed{}",
        r"\boxed{ \quad "[:-6],
        r"\boxed5",
        r"\boxed{5",
        "Solution:\nFirst we take the derivative",
        "Final Answer:",
        "Answer: <|im_end|>",
        "Answer: **",
        "{}{}{",
        "The final answer is $\\boxed{12",  # cut off
        "Final Answer:\n\\[\n\\boxed{\n12",
        "Answer: 12, that is \\fbox{1",
        "<answer></answer>",
        "<answer>\n5\nsince it is so\n</answer>",
        "<answer>we add two and three and so find that it makes five</answer>",
        "<answer>\\boxed{5</answer>",
    ],
)
def test_no_answer(response):
    assert extract_answer(response) is None


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>Try 5: \\boxed{5}? No</think>\nThe answer is 7.", "7"),
        ("So 5? \\boxed{5}? No</think>\n**Final Answer:** 7", "7"),  # the template opened it
        ("<think>\\boxed{1}</think>\\boxed{2}<think>\\boxed{3}</think>\\boxed{4}", "4"),
        ("<think></think>\\boxed{5}", "5"),
        ("<think>The answer is 7.</think>\nIt is what I thought.", None),  # what is tried out in thought is not said
        ("<think>\\boxed{5}</think>", None),
        ("<think>So \\boxed{5}. Let me check: the answer is 6", None),  # cut off
        ("\\boxed{2}<think>or rather \\boxed{3}", None),
        ("The answer is 2 </think> <think> or 3", None),
    ],
)
def test_only_what_is_said_after_thinking_is_an_answer(response, answer):
    assert extract_answer(response) == answer


balanced = st.recursive(
    st.text(alphabet="ab1 +\\%", min_size=1, max_size=5).map(lambda text: text.replace("\\", "\\frac")),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=12,
)


@given(before=st.text(), content=balanced, after=st.text(alphabet="xyz {}.\n"))
def test_a_box_gives_back_its_content_at_any_depth(before, content, after):
    content = content.strip()
    if not content or content.strip("{} ") == "":
        content = f"x{content}"
    assert extract_answer(f"{before} \\boxed{{{content}}}{after}") == content


@given(depth=st.integers(0, 3000))
@settings(max_examples=20, deadline=None)
def test_depth_has_no_limit(depth):
    content = "{" * depth + "1" + "}" * depth
    assert extract_answer(f"\\boxed{{{content}}}") == content


BRACES = ["\\boxed", "\\fbox", "{", "}", "\\{", "\\}", "\\\\"]
WORDS = ["answer", "Answer:", "The answer is", "the final ", "Solution:", "**", "#", ":", "is", ".", "$$", "1", "x"]
ODD = ["<think>", "</think>", " ", "\n", "\r", "<|im_end|>", "</s>", "İ", "\ud800", "\u2028", "\0"]
pieces = st.sampled_from(BRACES + WORDS + ODD)


@given(st.lists(st.one_of(pieces, st.text(max_size=3)), max_size=60).map("".join))
@settings(max_examples=400, deadline=None)
def test_never_raises_and_never_invents(response):
    answer = extract_answer(response)
    if answer is not None:
        assert answer and answer == answer.strip()
        assert answer in response


@given(first=st.text(alphabet="ab{}\\ \n"), last=st.integers())
def test_what_comes_before_the_last_box_does_not_matter(first, last):
    assert extract_answer(f"{first} \\boxed{{{last}}}") == str(last)


HOSTILE = {
    "opening": "{" * 10**6,
    "closing": "}" * 10**6,
    "box of opening": "\\boxed" + "{" * 10**6,
    "box of closing": "\\boxed{" + "}" * 10**6,
    "deep": "\\boxed" + "{" * 500_000 + "}" * 500_000,
    "boxes never closed": "\\boxed{" * 140_000,
    "boxes in boxes": "\\boxed{" * 120_000 + "}" * 120_000,
    "empty boxes": "\\boxed{}" * 125_000,
    "escaped": "\\boxed{" + "\\{" * 500_000,
    "box, spaces": "\\boxed" + " " * 10**6,
    "markers": "answer:" * 140_000,
    "marker lines": "answer:\n" * 125_000,
    "marker, empty lines": "answer:" + "\n" * 10**6,
    "marker, stars": "answer:" + "*\n" * 500_000,
    "the, spaces": "the" + " " * 10**6 + "answer is",
    "answer, spaces": "answer" + " " * 10**6,
    "prose": "the answer is so " * 60_000,
    "prose, no end": "the answer is " * 70_000,
    "solutions": "solution: let x " * 60_000,
    "derived": "answer: let x \n" * 60_000,
    "joins": "answer: " + ", " * 450_000 + "the answer is 5",
    "hopes": "answer: " + "I hope it is correct. " * 45_000,
    "maths signs": "\\boxed{" + "$" * 10**6 + "}",
    "a maths sign": "\\boxed{$" + "\\$" * 500_000 + "}",
    "answer, stars": "answer" + "*" * 10**6,
    "the the": "the " * 250_000,
    "end tokens": "answer: " + "<|im_end|>" * 100_000,
    "short end tokens": "answer: 5" + "</s>" * 250_000,
    "end tokens, more": "answer: " + "</s>" * 250_000 + "5",
    "thoughts": "<think>" * 140_000,
    "thoughts closed": "</think>" * 125_000,
    "opened tags": "<answer>" * 125_000 + "</answer>",
    "closed tags": "<answer>" + "</answer>" * 125_000,
    "chinese": "\u7b54\u6848\u662f" * 300_000,
    "hashes": "#\n" * 500_000 + "final answer",
    "spaces before": " " * 10**6 + "final answer\n5",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.timeout(600)
def test_a_megabyte_of_hostile_input_ends(text):
    """In quadratic time each of these would take hours; tests/bench/bench_extract.py has the milliseconds."""
    answer = extract_answer(text)
    assert answer is None or answer in text
