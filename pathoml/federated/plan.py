"""The plan: everything that the hospitals of a network agree on, in one file with one hash. Torch-free."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pathoml.covariates import CategoricalCovariate, NumericCovariate
from pathoml.federated.method_settings import (
    EvaluationSettings,
    Method,
    NewtonSettings,
    RoundsSettings,
    ScaffoldSettings,
)
from pathoml.federated.privacy_rules import against_privacy
from pathoml.federated.privacy_settings import PatientPrivacySettings
from pathoml.mil.settings import ModelSettings
from pathoml.provenance import settings_digest
from pathoml.settings import NOT_IN_HASH, Settings
from pathoml.settings_problems import read_settings
from pathoml.train_settings import CoxLossSettings, DeepHitLossSettings, TrainSettings

MOST_BLOCK_COLUMNS = 2048
"""Columns of a block whose products are summed over sites: a square of 32 MiB travels."""

METRICS = (
    "train_loss", "validation_loss", "validation_patients", "concordance", "concordance_low", "concordance_high",
    "comparable", "concordant", "expected_events",
)  # fmt: skip
"""Numbers that a site can be asked for, and can refuse, beside the protocol's own sums and counts."""


class PlanNumber(NumericCovariate):
    """A number per patient, standardised by the network's mean and deviation, or by those that the plan gives."""

    mean: float | None = Field(None, description="What counts as 0; null: the network's mean.")
    scale: float | None = Field(None, gt=0, description="What counts as 1; null: the network's standard deviation.")
    fill: float | None = Field(None, description="What a missing value counts as; null: the mean.")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.mean is None) != (self.scale is None):
            raise ValueError("mean and scale are given together, or neither")
        return self


class PlanCategories(CategoricalCovariate):
    """One of several words, which the plan lists, since no word ever leaves a site."""

    words: tuple[str, ...] = Field(
        min_length=2, description="Every word that counts, spelt as in the tables; others count as missing."
    )
    levels: Literal["network", "plan"] = Field(
        "network",
        description="Whether the model knows the words that some site has enough patients of, and fills with the commonest, or all"
        " of the plan's, missing among them.",
    )

    @field_validator("words")
    @classmethod
    def _each_once(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(words)) < len(words) or "" in words:
            raise ValueError("each word once, and none empty: missing is a category of its own where it occurs")
        return words


class PlanBlock(Settings):
    """Many numeric columns, reduced to principal components of all sites together."""

    kind: Literal["block"] = "block"
    name: str = Field(description="What to call the block.")
    columns: tuple[str, ...] = Field(
        min_length=2, max_length=MOST_BLOCK_COLUMNS, description="Names of the columns, the same at every site."
    )
    components: int = Field(16, ge=1, description="Principal components kept.")


PlanCovariate = Annotated[PlanNumber | PlanCategories | PlanBlock, Field(discriminator="kind")]


class FeaturesSettings(Settings):
    """What the bags of every site have to be."""

    encoder: str = Field(description="Name of the encoder, as 'pathoml bags inspect' shows it.")
    weights_digest: str = Field(description="SHA-256 of its weights, as the bags say it.")
    target_mpp: float = Field(gt=0, description="Microns per pixel that tiles were asked for.")
    tile_px: int = Field(ge=1, description="Side of a tile in pixels.")
    precision_asked: str = Field("float32", description="Precision of the encoder, as the bags say it.")
    settings_digest: str = Field(description="SHA-256 of the settings that made the bags, as the bags say it.")
    dim: int = Field(ge=1, le=16_384, description="Columns of the features.")
    scaling: Literal["network", "site", "none"] = Field(
        "network",
        description="Whether tiles are standardised by the network's mean and deviation, by each site's own, or not at all.",
    )


class FixedBins(Settings):
    """Time bins as written here."""

    kind: Literal["fixed"] = "fixed"
    edges_days: tuple[float, ...] = Field(min_length=2, description="Ascending, from 0 to the end of follow-up.")

    @field_validator("edges_days")
    @classmethod
    def _ascending(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if edges[0] != 0 or any(second <= first for first, second in pairwise(edges)):
            raise ValueError("edges start with 0 and ascend")
        return edges


class NetworkBins(Settings):
    """Time bins with about as many events each, from counts of every site on a coarse grid."""

    kind: Literal["network"] = "network"
    bins: int = Field(4, ge=2, le=20, description="Number of bins; fewer result where the grid is too coarse.")


Bins = Annotated[FixedBins | NetworkBins, Field(discriminator="kind")]


class TestShare(Settings):
    """Test patients drawn at each site."""

    kind: Literal["share"] = "share"
    share: float = Field(0.2, gt=0, lt=0.9, description="Share of a site's patients, stratified by event.")


class TestColumn(Settings):
    """Test patients named by a column of each site's table."""

    kind: Literal["column"] = "column"
    column: str = Field(description="Column of the clinical table.")
    value: str = Field("test", description="What stands there for a test patient.")


Test = Annotated[TestShare | TestColumn, Field(discriminator="kind")]


class NetworkSettings(Settings):
    """Where the coordinator is reached; in no hash."""

    host: str = Field("localhost", description="Name of the coordinator's machine, as sites reach it.")
    port: int = Field(8002, ge=1, le=65_535, description="The one port that sites dial.")


class Plan(Settings):
    """What the hospitals agree on. Its hash is what each of them approves."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Letters, digits, - and _.")
    sites: tuple[str, ...] = Field(min_length=1, description="Names of the sites; letters, digits, - and _.")
    quorum: int = Field(1, ge=1, description="Sites that have to answer for a round to count.")
    patience_s: float = Field(
        120.0, gt=0, description="Seconds for which sites are waited for once the quorum has answered.",
        json_schema_extra=NOT_IN_HASH,
    )  # fmt: skip
    endpoint: str = Field(description="What the time runs to; every site's cohort has to say the same.")
    horizon_days: float = Field(
        3652.5, gt=0, description="Follow-up beyond it is not looked at: the last edge of every grid of times."
    )
    grid_days: float = Field(365.25, gt=0, description="Step of the grid on which times are counted, in days.")
    covariates: tuple[PlanCovariate, ...] = Field((), description="Columns that enter the model.")
    features: FeaturesSettings | None = Field(None, description="Leave out for a model on the table alone.")
    bins: Bins = Field(NetworkBins(), description="Time bins of the losses over them.")
    model: ModelSettings = Field(ModelSettings(), description="What the model is made of.")
    train: TrainSettings = Field(description="How each site trains; loss discrete, pmf, mtlr or stratified cox.")
    method: Method = Field(RoundsSettings(), description="Rounds of training, or Newton steps of a linear model.")
    test: Test = Field(TestShare(), description="Who at each site is never trained on.")
    validation_share: float = Field(
        0.2, ge=0, lt=0.9, description="Share of the other patients that each site sets aside to judge rounds by."
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights and of every site's choices.")
    minimum_patients: int = Field(20, ge=1, description="Nothing is said of fewer patients.")
    minimum_events: int = Field(10, ge=0, description="Nothing is said of patients with fewer events.")
    update_norm: float = Field(100.0, gt=0, description="A longer update, compared with the model sent, is refused.")
    metrics: tuple[str, ...] = Field(METRICS, description="Numbers that sites may be asked for.")
    membership: bool = Field(
        default=False,
        description="Whether each site looks, for itself alone, at what the final model tells of who was trained on.",
    )
    privacy: PatientPrivacySettings | None = Field(
        None, description="Differential privacy of patients, added at each site; null: there is none."
    )
    network: NetworkSettings = Field(NetworkSettings(), json_schema_extra=NOT_IN_HASH)

    @property
    def digest(self) -> str:
        """SHA-256 of all that sites agree on: what each of them approves."""
        return settings_digest(self)

    @property
    def grid(self) -> tuple[float, ...]:
        """Ends of the cells in which times are counted, in days."""
        cells = max(1, round(self.horizon_days / self.grid_days))
        return tuple(self.horizon_days * (number + 1) / cells for number in range(cells))

    @field_validator("sites")
    @classmethod
    def _names(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        bad = [name for name in sites if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii()]
        if bad:
            raise ValueError(f"site {bad[0]!r}: a name is of letters, digits, - and _")
        if len({name.lower() for name in sites}) < len(sites):
            raise ValueError("a site stands twice")
        return sites

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(METRICS)}")
        return metrics

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        for problem in (*_impossible(self), *against_privacy(self)):
            raise ValueError(problem)
        return self


def _impossible(plan: Plan) -> list[str]:
    """Say what in a plan contradicts itself or cannot be done exactly without moving data."""
    train, method = plan.train, plan.method
    cox = isinstance(train.loss, CoxLossSettings)
    by_newton = isinstance(method, NewtonSettings)
    by_evaluation = isinstance(method, EvaluationSettings)
    judges = method.judges if isinstance(method, RoundsSettings) else ()
    by_scaffold = isinstance(method, RoundsSettings) and isinstance(method.aggregation, ScaffoldSettings)
    found = (
        (
            cox and not getattr(train.loss, "stratified", True),
            "train.loss: sums of sites' Cox gradients are those of the site-stratified Cox model, not of the pooled one; say so"
            " with stratified: true, or take a loss over time bins (kind: discrete)",
        ),
        (
            cox and getattr(train.loss, "ranking_weight", 0.0) > 0,
            "train.loss: a ranking of patients cannot be summed over sites; set ranking_weight: 0",
        ),
        (
            isinstance(train.loss, DeepHitLossSettings),
            "train.loss: DeepHit ranks patients of different sites; take discrete, pmf or mtlr",
        ),
        (
            not plan.covariates and plan.features is None,
            "covariates: neither covariates nor features: there is nothing to predict from",
        ),
        (plan.quorum > len(plan.sites), f"quorum: {plan.quorum} of {len(plan.sites)} sites can never answer"),
        (plan.grid_days > plan.horizon_days, "grid_days: longer than horizon_days"),
        (
            plan.model.start is not None,
            "model: start: published weights are a path of one machine; sites start from the coordinator's model",
        ),
        (
            plan.model.fusion.kind != "late" or train.modality_dropout > 0,
            "model.fusion, train.modality_dropout: a network trains the sum of parts; leave both out",
        ),
        (
            any(getattr(one, "indicator", False) for one in plan.covariates),
            "covariates: indicator: sites do not tell what single patients lack; leave it out",
        ),
        (
            train.max_epochs == 0,
            "train.max_epochs: 0 is a Cox fit of one machine; take method: {kind: newton}",
        ),
        (
            train.event_balanced,
            "train.event_balanced: sites' sums would no longer be those of their patients; leave it out",
        ),
        (
            plan.features is not None and plan.features.scaling == "none" and plan.model.tile_components is not None,
            "model.tile_components: components are of standardised tiles; with features.scaling: none set it to null",
        ),
        (train.members != 1, "train.members: a network trains one model; run it again with another seed for more"),
        (
            by_newton and (plan.features is not None or not plan.covariates),
            "method: Newton steps are for covariates alone; leave out features, or take kind: rounds",
        ),
        (
            by_evaluation and plan.membership,
            "membership: an evaluation trains nobody; leave it out",
        ),
        (
            bool(set(judges) - set(plan.sites)),
            f"method.judges: {', '.join(sorted(set(judges) - set(plan.sites)))} is no site of the plan",
        ),
        (
            isinstance(method, RoundsSettings) and (method.longest_update or 0.0) > plan.update_norm,
            "method.longest_update: longer than update_norm, which no update may be",
        ),
        (
            by_scaffold and train.optimizer != "sgd",
            "method.aggregation: scaffold's corrections are of plain gradient steps; set train.optimizer: sgd",
        ),
    )
    return [words for is_so, words in found if is_so]


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Parameters
    ----------
    path : Path
        A YAML file.

    Returns
    -------
    Plan
        Frozen.

    Raises
    ------
    ConfigError
        With every problem found, each with file and line.
    """
    return read_settings(path, Plan)
