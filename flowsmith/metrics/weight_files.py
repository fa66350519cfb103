"""Files of weights as their authors published them: where they lie, and reading them without running anything."""

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from flowsmith.metrics.protocol import JudgeError

HUB = "hf-hub:"
# The three entries are numbers of OpenAI's archives, no weights.
_UNSCRIPT = (
    "w = torch.jit.load({file!r}, 'cpu').state_dict(); "
    "[w.pop(k, None) for k in ('input_resolution', 'context_length', 'vocab_size')]"
)
_UNPICKLE = (
    "w = torch.load({file!r}, 'cpu', weights_only=False); w = w.state_dict() if hasattr(w, 'state_dict') else "
    "w.get('state_dict', w)"
)
_SAVE = "save_file({{k: v.contiguous().clone() for k, v in w.items() if torch.is_tensor(v)}}, {safe!r})"


def locate(setting: str, source: str | Path, default: str | None = None) -> Path:
    """Return the file that a setting names.

    Args:
        setting: Name of the setting, for the error.
        source: A file; or a folder that holds the file ``default``; or ``hf-hub:owner/name/file``, where ``/file``
            may be left out if there is a default.
        default: The authors' name of the file.

    Raises:
        JudgeError: There is no such file, here or on the hub.
    """
    text, path = str(source), Path(source)
    if text.startswith(HUB):
        owner, _, rest = text.removeprefix(HUB).partition("/")
        name, _, file = rest.partition("/")
        return _download(f"{setting}={text!r}", f"{owner}/{name}", file or default)
    if default and (path / default).is_file():
        return path / default
    if not path.is_file():
        inside = f" that holds {default}" if default else ""
        raise JudgeError(
            f"{setting}={text!r} is no file{f', nor a folder{inside}' if default else ''}: "
            f"name one, or a file of the hub as '{HUB}owner/name/file'"
        )
    return path


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Read named tensors from ``.safetensors``, or from ``.pt``, ``.pth``, ``.ckpt``, ``.bin`` that hold no more.

    What lies under ``state_dict``, as in a checkpoint of a training, is unpacked.

    Raises:
        JudgeError: The file is damaged, or more than tensors, which would have to be run; says how to convert it.
    """
    from safetensors.torch import load_file

    path = Path(file)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            raise _refusal(path, "is a TorchScript archive, which holds code", _UNSCRIPT)
        weights = torch.load(path, "cpu", weights_only=True)
    except JudgeError:
        raise
    except Exception as error:  # the readers raise what they like on a damaged file
        needed = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, UnpicklingError) and needed:
            raise _refusal(path, f"holds more than tensors ({needed[1]})", _UNPICKLE) from error
        raise JudgeError(f"{path}: no readable file of weights ({error}); get it again") from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise JudgeError(f"{path}: holds no tensors by name; name a file of weights")
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}


def _download(given: str, repository: str, file: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    if not file:
        raise JudgeError(f"{given} names no file of the hub; write '{HUB}owner/name/file'")
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # of the network, the hub, or the name
        raise JudgeError(
            f"{given}: {file} of {repository} cannot be had ({error}); check the name and the network, or download it "
            "elsewhere and name the file"
        ) from error


def _refusal(path: Path, reason: str, read: str) -> JudgeError:
    command = f"import torch; from safetensors.torch import save_file; {read}; {_SAVE}".format(
        file=path.name, safe=path.with_suffix(".safetensors").name
    )
    return JudgeError(
        f"{path} {reason}: reading it would run what its authors wrote, so it is not read. If you trust them, convert "
        f'it once, in its folder, and name the new file:\npython -c "{command}"'
    )


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
