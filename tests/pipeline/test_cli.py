"""The command line: exit codes, messages, and what each command prints."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.command_line import pathoml

pytestmark = pytest.mark.xdist_group("small_cohort")


@pytest.mark.parametrize(
    "command",
    ["", "demo", "doctor", "check", "plan", "run", "extract", "train", "evaluate", "report", "predict", "heatmap", "slide info",
     "slide thumbnail", "slide regions",
     "view", "morphology",
     "bags inspect", "bags verify", "bags export", "bags import", "encoders list", "encoders show", "encoders verify"],
)  # fmt: skip
def test_help_of_every_command_is_there(command: str):
    done = pathoml(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_check_lists_problems_of_table_and_manifest_together_and_exits_2(copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    cohort = pd.read_csv(folder / "cohort.csv", dtype=str)
    cohort.loc[0, "time_days"] = "-5"
    cohort.loc[3, "event"] = "dead"
    cohort.loc[4, "age"] = "61,5"
    cohort.to_csv(folder / "cohort.csv", index=False)
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    slides.loc[1, "slide_id"] = slides.loc[0, "slide_id"]
    slides.to_csv(folder / "slides.csv", index=False)
    done = pathoml("check", "study.yaml", folder=folder)
    assert done.returncode == 2
    for text in (
        "row 2, column time_days",
        "row 5, column event",
        "'61,5' is not a number; write decimals with a point",
        "row 3, column slide_id",
    ):
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_check_opens_slides_when_asked_and_names_code_and_row(copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    (folder / "page.tif").write_text("<html>404</html>")
    slides = pd.read_csv(folder / "slides.csv", dtype=str)
    slides.loc[2, "path"] = "page.tif"
    slides.to_csv(folder / "slides.csv", index=False)
    assert pathoml("check", "study.yaml", folder=folder).returncode == 0
    done = pathoml("check", "study.yaml", "--slides", folder=folder)
    assert done.returncode == 2
    assert "row 4" in done.stderr
    assert "TEXT" in done.stderr


def test_wrong_configuration_exits_2_with_file_and_line(copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    text = (folder / "study.yaml").read_text().replace("max_epochs", "max_epoch")
    (folder / "study.yaml").write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), start=1) if "max_epoch" in row)
    done = pathoml("run", "study.yaml", folder=folder)
    assert done.returncode == 2
    assert f"study.yaml:{line}: train.max_epoch: unknown key; did you mean 'max_epochs'?" in done.stderr


def test_plan_writes_nothing_and_loads_no_torch(copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    before = sorted(path.name for path in folder.iterdir())
    code = (
        "import sys; from pathlib import Path; from pathoml.config import load_config; from pathoml.pipeline.planning import plan;"
        "facts = dict(plan(load_config(Path('study.yaml'))).facts); assert 'torch' not in sys.modules; print(facts['Tiles'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert "sampled slides" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == before


def test_check_of_a_good_study_exits_0(finished):
    done = pathoml("check", str(finished.config))
    assert done.returncode == 0
    assert "nothing stands in the way; 1 warning(s) above" in done.stdout  # of hospitals whose outcomes differ


@pytest.mark.slow
def test_evaluate_and_report_of_a_finished_run_exit_0(finished):
    done = pathoml("evaluate", str(finished.result.folder.root))
    assert done.returncode == 0, done.stderr
    assert "research use only" in done.stdout
    assert pathoml("report", str(finished.result.folder.root)).returncode == 0


def test_slide_info_shows_resolution_and_no_other_metadata(data_dir: Path):
    done = pathoml("slide", "info", str(data_dir / "slides" / "CMU-1-Small-Region.svs"))
    assert done.returncode == 0
    assert "0.499" in done.stdout
    for canary in ("ScanScope", "Filename", "20111", "b414003d"):
        assert canary not in done.stdout


def test_bags_verify_tells_a_rotten_bag_from_a_whole_one(finished, tmp_path: Path):
    whole = next((finished.folder / "bags").glob("*.h5"))
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 1
    rotten = tmp_path / "rotten.h5"
    rotten.write_bytes(bytes(content))
    done = pathoml("bags", "verify", str(whole), "--source", str(finished.folder / "study.yaml"))
    assert done.returncode == 0, done.stderr
    assert "of this very slide" in done.stdout
    done = pathoml("bags", "verify", str(whole), str(rotten))
    assert done.returncode == 1
    assert f"{whole.name}: whole" in done.stdout
    assert "rotten.h5" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ""),
        (("check",), "Missing argument"),
        (("bogus",), "No such command 'bogus'"),
        (("check", "study.yaml", "--nope"), "No such option"),
        (("slide", "info", "a.svs", "--mpp", "abc"), "--mpp"),
    ],
)
def test_a_slip_on_the_command_line_exits_2_without_a_traceback(arguments: tuple[str, ...], said: str):
    done = pathoml(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_pathoml_has_an_exit_code_of_its_own(finished, tmp_path: Path):
    code = (
        "import pathoml.pipeline.checking as c, sys; c.check = lambda *a, **k: 1 / 0; sys.argv = ['pathoml', 'check', 'x'];"
        "from pathoml.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr
    assert "a fault of pathoml" in done.stderr


def test_predict_without_slides_says_so(finished):
    done = pathoml("predict", str(finished.result.folder.package), folder=finished.folder)
    assert done.returncode == 2
    assert "no slides were given" in done.stderr


def test_asking_for_cuda_without_one_is_an_answer_not_a_crash(finished):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = pathoml("run", str(finished.config), "--set", "device=cuda")
    assert done.returncode == 2
    assert "set device: cpu" in done.stderr
