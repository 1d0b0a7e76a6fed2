"""The Hugging Face Hub: asked once whether it answers, before a library asks for each file again and again.

Does not know: what is looked for. Invariant: where the Hub does not answer, this process goes on as HF_HUB_OFFLINE=1
would, so that the local cache answers at once; nothing of it passes to other processes.
"""

import functools
import logging

ANSWER_S = 10.0
REMEDY = "mend the name; or download it where the Hub answers (`hf download ID`, with HF_HOME that this machine sees)"


@functools.cache
def answers() -> bool:
    """Whether the Hub can be asked; it is not where HF_HUB_OFFLINE is set. The client's own retries go unsaid."""
    from huggingface_hub import constants, get_session

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_S)
    except errors():
        constants.HF_HUB_OFFLINE = True
        return False
    return True


def errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises where something cannot be had; its HTTP library differs by its version."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def reason(error: Exception) -> str:
    """Why something cannot be had, in one line: the error's first, unless the Hub was not asked at all."""
    if not answers():
        return "the Hub does not answer, or HF_HUB_OFFLINE is set, and the local cache (HF_HOME) has none"
    return (str(error).strip().splitlines() or [""])[0]
