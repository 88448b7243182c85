"""Hospitals as files: a table and a settings file each, as a deployed network finds them."""

from pathlib import Path

from ruamel.yaml import YAML

from pathoml.federated.plan import Plan
from pathoml.federated.site_settings import read_site
from pathoml.pipeline.federating import approve
from tests.federated.networks import cohort_of


def write_hospitals(plan: Plan, folder: Path, *, patients: int = 240, seed: int = 0) -> dict[str, Path]:
    """Write each site's table and settings, and approve the plan there."""
    cohort = cohort_of(patients, seed, plan.sites)
    found = {}
    for name in plan.sites:
        home = folder / name
        home.mkdir(parents=True)
        chosen = cohort.site == name
        table = cohort.covariates[chosen].assign(
            patient_id=cohort.patient_id[chosen], days=cohort.time_days[chosen], dead=cohort.event[chosen]
        )
        table.to_csv(home / "cohort.csv", index=False)
        settings = {
            "name": name,
            "cohort": {"table": "cohort.csv", "endpoint": plan.endpoint, "time": "days", "time_unit": "days", "event": "dead"},
            "device": "cpu",
        }  # fmt: skip
        found[name] = home / "site.yaml"
        with found[name].open("w") as stream:
            YAML().dump(settings, stream)
        approve(read_site(found[name]), plan, plan.digest)
    return found
