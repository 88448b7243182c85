"""A kit says whose it is, and a site's kit where the site's own file lies; nothing else."""

import json
import re
from pathlib import Path

import pytest

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.flare.kits import KIT_FILE, Role, join, read_kit, site_yaml_of, write_kit
from tests.federated.flare.kits import kit_at


def write_site(path: Path, name: str = "north") -> Path:
    path.write_text(f"name: {name}\ncohort: {{table: cohort.csv, time: days, time_unit: days, event: dead}}\n")
    return path


def test_a_kit_is_read_as_it_was_written(tmp_path: Path):
    kit = kit_at(tmp_path / "kit")
    write_kit(kit)
    assert read_kit(kit.folder) == kit


def test_a_site_is_found_again_after_joining(tmp_path: Path):
    kit, site = kit_at(tmp_path / "kit"), tmp_path / "site.yaml"
    write_site(site)
    join(kit, site)
    assert site_yaml_of(kit.folder) == site


@pytest.mark.parametrize("role", [Role.COORDINATOR, Role.OPERATOR])
def test_only_sites_join(tmp_path: Path, role: Role):
    site = write_site(tmp_path / "site.yaml")
    with pytest.raises(ConfigError, match=f"the kit of the {role}"):
        join(kit_at(tmp_path / "kit", role), site)


def test_a_site_that_has_not_joined_or_lost_its_file_is_told(tmp_path: Path):
    kit, site = kit_at(tmp_path / "kit"), tmp_path / "site.yaml"
    with pytest.raises(ConfigError, match=r"site\.yaml: no such"):
        join(kit, site)
    with pytest.raises(FederationError, match="has not joined"):
        site_yaml_of(kit.folder)
    write_site(site)
    join(kit, site)
    site.unlink()
    with pytest.raises(FederationError, match=re.escape(str(site))):
        site_yaml_of(kit.folder)


def test_another_sites_file_is_not_joined(tmp_path: Path):
    site = write_site(tmp_path / "site.yaml", "south")
    with pytest.raises(ConfigError, match="describes the site south, but the kit is that of north"):
        join(kit_at(tmp_path / "kit"), site)


def test_what_is_no_kit_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no kit of a federation"):
        read_kit(tmp_path)
    (tmp_path / KIT_FILE).write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_kit(tmp_path)
    (tmp_path / KIT_FILE).write_text(json.dumps({"format": "pathoml-kit", "format_version": 99}))
    with pytest.raises(ConfigError, match="not a kit of version 1"):
        read_kit(tmp_path)


def test_a_blank_in_the_path_which_flare_stumbles_over_is_refused(tmp_path: Path):
    kit = kit_at(tmp_path / "my kit")
    write_kit(kit)
    with pytest.raises(ConfigError, match="a blank in the path"):
        read_kit(kit.folder)
