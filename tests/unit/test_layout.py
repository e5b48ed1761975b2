"""The shape of the tree that everything else counts on."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["operator", "workloads", "crds", "cli"])
def test_top_folders_are_no_packages_since_operator_would_shadow_the_standard_library(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


MODULES = ["nativealign_api.kinds", "nativealign_operator.render", "nativealign_cli.main", "nativealign_cli.runner"]


@pytest.mark.parametrize("module", MODULES)
def test_api_operator_and_cli_never_import_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commit_phases_need_no_torch() -> None:
    modules = "align.clean align.dedup align.annotate align.rewrite align.assess pretrain.tokenize pretrain.export evaluate.steps"
    imports = ", ".join(f"nativealign_workloads.{name}" for name in modules.split())
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_phase_of_the_plan_has_a_function() -> None:
    from nativealign_api.steps import STEPS
    from nativealign_workloads.__main__ import PHASES

    planned = {f"{step.name} {phase.name}" for steps in STEPS.values() for step in steps for phase in step.phases}
    assert planned == set(PHASES)


def test_help_names_the_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "nativealign_cli.main", "--help"], capture_output=True, text=True, check=True)
    for command in ("validate", "render", "run", "status", "logs", "report", "doctor"):
        assert f" {command} " in done.stdout
