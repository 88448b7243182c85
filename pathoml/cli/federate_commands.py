"""Commands of the federation: what the coordinator, and what each hospital, does."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathoml.cli.terminal import (
    SOME_FAILED,
    WRONG_INPUT,
    Device,
    Overrides,
    interval_words,
    say,
    show_table,
    stage_context,
)

if TYPE_CHECKING:
    from pathoml.federated.compare import Comparison

app = typer.Typer(
    help="Train one model with other hospitals; no patient's data leave any of them.", no_args_is_help=True
)
audit_app = typer.Typer(help="Look at a site's log of everything that came and left.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")

PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan's YAML file.")]
SitePath = Annotated[Path, typer.Argument(metavar="SITE", help="The hospital's own YAML file.")]


@app.command("plan")
def federate_plan(plan: PlanPath) -> None:
    """Check a plan and show its hash, which every site has to approve."""
    from pathoml.federated.plan import read_plan
    from pathoml.pipeline.federation_pages import plan_facts

    read = read_plan(plan)
    show_table("Plan", plan_facts(read))
    say(f"hash: {read.digest}")


@app.command("check")
def federate_check(site: SitePath, plan: PlanPath) -> None:
    """At a site: hold its data against a plan and list everything that does not fit. Nothing leaves."""
    from pathoml.federated.plan import read_plan
    from pathoml.pipeline.federating import examine, site_facts

    agreed = read_plan(plan)
    settings, reading = examine(site, agreed)
    show_table(f"Site {settings.name}", site_facts(settings, agreed, reading))
    for warning in reading.warnings:
        say(f"warning: {warning}")
    if reading.problems:
        rows = [(code.value, problem.where, problem.message) for code, problem in reading.problems]
        show_table("What does not fit", rows, header=("Code", "Where", "What"))
        raise typer.Exit(WRONG_INPUT)
    say("the site fits the plan")


@app.command("dry-run")
def federate_dry_run(
    site: SitePath,
    plan: PlanPath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the rehearsal.")] = Path("dry-run"),
    package: Annotated[
        Path | None, typer.Option("--package", help="Folder of the package that an evaluation scores.")
    ] = None,
) -> None:
    """At a site: take one round offline and print exactly what would leave."""
    from pathoml.federated.plan import read_plan
    from pathoml.federated.site_settings import read_site
    from pathoml.pipeline.federating import leaving_rows, rehearse

    heard = rehearse(read_site(site), read_plan(plan), output, package)
    show_table("What would leave, in order", leaving_rows(heard), header=("Asked", "Arrays", "Numbers", "Bytes"))
    say(f"nothing left; every byte is in {output / 'site' / 'audit.jsonl'} by its digest")


@app.command("approve")
def federate_approve(
    site: SitePath,
    plan: PlanPath,
    digest: Annotated[
        str, typer.Argument(metavar="HASH", help="The hash that the coordinator told you, by another way.")
    ],
) -> None:
    """At a site: agree to a plan. Until then nothing of it runs there."""
    from pathoml.federated.plan import read_plan
    from pathoml.federated.site_settings import read_site
    from pathoml.pipeline.federating import approve

    settings = read_site(site)
    approve(settings, read_plan(plan), digest)
    say(f"approved; recorded in {settings.folder / 'approvals.jsonl'}")


@app.command("simulate")
def federate_simulate(  # noqa: PLR0913 - one for each option of the command
    plan: PlanPath,
    config: Annotated[
        Path | None, typer.Option("--config", help="A study, whose cohort is divided into sites by its hospitals.")
    ] = None,
    sites: Annotated[list[Path] | None, typer.Option("--site", help="A hospital's file; once for each site.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("federation"),
    overrides: Overrides = None,
    *,
    compare: Annotated[
        bool, typer.Option("--compare", help="Train each hospital alone, all in one place, and without each, too.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public-benchmark", help="The data are public: thresholds may be lower than 20 and 10.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Run a whole network on this machine."""
    from pathoml.federated.coordinator import result_to_json
    from pathoml.federated.plan import read_plan
    from pathoml.federated.site_settings import LimitsSettings
    from pathoml.pipeline.federating import network_of_cohort, simulate_cohort, simulate_sites

    if (config is None) == (not sites):
        say("give either --config with one cohort, or --site for every hospital", error=True)
        raise typer.Exit(WRONG_INPUT)
    agreed = read_plan(plan)
    comparison = None
    with stage_context(device) as context:
        if config is not None:
            parts = network_of_cohort(agreed, config, overrides or [])
            limits = LimitsSettings(public_benchmark=public)
            result, comparison = simulate_cohort(agreed, parts, output, context, compared=compare, limits=limits)
        else:
            result = simulate_sites(agreed, sites or [], output, context)
    _show_scores(result_to_json(agreed, result)["shared"])
    if comparison is not None:
        _show_comparison(comparison)
    say(f"report: {output / 'federation.html'}; everything else is beside it; research use only")


def _show_scores(scores: dict[str, Any]) -> None:
    rows = [(name, _score_words(numbers)) for name, numbers in scores["sites"].items()]
    if scores["overall"]:
        rows.append(("all, pairs within sites", _score_words(scores["overall"])))
    show_table("Concordance on each site's test patients (0.5 = guessing)", rows)


def _score_words(numbers: dict[str, float]) -> str:
    if "concordance" not in numbers:
        return "not told: too few patients or events, or refused"
    if "concordance_low" not in numbers or "concordance_high" not in numbers:
        return f"{numbers['concordance']:.3f}"
    bounds = {"low": numbers["concordance_low"], "high": numbers["concordance_high"]}
    return interval_words({"value": numbers["concordance"], **bounds})


def _show_comparison(comparison: "Comparison") -> None:
    found = comparison.to_json()
    for title, models in (("All sites", found["overall"]), *((n, one["models"]) for n, one in found["sites"].items())):
        show_table(title, [(name, interval_words(value)) for name, value in models.items()])
    for model, why in found["impossible"].items():
        say(f"{model} could not be trained: {why}", error=True)


LogPath = Annotated[Path, typer.Argument(metavar="LOG", help="audit.jsonl in the site's federation folder.")]


@audit_app.command("show")
def audit_show(log: LogPath) -> None:
    """List what came and left."""
    from pathoml.federated.audit import read_log

    rows = [
        (
            str(line.get("time", ""))[:19], str(line.get("direction", "")), f"{line.get('kind')} {line.get('round')}",
            line.get("code") or ", ".join(name for name, _, _ in line.get("arrays", [])),
            json.dumps(line.get("numbers", {})), str(line.get("bytes", "")),
        )
        for line in read_log(log)
    ]  # fmt: skip
    show_table(str(log.name), rows, header=("Time", "", "What", "Arrays, or why not", "Numbers", "Bytes"))


@audit_app.command("verify")
def audit_verify(log: LogPath) -> None:
    """Check that no line was changed, moved or taken out."""
    from pathoml.federated.audit import verify_log

    verdict = verify_log(log)
    if verdict.problem:
        say(f"{log.name}: {verdict.problem}", error=True)
        raise typer.Exit(SOME_FAILED)
    say(f"{verdict.lines} lines, whole and in order; hash of the last: {verdict.head}")
