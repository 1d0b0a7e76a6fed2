"""Lets Megatron-Core run where there is no CUDA: the names it takes for granted get their CPU meaning.

Megatron-Core writes `torch.cuda.current_device()`, `device="cuda"` and `tensor.cuda()` into its modules. Here every
`megatron.*` module sees a forwarding stand-in under the name `torch` whose `cuda` part and whose tensor factories speak
of the CPU; the real `torch` stays as it is for everybody else in the process. Two tensor methods cannot be scoped by a
module's names: `Tensor.cuda` (which without CUDA could only fail) and `Tensor.type` (which answers in CUDA's words to
callers in `megatron.*` alone).

Does not know: models, process groups, which parts of Megatron-Core are used.
Invariant: where CUDA is present, `install` changes nothing.
"""

import contextlib
import functools
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

_CPU = torch.device("cpu")
_FACTORIES = (
    *("tensor", "as_tensor", "zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint", "empty_strided"),
    *("zeros_like", "ones_like", "empty_like", "full_like"),
)


class _Stream:
    """A stream on which everything has already happened: CPU work is synchronous."""

    cuda_stream = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def wait_stream(self, _stream: Any) -> None:
        pass

    def wait_event(self, _event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or _Event()

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True


class _Event:
    """An event that is always over."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def record(self, _stream: Any = None) -> None:
        pass

    def wait(self, _stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, _other: Any) -> float:
        return 0.0


@contextlib.contextmanager
def _on_stream(stream: Any = None) -> Iterator[Any]:
    yield stream


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


class _Forwarding(types.ModuleType):
    """A module that answers with `overrides` first and with the real module for every other name."""

    def __init__(self, real: types.ModuleType, overrides: dict[str, Any]) -> None:
        super().__init__(real.__name__)
        self.__dict__["_real"] = real
        self.__dict__.update(overrides)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_real"], name, value)


def _cuda_stand_in() -> types.ModuleType:
    default = _Stream()
    nvtx = _Forwarding(torch.cuda.nvtx, {"range_push": _nothing, "range_pop": _nothing})
    overrides = {
        "current_device": lambda: _CPU,
        "set_device": _nothing,
        "synchronize": _nothing,
        "stream": _on_stream,
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": lambda *_args: default,
        "default_stream": lambda *_args: default,
        "get_rng_state": lambda *_args: torch.get_rng_state(),
        "set_rng_state": lambda state, *_args: torch.set_rng_state(state),
        "manual_seed": lambda seed: torch.default_generator.manual_seed(int(seed)),
        "nvtx": nvtx,
    }
    return _Forwarding(torch.cuda, overrides)


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The tensor factory with CUDA devices and pinned memory turned into plain CPU memory."""

    @functools.wraps(factory)
    def made_on_cpu(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        if str(device).startswith("cuda"):
            kwargs["device"] = _CPU
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return factory(*args, **kwargs)

    return made_on_cpu


class _Finder(importlib.abc.MetaPathFinder):
    """Gives a `megatron.*` module the stand-in as soon as its body has run."""

    def __init__(self, stand_in: types.ModuleType) -> None:
        self.stand_in = stand_in

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("megatron."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        loader = None if spec is None else spec.loader
        if spec is None or loader is None or not hasattr(loader, "exec_module"):
            return None
        run_body = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            run_body(module)
            self.give(module)
            if module.__name__ == "megatron.core.jit":
                # Its decorator is read while other modules' bodies run: on a CPU it must not compile.
                module.disable_jit_fuser()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def give(self, module: types.ModuleType) -> None:
        if module.__dict__.get("torch") is torch:
            module.__dict__["torch"] = self.stand_in


def _patch_tensor_methods() -> None:
    real_type = torch.Tensor.type

    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        answer = real_type(self, *args, **kwargs)
        is_name = isinstance(answer, str) and not answer.startswith("torch.cuda.")
        if is_name and sys._getframe(1).f_globals.get("__name__", "").startswith("megatron."):
            return "torch.cuda." + answer.removeprefix("torch.")
        return answer

    torch.Tensor.type = type_
    torch.Tensor.cuda = lambda self, *_args, **_kwargs: self


def _installed() -> bool:
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def install() -> bool:
    """Prepare this process for Megatron-Core without CUDA; True where that was done by this call.

    To be called before the first import of `megatron.core`; a second call does nothing.
    """
    if torch.cuda.is_available() or _installed():
        return False
    stand_in = _Forwarding(
        torch, {"cuda": _cuda_stand_in(), **{name: _on_cpu(getattr(torch, name)) for name in _FACTORIES}}
    )
    finder = _Finder(stand_in)
    sys.meta_path.insert(0, finder)
    for name, module in list(sys.modules.items()):
        if name.startswith("megatron."):
            finder.give(module)
    _patch_tensor_methods()
    return True
