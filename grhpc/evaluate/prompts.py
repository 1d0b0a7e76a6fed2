"""What is asked: a question, its options, and how the answer is wanted, as one user turn; worked examples before it.

Does not know: chat templates, tokens, data sets. Invariant: a prompt is a pure function of its parts, and the text of
data is put in as it stands: braces in it mean nothing.
"""

import re
import string
from collections.abc import Sequence

BOX = "Please reason step by step, and put your final answer within \\boxed{}."
PROMPTS = {
    "maths": "{question} " + BOX,
    "choice": "{question}\nOptions are:\n{options}\n\nPlease reason step by step, and put your final answer option "
    "within \\boxed{}. Put only the letter of the option in the box, e.g. \\boxed{A}. Only one option is correct.",
    "theoremqa": "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}. It is a "
    "number, a list of numbers such as [2, 3], True or False, or an option such as (a).",
    "bbeh": "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}, written as the "
    "question asks for it.",
}
NEXT_EXAMPLE = "\n\nQuestion:"  # with which a model goes on that takes its own answer for a further example
SLOTS = ("question", "options")
_SLOT = re.compile(rf"\{{({'|'.join(SLOTS)})\}}")
# A LaTeX command with its arguments, or else one word in braces that is no argument, subscript or exponent.
_NAMED = re.compile(r"\\[A-Za-z]+\*?(?:\[[^\[\]]*\]|\{[^{}]*\})*|(?<![}\]_^{])\{([A-Za-z_]\w+)\}")
LETTERS = string.ascii_uppercase


def ask(prompt: str, question: str, options: Sequence[str]) -> str:
    """The text of a prompt, named or written out, for one question."""
    values = {"question": question, "options": "\n".join(f"({LETTERS[i]}): {o}" for i, o in enumerate(options))}
    return _SLOT.sub(lambda match: values[match[1]], PROMPTS.get(prompt, prompt))


def slots(text: str) -> tuple[set[str], list[str]]:
    """Which of our slots a prompt's text has, and what else in it looks like one; braces of LaTeX do not."""
    unknown = (match[1] for match in _NAMED.finditer(_SLOT.sub(" ", text)))
    return set(_SLOT.findall(text)), [name for name in unknown if name]


def with_examples(asked: str, examples: Sequence[tuple[str, str]]) -> str:
    """`asked` after worked examples (question with its options, solution), all in the one turn."""
    worked = (f"Question: {question}\nAnswer: {solution}\n\n" for question, solution in examples)
    return "".join(worked) + ("Question: " if examples else "") + asked


def listed(question: str, options: Sequence[str]) -> str:
    """A question with its options and no instruction, for an example."""
    return ask("{question}\nOptions are:\n{options}" if options else "{question}", question, options)
