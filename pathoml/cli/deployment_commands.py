"""Commands that put a federation to work over a network: kits, participants, runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathoml.cli.federate_commands import show_scores
from pathoml.cli.terminal import say, show_table

app = typer.Typer()

PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan's YAML file.")]
KitPath = Annotated[Path, typer.Argument(metavar="KIT", help="Folder of a kit, as `provision` made it.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for all sites before beginning with a quorum.")]


@app.command()
def provision(
    plan: PlanPath,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the kits.")],
    authority: Annotated[
        Path | None,
        typer.Option(help="Folder `authority` of an earlier provisioning: kits handed out before stay valid."),
    ] = None,
) -> None:
    """Make a kit for the coordinator, the operator, an observer and every site: certificates, address, plan."""
    from pathoml.federated.flare.provisioning import provision as make_kits

    kits = make_kits(plan, output, authority)
    show_table("kits", [(kit.role.value, kit.name, str(kit.folder)) for kit in kits], header=("role", "name", "folder"))
    say(f"plan {kits[0].plan}")
    if authority is not None:
        say(
            "kits handed out before stay valid; where sites and coordinator are the same, only operator's and observer's are new"
        )
    say(f"{output / 'authority'} signs certificates: keep it where only you can read it, and give it to nobody")


@app.command()
def join(
    kit: KitPath, site: Annotated[Path, typer.Argument(metavar="SITE", help="The site's own YAML file; it stays here.")]
) -> None:
    """Tell a site's kit which file describes the site."""
    from pathoml.federated.flare.kits import join as join_kit
    from pathoml.federated.flare.kits import read_kit

    joined = read_kit(kit)
    join_kit(joined, site)
    say(f"{joined.name}: joined; `pathoml federate start {kit}` connects to the coordinator")


@app.command()
def start(
    kit: KitPath,
    wait: Wait = 60.0,
    *,
    background: Annotated[bool, typer.Option("--background", help="Go on when this terminal is closed.")] = False,
) -> None:
    """Start what the kit is for: the coordinator, a site, or (operator) the run."""
    from pathoml.federated.flare.kits import Role, read_kit, site_yaml_of

    participant = read_kit(kit)
    if participant.role is Role.OPERATOR:
        from pathoml.federated.flare.operating import submit

        say(f"run {submit(participant, wait_s=wait)} submitted; `pathoml federate status {kit}` shows it")
        return
    from pathoml.federated.flare.starting import run, run_in_background

    if participant.role is Role.SITE:
        site_yaml_of(participant.folder)  # says what to do where the kit was not joined
    if background:
        say(f"{participant.name}: runs as process {run_in_background(participant)}")
    else:
        run(participant)


@app.command()
def evaluate(
    kit: KitPath,
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="Folder package/ of a run or of a federation.")],
    wait: Wait = 60.0,
) -> None:
    """Have every site score a package on its own patients; nothing is trained (operator's kit of an evaluation's plan)."""
    from pathoml.federated.flare.kits import read_kit
    from pathoml.federated.flare.operating import submit

    job = submit(read_kit(kit), wait_s=wait, package=package)
    say(
        f"run {job} submitted; `pathoml federate status {kit}` shows it, federation.json at the coordinator says what came of it"
    )


@app.command()
def stop(kit: KitPath) -> None:
    """Stop what the kit is for: the coordinator, a site, or (operator) the run."""
    from pathoml.federated.flare.kits import Role, read_kit

    participant = read_kit(kit)
    if participant.role is Role.OPERATOR:
        from pathoml.federated.flare.operating import stop_run

        say("run stopped" if stop_run(participant) else "no run was under way")
        return
    if participant.role is Role.OBSERVER:
        say("the observer's kit starts nothing that could be stopped")
        return
    from pathoml.federated.flare.starting import stop as stop_process

    say(f"{participant.name}: {'stopped' if stop_process(participant) else 'did not run'}")


@app.command()
def report(kit: KitPath) -> None:
    """Write the page of the newest run that has ended (coordinator's kit)."""
    from pathoml.pipeline.federation_pages import newest_result, unfinished_runs, write_coordinators_page

    for plan in unfinished_runs(kit):
        say(f"warning: the newer run of plan {plan} has no results (yet); this is the page of the run before it")
    page = write_coordinators_page(kit)
    _show_result(newest_result(kit))
    say(f"report: {page}; research use only")


def _show_result(result: Path | None) -> None:
    if result is not None:
        say(f"newest run that has ended: {result.parent}")
        show_scores(json.loads(result.read_text(encoding="utf-8"))["shared"])


@app.command()
def resume(kit: KitPath, wait: Wait = 60.0) -> None:
    """Go on with the run after the coordinator was killed (operator's kit)."""
    from pathoml.federated.flare.kits import read_kit
    from pathoml.federated.flare.operating import resume as resume_run

    say(f"run {resume_run(read_kit(kit), wait_s=wait)} goes on after the last whole round")


@app.command()
def status(kit: KitPath) -> None:
    """Show who is there and how far the run is (operator, observer), or whether the process runs (coordinator, site)."""
    from pathoml.federated.flare.kits import Role, read_kit

    participant = read_kit(kit)
    if participant.role in (Role.OPERATOR, Role.OBSERVER):
        from pathoml.federated.flare.operating import status_of

        known = status_of(participant)
        rows = [
            ("sites there", ", ".join(known.connected) or "none"), ("sites missing", ", ".join(known.missing) or "none"),
            ("run", known.run or "none yet"),
        ]  # fmt: skip
        if known.asked_for:
            answered = ", ".join(known.answered) or "nobody yet"
            rows += [("round", f"{known.round_number} ({known.asked_for})"), ("answered", answered)]
        if known.refused:
            rows.append(("said no", ", ".join(f"{site}: {code}" for site, code in sorted(known.refused.items()))))
        if known.advice:
            rows.append(("what to do", known.advice))
        show_table(f"plan {participant.plan[:12]}", rows)
        return
    from pathoml.federated.flare.starting import is_connected, running_process

    process = running_process(participant)
    if process is None:
        say(f"{participant.name}: does not run")
        return
    there = ""
    if participant.role is Role.SITE:
        there = {
            True: ", holds a connection to the coordinator or its proxy", False: ", NOT connected to the coordinator",
            None: "; whether it is connected only the account that it runs under can see",
        }[is_connected(participant)]  # fmt: skip
    say(f"{participant.name}: runs as process {process}{there}")
    if participant.role is Role.COORDINATOR:
        from pathoml.pipeline.federation_pages import newest_refusals, newest_result

        _show_result(newest_result(kit))
        plan, refusals = newest_refusals(kit)
        for site, what in sorted(refusals.items()):
            say(f"newest run, of plan {plan}: {site} said no, or nothing that could be used: {what}")
