"""A job is three JSON files: classes of pathoml, numbers, and the plan as text."""

import io
import json
import zipfile
from pathlib import Path

import pytest

from pathoml.federated.flare.jobs import job_name, write_job
from pathoml.federated.flare.policies import CONTROLLER, EXECUTOR
from pathoml.federated.plan import Plan
from tests.federated.flare.kits import small_plan

pytest.importorskip("nvflare")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(small_plan(), tmp_path)


def test_a_job_holds_three_json_files_and_nothing_of_code(job: Path):
    files = sorted(str(path.relative_to(job)) for path in job.rglob("*") if path.is_file())
    assert files == ["app/config/config_fed_client.json", "app/config/config_fed_server.json", "meta.json"]
    assert job.is_absolute()
    assert sum(path.stat().st_size for path in job.rglob("*.json")) < 20_000


def test_what_flare_sends_of_a_job_is_those_files_and_the_operators_signature(job: Path):
    from nvflare.fuel.utils.zip_utils import zip_directory_to_bytes

    with zipfile.ZipFile(io.BytesIO(zip_directory_to_bytes(str(job.parent), job.name))) as sent:
        names = {Path(one).name for one in sent.namelist() if not one.endswith("/")}
    assert names == {"meta.json", "config_fed_server.json", "config_fed_client.json"}


def test_a_site_is_told_one_class_and_no_arguments(job: Path):
    config = json.loads((job / "app" / "config" / "config_fed_client.json").read_text())
    assert config["executors"] == [{"tasks": ["answer"], "executor": {"path": EXECUTOR, "args": {}}}]
    assert config["components"] == config["task_data_filters"] == config["task_result_filters"] == []


def test_the_plan_survives_flares_reading_of_a_job_letter_by_letter(job: Path):
    """FLARE puts variables where braces stand, and builds a class of what has a name; neither may touch the plan."""
    from nvflare.fuel.utils.json_scanner import JsonScanner
    from nvflare.fuel.utils.wfconf import resolve_var_refs

    config = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
    resolve_var_refs(JsonScanner(config), {"SITE_NAME": "north", "JOB_ID": "1"})
    workflow = config["workflows"][0]
    assert workflow["path"] == CONTROLLER
    assert Plan.model_validate_json(workflow["args"]["plan"]) == small_plan()
    assert workflow["args"]["digest"] == small_plan().digest


def test_a_jobs_name_is_the_plans_hash(job: Path):
    assert job.name == job_name(small_plan().digest) == f"pathoml-{small_plan().digest[:16]}"
    meta = json.loads((job / "meta.json").read_text())
    assert meta["deploy_map"] == {"app": ["server", *small_plan().sites]}
    assert meta["min_clients"] == 1  # who is missing joins later; the quorum is the coordinator's to judge
