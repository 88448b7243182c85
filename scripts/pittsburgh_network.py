"""The University of Pittsburgh joins a network of other hospitals: TCGA-BRCA, clinical data and gene expression.

Usage: python scripts/pittsburgh_network.py DATA OUT [--splits 10]

DATA holds tcga/tcga_brca_all_clean.csv.zip, tcga/tcga-institution-sites.csv and fed_tcga_brca/centers.csv. Other hospitals are
grouped by region, since only four of all have 20 patients and 10 events. Writes OUT/cohort.csv, study.yaml and plan.yaml (of
configs/federated/pittsburgh.yaml, with the columns of the table); then

    pathoml federate simulate OUT/plan.yaml --config OUT/study.yaml --compare --public-benchmark -o OUT/federation

trains the network, each member alone, all patients in one place, and the network without each member, and says what joining
brings on one split. With --splits the same is done here on so many splits, and the means are printed with intervals that allow
for splits that share patients.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.evaluate.verdicts import corrected_interval
from pathoml.federated.compare import Comparison, compare
from pathoml.federated.plan import PlanBlock, read_plan
from pathoml.federated.site_settings import LimitsSettings
from pathoml.pipeline.federating import network_of_cohort

PITTSBURGH = "Pittsburgh"
FEWEST_SPLITS = 3
PLAN = Path(__file__).parents[1] / "configs" / "federated" / "pittsburgh.yaml"
REGIONS = {"Canada": "Elsewhere", "Europe": "Elsewhere", "Other": "Elsewhere"}
STUDY = """\
name: Pittsburgh joins a network
output: run
cohort:
  table: cohort.csv
  patient_id: case_id
  time: survival_months
  time_unit: months
  event: censorship
  event_codes: {"0": 1, "1": 0}
  site: member
"""


def member_of(data: Path) -> dict[str, str]:
    """Return the member of the network for each code of a tissue source site."""
    centres = pd.read_csv(data / "fed_tcga_brca" / "centers.csv", dtype=str, keep_default_na=False)
    members = {
        code: REGIONS.get(region, region) for code, region in zip(centres["TSS Code"], centres["Region"], strict=True)
    }
    places = pd.read_csv(data / "tcga" / "tcga-institution-sites.csv", sep=";", dtype=str, keep_default_na=False)
    for code, source in zip(places["TSS Code"], places["Source Site"], strict=True):
        if "pittsburgh" in source.lower():
            members[code] = PITTSBURGH
    return members


def prepare(data: Path, out: Path) -> None:
    """Write table, study and plan, and print who the members are."""
    table = pd.read_csv(data / "tcga" / "tcga_brca_all_clean.csv.zip", dtype={"site": str}).drop_duplicates("case_id")
    codes = table["case_id"].str.split("-").str[1]  # the table's own site codes have lost their leading zeros
    table["member"] = codes.map(member_of(data)).fillna("Elsewhere")
    genes = [name for name in table.columns if name.endswith("_rnaseq")]
    out.mkdir(parents=True, exist_ok=True)
    kept = ["case_id", "member", "age", "survival_months", "censorship", *genes]
    table[kept].to_csv(out / "cohort.csv", index=False)
    (out / "study.yaml").write_text(STUDY)
    plan = read_plan(PLAN)
    covariates = [
        one.model_copy(update={"columns": tuple(genes)}) if isinstance(one, PlanBlock) else one
        for one in plan.covariates
    ]
    plan = plan.model_copy(update={"covariates": tuple(covariates), "sites": tuple(sorted(set(table["member"])))})
    (out / "plan.yaml").write_text(json.dumps(plan.model_dump(mode="json"), indent=1))  # JSON is YAML
    counts = table.groupby("member")["censorship"].agg(patients="size", censored="sum")
    for name, row in counts.iterrows():
        print(f"{name}: {row.patients:.0f} patients, {row.patients - row.censored:.0f} events")


def repeat(out: Path, splits: int) -> None:
    """Compare on several splits, and print the means with intervals over splits."""
    plan = read_plan(out / "plan.yaml")
    found: list[Comparison] = []
    ratios = []
    for seed in range(splits):
        seeded = plan.model_copy(update={"seed": seed})
        parts = network_of_cohort(seeded, out / "study.yaml", [])
        ratios.append(sum(len(one.test) for one in parts.values()) / sum(len(one.train) for one in parts.values()))
        limits = LimitsSettings(public_benchmark=True)
        found.append(compare(seeded, parts, out / f"split-{seed}", limits=limits)[1])
    shares = float(np.mean(ratios))
    for title, model in (
        ("the network's model", "shared"), ("Pittsburgh alone", "local"), ("Pittsburgh by joining", "shared - local"),
        ("minus all patients in one place", "shared - pooled"), ("minus the network without Pittsburgh", "shared - without"),
    ):  # fmt: skip
        print(f"at Pittsburgh, {title}: {words([one.sites[PITTSBURGH][model].value for one in found], shares, model)}")
    print(f"the others, by Pittsburgh's joining: {words([one.gives[PITTSBURGH].value for one in found], shares)}")
    for title, model in (
        ("the network's model", "shared"), ("each member alone", "local"), ("by joining", "shared - local"),
        ("minus all patients in one place", "shared - pooled"),
    ):  # fmt: skip
        values = [one.overall[model].value for one in found if model in one.overall]
        if len(values) > 1:
            print(f"over all members, {title}: {words(values, shares, model)}")
    for one in ("South", "West", "Northeast", "Midwest", "Elsewhere"):
        values = [
            this.sites[one]["shared - local"].value for this in found if "shared - local" in this.sites.get(one, {})
        ]
        if len(values) == splits:
            print(f"{one} by joining: {words(values, shares)}")


def words(values: Sequence[float], tested_over_trained: float, model: str = " - ") -> str:
    """Return mean and 95 % interval over splits, widened for the patients that splits share; differences with their sign."""
    known = np.array(values)[np.isfinite(values)]
    low, high = corrected_interval(known, tested_over_trained)
    if " - " in model:
        return f"{known.mean():+.3f} ({low:+.3f} to {high:+.3f}), {len(known)} splits"
    return f"{known.mean():.3f} ({max(low, 0):.3f} to {min(high, 1):.3f}), {len(known)} splits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--splits", type=int, default=0, help=f"divisions, {FEWEST_SPLITS} or more; none by default")
    options = parser.parse_args()
    if 0 < options.splits < FEWEST_SPLITS:
        parser.error(f"--splits {options.splits}: an interval over divisions needs {FEWEST_SPLITS} of them at least")
    prepare(options.data, options.out)
    if options.splits:
        repeat(options.out, options.splits)


if __name__ == "__main__":
    main()
