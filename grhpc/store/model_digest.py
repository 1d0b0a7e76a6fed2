"""What a model is, wherever it stands: a digest of its folder, or the commit of a Hub id.

Does not know: weights' formats, engines. Invariant: the same files have the same digest, whatever their folder is
called; nothing is downloaded.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grhpc.store.atomic import list_names, storing
from grhpc.store.weights import MANIFEST

SMALL = 16 << 20  # bytes of a file that goes into its model's digest as a whole
_STEP, _SAMPLE = 1 << 20, 4 << 10  # of a larger one so many bytes of every MiB: no matrix changes between them


def model_digest(model: str) -> str:
    """Of a folder: names, sizes, small files whole, of large ones a part of every MiB (adapters that were merged in
    leave both ends as they were), some seconds for a large model. Of a Hub id: the commit that the Hub's cache on this
    machine holds as the newest; "" where it holds none, or where `model` is neither.

    Raises StoreError, FileNotFoundError where a file vanishes."""
    folder = Path(model)
    if not model or not folder.is_dir():
        return _commit(model)
    shown = [name for name in sorted(list_names(folder)) if not name.startswith(".") and name != MANIFEST]
    names = [name for name in shown if (folder / name).is_file()]
    with storing(folder), ThreadPoolExecutor(max_workers=8) as pool:
        parts = pool.map(_file_digest, [folder / name for name in names])
        lines = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _commit(model: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    try:
        path = try_to_load_from_cache(model, "config.json")
    except ValueError:  # no Hub id
        return ""
    return Path(path).parent.name if isinstance(path, str) else ""


def _file_digest(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    digest.update(f"{size}\0".encode())
    with open(path, "rb") as file:
        if size <= SMALL:
            digest.update(file.read())
        else:
            for place in (*range(0, size - _SAMPLE, _STEP), size - _SAMPLE):
                file.seek(place)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
