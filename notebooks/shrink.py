"""Make kept outputs small, after `python -m pytest -m "" --overwrite notebooks`: pictures of 64 colours, no times,
no progress bars and no warnings of other libraries.
"""

import base64
import io
import json
from pathlib import Path

from PIL import Image

for path in sorted(Path(__file__).parent.glob("*.ipynb")):
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] != "code":
            continue
        kept: list[dict] = []
        for out in cell["outputs"]:
            if kept and out.get("name") == kept[-1].get("name") == "stdout":
                kept[-1]["text"] += out["text"]
            elif out.get("name") != "stderr":
                kept.append(out)
        for out in kept:
            if "text" in out:
                out["text"] = "".join(out["text"]).splitlines(keepends=True)
        cell["outputs"] = kept
        for data in (out["data"] for out in cell["outputs"] if "image/png" in out.get("data", {})):
            picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
            small = io.BytesIO()
            picture.quantize(64, dither=Image.Dither.NONE).save(small, "png", optimize=True)
            data["image/png"] = base64.b64encode(small.getvalue()).decode()
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
