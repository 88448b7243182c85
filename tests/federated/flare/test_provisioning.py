"""Kits made of a plan: who gets which key, and whose certificates belong together."""

from pathlib import Path

import pytest

from pathoml.errors import ConfigError
from pathoml.federated.flare.kits import Kit, Role, read_kit
from pathoml.federated.plan import read_plan
from tests.federated.flare.kits import plan_file, small_plan

pytest.importorskip("nvflare")
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pathoml.federated.flare.provisioning import OBSERVER, OPERATOR, provision


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    provision(plan_file(folder), folder / "kits")
    return folder / "kits"


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def is_signed_by(kit: Path, authority: Path) -> bool:
    leaf = next(path for path in (kit / "startup").glob("*.crt"))
    try:
        certificate(leaf).verify_directly_issued_by(certificate(authority / "startup" / "rootCA.pem"))
    except InvalidSignature:
        return False
    return True


def test_everybody_gets_a_kit_that_says_whose_it_is(network: Path):
    kits = [read_kit(path.parent) for path in sorted(network.rglob("pathoml-kit.json"))]
    digest = small_plan().digest
    assert kits == [
        Kit(network / "coordinator", Role.COORDINATOR, "localhost", "coordinator", digest),
        Kit(network / "observer", Role.OBSERVER, OBSERVER, "coordinator", digest),
        Kit(network / "operator", Role.OPERATOR, OPERATOR, "coordinator", digest),
        *(Kit(network / "sites" / site, Role.SITE, site, site, digest) for site in ("north", "south", "west")),
    ]
    assert all(read_plan(kit.plan_path) == small_plan() for kit in kits)


def test_certificates_are_of_the_networks_own_authority_and_of_no_other(network: Path, tmp_path: Path):
    provision(plan_file(tmp_path), tmp_path / "kits")
    stranger = tmp_path / "kits"
    for kit in ("coordinator", "operator", "observer", "sites/north"):
        assert is_signed_by(network / kit, network / "coordinator")
        assert not is_signed_by(stranger / kit, network / "coordinator")


def test_with_the_earlier_authority_kits_handed_out_before_stay_valid(network: Path, tmp_path: Path):
    plan = plan_file(tmp_path, sites=["north", "south", "west", "far-east"])
    provision(plan, tmp_path / "kits", network / "authority")
    assert is_signed_by(tmp_path / "kits" / "sites" / "far-east", network / "coordinator")
    assert is_signed_by(network / "sites" / "north", tmp_path / "kits" / "coordinator")


def test_keys_are_their_owners_alone_and_the_authoritys_is_in_no_kit(network: Path):
    assert (network / "authority").stat().st_mode & 0o077 == 0
    keys = sorted(network.rglob("*.key"))
    assert len(keys) == len({key.read_bytes() for key in keys}) == 6
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)
    kits = [path for path in network.rglob("*") if path.is_file() and "authority" not in path.parts]
    assert all("root_pri_key" not in path.read_text() for path in kits)
    assert "root_pri_key" in next((network / "authority").rglob("cert.json")).read_text()


def test_a_site_knows_the_coordinators_one_port_and_opens_none(network: Path):
    said = (network / "sites" / "north" / "startup" / "fed_client.json").read_text()
    assert f'"target": "localhost:{small_plan().network.port}"' in said
    assert '"connection_security": "mtls"' in said
    server = (network / "coordinator" / "startup" / "fed_server.json").read_text()
    assert f'"admin_port": {small_plan().network.port}' in server


def test_nothing_is_left_that_starts_flare_past_pathoml(network: Path):
    assert [
        path.name for path in network.rglob("*") if path.suffix in {".sh", ".ipynb"} or path.name.endswith(".default")
    ] == ["resources.json.default"] * 2  # of the operator's terminal, and the observer's


def test_kits_are_not_made_over_others_nor_for_an_address(network: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="not empty"):
        provision(plan_file(tmp_path), network)
    with pytest.raises(ConfigError, match=r"10\.0\.0\.7 is an address"):
        provision(plan_file(tmp_path, network={"host": "10.0.0.7"}), tmp_path / "kits")
    with pytest.raises(ConfigError, match="cannot be called server"):
        provision(plan_file(tmp_path, sites=["north", "Server"]), tmp_path / "kits")
    with pytest.raises(ConfigError, match="no authority of an earlier provisioning"):
        provision(plan_file(tmp_path), tmp_path / "kits", tmp_path)
