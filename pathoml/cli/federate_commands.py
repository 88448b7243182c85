"""Commands of the federation: what the coordinator, and what each hospital, does."""

from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathoml.cli.terminal import (
    SOME_FAILED,
    WRONG_INPUT,
    Device,
    Overrides,
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
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder for the rehearsal; dry-run-HASH by default.")
    ] = None,
    package: Annotated[
        Path | None, typer.Option("--package", help="Folder of the package that an evaluation scores.")
    ] = None,
) -> None:
    """At a site: take one round offline; print, and write in full, what would leave."""
    from pathoml.federated.plan import read_plan
    from pathoml.federated.site_settings import read_site
    from pathoml.pipeline.federating import LEFT_FOLDER, leaving_rows, rehearse

    read = read_plan(plan)
    folder = Path(f"dry-run-{read.digest[:8]}") if output is None else output
    heard = rehearse(read_site(site), read, folder, package)
    show_table("What would leave, in order", leaving_rows(heard), header=("Asked", "Arrays", "Numbers", "Bytes"))
    say(f"nothing left; every number that would is in {folder / LEFT_FOLDER}, a file an answer")


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
    from pathoml.pipeline.federating import approve, examine

    agreed = read_plan(plan)
    settings, reading = examine(site, agreed)
    approve(settings, agreed, digest)
    say(f"approved; recorded in {settings.folder / 'approvals.jsonl'}")
    if reading.problems:
        say(
            "warning: the site does not fit the plan, and will refuse what it is asked; `pathoml federate check` says why"
        )


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
        bool,
        typer.Option(
            "--compare", help="Train each hospital alone, all in one place, and without each, too: does joining help?"
        ),
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
    from pathoml.pipeline.federating import network_of_cohort, network_of_sites, simulate_network

    if (config is None) == (not sites):
        say("give either --config with one cohort, or --site for every hospital", error=True)
        raise typer.Exit(WRONG_INPUT)
    agreed = read_plan(plan)
    if sites and (public or overrides):
        say("--public-benchmark and --set go with --config; with --site each file says so itself", error=True)
        raise typer.Exit(WRONG_INPUT)
    with stage_context(device) as context:
        limits: LimitsSettings | dict[str, LimitsSettings] = LimitsSettings(public_benchmark=public)
        if config is not None:
            parts = network_of_cohort(agreed, config, overrides or [])
        else:
            parts, limits = network_of_sites(agreed, sites or [])
        result, comparison = simulate_network(agreed, parts, output, context, compared=compare, limits=limits)
    show_scores(result_to_json(agreed, result)["shared"])
    if comparison is not None:
        _show_comparison(comparison)
    say(f"report: {output / 'federation.html'}; everything else is beside it; research use only")


def show_scores(scores: dict[str, Any]) -> None:
    """Show the concordances that sites told.

    Parameters
    ----------
    scores : dict
        Those of the shared model, as federation.json has them.
    """
    from pathoml.report.federation_page import told_words

    untold = "not told: too few patients or events, or refused"
    rows = [(name, told_words(numbers, untold)) for name, numbers in scores["sites"].items()]
    if scores["overall"]:
        rows.append(("all, pairs within sites", told_words(scores["overall"])))
    show_table("Concordance (0.5 = guessing; 95 % interval) on each site's test patients", rows)


def _show_comparison(comparison: "Comparison") -> None:
    from pathoml.report.federation_page import named_estimates

    found = comparison.to_json()
    show_table("All sites", named_estimates(found["overall"], over_all=True))
    for site, one in found["sites"].items():
        show_table(site, named_estimates(one["models"]))
    for model, why in found["impossible"].items():
        say(f"{model} could not be trained: {why}", error=True)


_KNOWN_DIGITS = 8
_SHOWN_LINES = 40
LogPath = Annotated[Path, typer.Argument(metavar="LOG", help="audit.jsonl in the site's federation folder.")]


def _require_log(log: Path) -> None:
    if not log.is_file():
        say(
            f"{log}: no such log; it is audit.jsonl in the folder that site.yaml names as 'folder', federation by default",
            error=True,
        )
        raise typer.Exit(WRONG_INPUT)


@audit_app.command("show")
def audit_show(
    log: LogPath, lines: Annotated[int, typer.Option(min=0, help="So many of the last; 0: all.")] = _SHOWN_LINES
) -> None:
    """List what came and left, the newest last."""
    from pathoml.federated.audit import read_log

    _require_log(log)
    found = read_log(log)
    shown = found[-lines:] if lines else found
    rows = [
        (
            str(line.get("time", ""))[:19].replace("T", " "),
            str(line.get("direction", "")),
            f"{line.get('kind')} {line.get('round')}",
            ": ".join(word for word in (line.get("code"), line.get("why")) if word)
            or ", ".join(name for name, _, _ in line.get("arrays", [])),
            "\n".join(f"{name} {value:.6g}" for name, value in line.get("numbers", {}).items()),
            str(line.get("bytes", "")),
        )
        for line in shown
    ]
    show_table(str(log.name), rows, header=("Time", "Way", "What", "Arrays, or why not", "Numbers", "Bytes"))
    if len(shown) < len(found):
        say(f"the last {len(shown)} of {len(found)} lines; --lines 0 shows all")


@audit_app.command("verify")
def audit_verify(
    log: LogPath,
    known: Annotated[
        str,
        typer.Option("--known", metavar="HASH", help="A line's hash that you wrote down: shows lines cut off the end."),
    ] = "",
) -> None:
    """Check that no line was changed, moved or taken out."""
    from pathoml.federated.audit import verify_log
    from pathoml.provenance import hash_as_read_out

    digits = hash_as_read_out(known)
    if known and (len(digits) < _KNOWN_DIGITS or not set(digits) <= set(hexdigits)):
        say(f"--known {known}: give {_KNOWN_DIGITS} digits (0 to 9, a to f) of the hash at least", error=True)
        raise typer.Exit(WRONG_INPUT)
    _require_log(log)
    verdict = verify_log(log, digits)
    if verdict.problem:
        say(f"{log.name}: {verdict.problem}", error=True)
        raise typer.Exit(SOME_FAILED)
    say(f"{verdict.lines} lines, whole and in order; hash of the last: {verdict.head}")
