"""Names and settings of the models that every other is compared with; torch-free."""

from pydantic import Field

from pathoml.settings import Settings

CLINICAL = "clinical"
BASELINE_TITLES = {
    CLINICAL: "clinical model (Cox)",
    "omics_ridge": "ridge Cox on omics",
    "omics_elastic_net": "elastic-net Cox on omics",
    "clinical_omics_ridge": "ridge Cox on clinical data and omics",
    "clinical_omics_elastic_net": "elastic-net Cox on clinical data and omics",
    "slides_ridge": "ridge Cox on mean tile features",
    "clinical_slides_ridge": "ridge Cox on clinical data and mean tile features",
    "forest": "random survival forest",
}
"""Names in the predictions table, and what they are called."""


class BaselineSettings(Settings):
    """How the baselines are fitted. That they are fitted is no setting: they stand beside every model."""

    inner_folds: int = Field(
        5, ge=2, le=20, description="Folds of the training patients in which penalties are chosen, stratified by event."
    )
    penalties: int = Field(9, ge=2, le=100, description="Ridge penalties that are tried, evenly spread on a log scale.")
    components: int = Field(
        150,
        ge=1,
        description="Principal components of a block that ridge fits use, each with its own variance: ridge on these is ridge on "
        "the columns, but for what lies beyond.",
    )
    lasso_share: float = Field(0.5, gt=0, le=1, description="Share of the lasso in the elastic net's penalty.")
    elastic_columns: int = Field(
        3000,
        ge=1,
        description="Columns of blocks that the elastic net sees: those of the largest variance in training.",
    )
    trees: int = Field(100, ge=10, description="Trees of the random survival forest.")
    smallest_leaf: int = Field(15, ge=1, description="Fewest training patients in a leaf of a tree.")
