"""The page of recipes, as folders of policies: each recipe by itself, for the example's server."""

import shutil
from pathlib import Path
from typing import Final

from tests.analysis.folders import RECORDS
from tests.docs.pages import blocks

PAGE: Final = "docs/pages/how-to/policy-recipes.md"
BESIDE: Final = "others.cedar"
FILES: Final = {block.title.removeprefix("policies/"): block.text for block in blocks(PAGE) if block.title}
NAMES: Final = tuple(name.removesuffix(".cedar") for name in FILES if name.endswith(".cedar") and name != BESIDE)


def put(recipe: str, folder: Path) -> None:
    """Write one recipe with its scenarios, beside what the page says that it is tested beside."""
    shutil.copytree(RECORDS, folder, ignore=shutil.ignore_patterns("*.cedar", "scenarios"))
    (folder / "scenarios").mkdir()
    names = [f"{recipe}.cedar", f"scenarios/{recipe}.test.yaml"]
    if "\npermit (" not in FILES[f"{recipe}.cedar"]:
        names.append(BESIDE)
    for name in names:
        (folder / name).write_text(FILES[name], "utf-8")
    if recipe == "mapping":
        _add_labels(folder / "agentguard.cedarschema")


def _add_labels(schema: Path) -> None:
    """Give a tool the arguments that the page shows."""
    (shown,) = (block.text for block in blocks(PAGE, "cedarschema"))
    head, _, rest = schema.read_text("utf-8").partition("type update_recordInput = {")
    schema.write_text(f"{head}{shown}{rest.partition('};')[2]}", "utf-8")
