"""A link out of the policy folder.

Whoever may write what it leads to would write policy, without anybody looking at the
folder. The same goes for a folder of types.
"""

from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files.folder import read_files

POLICY = '@id("a") permit (principal, action, resource);'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a policy folder beside another one."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / "a.cedar").write_text(POLICY)
    (tmp_path / "outside" / "types").mkdir(parents=True)
    (tmp_path / "outside" / "b.cedar").write_text(POLICY)
    (tmp_path / "outside" / "types" / "a.cedarschema").write_text("entity Extra;")
    return made


@pytest.mark.parametrize(
    ("name", "target", "problem"),
    [
        ("b.cedar", "../outside/b.cedar", "b.cedar"),
        ("b.cedar", "hop", "b.cedar"),
        ("types", "../outside/types", "types"),
        ("anything", "/", "anything"),
        ("cedarentities.json", "/etc/hostname", "cedarentities.json"),
    ],
)
def test_a_link_out_of_the_folder_is_refused(folder: Path, name: str, target: str, problem: str) -> None:
    """Directly, over another link, as a folder, and to anywhere."""
    (folder / "hop").symlink_to("../outside/b.cedar")
    (folder / name).symlink_to(target)

    with pytest.raises(PolicyError) as caught:
        read_files(folder)

    (found,) = caught.value.problems
    assert found.startswith(f"{problem}: is a link out of the policy folder, to `/")
