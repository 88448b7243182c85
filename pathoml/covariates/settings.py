"""Which columns of the clinical table enter a model, and how; torch-free."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pathoml.settings import DataPath, Settings

CLINICAL_PART = "clinical"
"""The part of a model that single columns belong to; each block and each family of gene groups is a part of its own."""
SLIDES_PART = "slides"
"""The part of a model that sees tiles."""
_TAKEN = (CLINICAL_PART, SLIDES_PART)


class NumericCovariate(Settings):
    """A number per patient, such as age."""

    kind: Literal["numeric"] = "numeric"
    column: str = Field(description="Column of the clinical table.")
    impute: Literal["median", "mean"] = Field(
        "median", description="What of the training patients a missing number is filled with."
    )
    indicator: bool = Field(
        default=False, description="Whether a further column tells the model where the number was missing."
    )


class CategoricalCovariate(Settings):
    """One of several words per patient, such as sex; a word that is missing in training is a level of its own."""

    kind: Literal["categorical"] = "categorical"
    column: str = Field(description="Column of the clinical table.")


class OrdinalCovariate(Settings):
    """One of several words that have an order, such as grade; each step counts alike."""

    kind: Literal["ordinal"] = "ordinal"
    column: str = Field(description="Column of the clinical table.")
    levels: tuple[str, ...] = Field(min_length=2, description="All words, from the lowest to the highest.")
    indicator: bool = Field(
        default=False, description="Whether a further column tells the model where the word was missing."
    )

    @field_validator("levels")
    @classmethod
    def _each_once(cls, levels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(levels)) < len(levels) or "" in levels:
            raise ValueError("levels: each word stands once, and none is blank")
        return levels


class _ReducedCovariate(Settings):
    name: str = Field(min_length=1, description="What to call this part of the model.")
    scaling: Literal["each", "first"] = Field(
        "each",
        description="Whether each component is brought to unit variance, or all are divided by the deviation of the first, so"
        " that a ridge penalty shrinks the small ones most.",
    )

    @field_validator("name")
    @classmethod
    def _not_taken(cls, name: str) -> str:
        if name in _TAKEN:
            raise ValueError(f"name: '{name}' is what pathoml calls another part of the model; choose another word")
        return name


class BlockCovariate(_ReducedCovariate):
    """Many numeric columns of one kind, such as gene expression, reduced to principal components."""

    kind: Literal["block"] = "block"
    columns: str | tuple[str, ...] = Field(
        description="Pattern of the column names, for example '*_rnaseq', or several; one of them has to match."
    )
    components: int | None = Field(
        32, ge=1, description="Principal components kept, fitted on training patients only; null keeps all."
    )

    def matching(self, names: Iterable[str]) -> list[str]:
        """Return the columns that belong to the block.

        Parameters
        ----------
        names : iterable of str
            Columns of a table.

        Returns
        -------
        list of str
            In their order.
        """
        patterns = (self.columns,) if isinstance(self.columns, str) else self.columns
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


class GeneGroupsCovariate(_ReducedCovariate):
    """Numeric columns of genes, joined into the groups of a signature or pathway file, each reduced by itself."""

    kind: Literal["gene_groups"] = "gene_groups"
    columns: str = Field(description="Pattern of the column names; its one * stands for the gene, as in '*_rnaseq'.")
    file: DataPath = Field(description="Groups of genes: a .csv with a column a group, or a .gmt of pathways.")
    components: int = Field(4, ge=1, le=64, description="Principal components kept of each group.")
    least_genes: int = Field(3, ge=1, description="Groups of which the table has fewer genes are left out.")

    @field_validator("columns")
    @classmethod
    def _one_star(cls, columns: str) -> str:
        if columns.count("*") != 1:
            raise ValueError("columns: one * has to stand for the gene, for example '*_rnaseq'")
        return columns

    def matching(self, names: Iterable[str]) -> list[str]:
        """Return the columns that the pattern matches.

        Parameters
        ----------
        names : iterable of str
            Columns of a table.

        Returns
        -------
        list of str
            In their order.
        """
        before, after = self.columns.split("*")
        least = len(before) + len(after) + 1
        return [name for name in names if len(name) >= least and name.startswith(before) and name.endswith(after)]

    def gene(self, column: str) -> str:
        """Return the gene that a matching column is about.

        Parameters
        ----------
        column : str
            As `matching` returns it.

        Returns
        -------
        str
            What stands for the star.
        """
        before, after = self.columns.split("*")
        return column[len(before) : len(column) - len(after)]


ReducedCovariate = BlockCovariate | GeneGroupsCovariate
Covariate = Annotated[
    NumericCovariate | CategoricalCovariate | OrdinalCovariate | BlockCovariate | GeneGroupsCovariate,
    Field(discriminator="kind"),
]


def covariate_name(covariate: Covariate) -> str:
    """Return the column or the name of a covariate.

    Parameters
    ----------
    covariate : settings of a covariate
        Any kind.

    Returns
    -------
    str
        What messages call it.
    """
    return covariate.name if isinstance(covariate, ReducedCovariate) else covariate.column
