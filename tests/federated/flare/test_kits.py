"""A kit says whose it is, and a site's kit where the site's own file lies; nothing else."""

import json
import re
from pathlib import Path

import pytest

from pathoml.errors import ConfigError, FederationError
from pathoml.federated.flare.kits import KIT_FILE, Role, join, read_kit, site_yaml_of, write_kit
from tests.federated.flare.kits import kit_at


def test_a_kit_is_read_as_it_was_written(tmp_path: Path):
    kit = kit_at(tmp_path / "kit")
    write_kit(kit)
    assert read_kit(kit.folder) == kit


def test_a_site_is_found_again_after_joining(tmp_path: Path):
    kit, site = kit_at(tmp_path / "kit"), tmp_path / "site.yaml"
    site.write_text("device: cpu\n")
    join(kit, site)
    assert site_yaml_of(kit.folder) == site


@pytest.mark.parametrize("role", [Role.COORDINATOR, Role.OPERATOR])
def test_only_sites_join(tmp_path: Path, role: Role):
    site = tmp_path / "site.yaml"
    site.write_text("device: cpu\n")
    with pytest.raises(ConfigError, match=f"the kit of the {role}"):
        join(kit_at(tmp_path / "kit", role), site)


def test_a_site_that_has_not_joined_or_lost_its_file_is_told(tmp_path: Path):
    kit, site = kit_at(tmp_path / "kit"), tmp_path / "site.yaml"
    with pytest.raises(ConfigError, match=r"site\.yaml: no such file"):
        join(kit, site)
    with pytest.raises(FederationError, match="has not joined"):
        site_yaml_of(kit.folder)
    site.write_text("device: cpu\n")
    join(kit, site)
    site.unlink()
    with pytest.raises(FederationError, match=re.escape(str(site))):
        site_yaml_of(kit.folder)


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
