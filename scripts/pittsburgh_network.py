"""The University of Pittsburgh joins a network of other hospitals: TCGA-BRCA, clinical data and gene expression.

Usage: python scripts/pittsburgh_network.py DATA OUT

DATA holds tcga/tcga_brca_all_clean.csv.zip, tcga/tcga-institution-sites.csv and fed_tcga_brca/centers.csv. Other hospitals are
grouped by region, since only four of all have 20 patients and 10 events. Writes OUT/cohort.csv, study.yaml and plan.yaml; then

    pathoml federate simulate OUT/plan.yaml --config OUT/study.yaml --compare --public-benchmark -o OUT/federation

trains the network, each member alone, all patients in one place, and the network without each member, and says what joining
brings. Settings are as written here, and were not chosen by any test patient.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

PITTSBURGH = "Pittsburgh"
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    table = pd.read_csv(options.data / "tcga" / "tcga_brca_all_clean.csv.zip", dtype={"site": str})
    table = table.drop_duplicates("case_id")
    members = member_of(options.data)
    codes = table["case_id"].str.split("-").str[1]  # the table's own site codes have lost their leading zeros
    table["member"] = codes.map(members).fillna("Elsewhere")
    genes = [name for name in table.columns if name.endswith("_rnaseq")]
    options.out.mkdir(parents=True, exist_ok=True)
    kept = ["case_id", "member", "age", "survival_months", "censorship", *genes]
    table[kept].to_csv(options.out / "cohort.csv", index=False)
    (options.out / "study.yaml").write_text(STUDY)
    plan = {
        "name": "pittsburgh-joins", "sites": sorted(set(table["member"])), "quorum": 3, "endpoint": "overall survival",
        "covariates": [
            {"kind": "numeric", "column": "age"},
            {"kind": "block", "name": "expression", "columns": genes, "components": 16},
        ],
        "train": {"loss": {"kind": "discrete"}, "covariate_ridge": 100.0}, "method": {"kind": "newton"},
        "test": {"kind": "share", "share": 0.33}, "validation_share": 0.0,
        "minimum_patients": 20, "minimum_events": 5,
    }  # fmt: skip
    (options.out / "plan.yaml").write_text(json.dumps(plan, indent=1))  # JSON is YAML
    counts = table.groupby("member")["censorship"].agg(patients="size", censored="sum")
    for name, row in counts.iterrows():
        print(f"{name}: {row.patients} patients, {row.patients - row.censored:.0f} events")


if __name__ == "__main__":
    main()
