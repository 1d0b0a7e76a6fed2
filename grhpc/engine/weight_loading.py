"""Replace a vLLM model's weights in place, inside each of vLLM's workers.

vLLM mixes `WeightLoading` into its worker class (`worker_extension_cls`), so this also runs in the worker processes of
a tensor-parallel engine. vLLM's own reload is not enough: it only logs a weight that the files lack, and on a CPU it
leaves the packed copy of a tied output layer as it was, so that the model answers with half of the old weights.

Does not know: versions, requests. Invariant: `replace_weights` leaves exactly the folder's weights, or raises.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


class WeightLoading:
    """What is added to vLLM's worker; the attributes below are the worker's own."""

    vllm_config: Any
    model_config: Any
    model_runner: Any

    def replace_weights(self, folder: str) -> None:
        """Load every *.safetensors of `folder` (Hugging Face names). Raises ValueError where a weight is missing."""
        model = self.model_runner.get_model()
        wanted = {name for name, _ in model.named_parameters()}
        with set_current_vllm_config(self.vllm_config), torch.no_grad():
            initialize_layerwise_reload(model)
            loaded = model.load_weights(_tensors(Path(folder)))
            finalize_layerwise_reload(model, self.model_config)
            _pack_tied_heads(model)
        if missing := sorted(wanted - loaded):
            raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (the file is no mapping)
                yield name, file.get_tensor(name)


def _pack_tied_heads(model: torch.nn.Module) -> None:
    """A head that shares the embedding's tensor has no weight of its own to load, so vLLM does not process it again."""
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        if owners.setdefault(id(weight), name) != name and isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)
