"""Groups of genes from a signature or pathway file."""

from collections.abc import Mapping
from pathlib import Path

from pathoml.covariates.settings import GeneGroupsCovariate
from pathoml.errors import CohortError
from pathoml.tables import read_text_table


def read_gene_groups(path: Path) -> dict[str, tuple[str, ...]]:
    """Read which genes belong together.

    Parameters
    ----------
    path : Path
        A table (.csv, .tsv) whose columns are groups and whose cells are genes, shorter columns being filled with blanks; or
        a .gmt file, one group a line: name, description and genes, separated by tabs.

    Returns
    -------
    dict of str to tuple of str
        Name of a group -> its genes, each once, in the order of the file.

    Raises
    ------
    CohortError
        If the file is missing, not such a file, or has a group twice or without genes.
    """
    groups = _read_gmt(path) if path.suffix.lower() == ".gmt" else _read_columns(path)
    empty = [name for name, genes in groups.items() if not genes]
    if empty or not groups:
        raise CohortError(f"{path.name}: group(s) {', '.join(empty[:5]) or 'none'}: no genes in it; take it out")
    return groups


def group_columns(covariate: GeneGroupsCovariate, columns: list[str]) -> Mapping[str, tuple[str, ...]]:
    """Find the columns of each group.

    Parameters
    ----------
    covariate : GeneGroupsCovariate
        File, pattern, and how many genes a group needs.
    columns : list of str
        Columns that the pattern matches.

    Returns
    -------
    mapping of str to tuple of str
        Groups of which there are enough genes, in the order of the file.

    Raises
    ------
    CohortError
        If there is none.
    """
    column_of = {covariate.gene(name): name for name in columns}
    found = {
        name: tuple(column_of[gene] for gene in genes if gene in column_of)
        for name, genes in read_gene_groups(covariate.file).items()
    }
    kept = {name: own for name, own in found.items() if len(own) >= covariate.least_genes}
    if not kept:
        most = max(map(len, found.values()))
        raise CohortError(
            f"{covariate.file.name}: no group has {covariate.least_genes} genes among the {len(columns)} columns that match"
            f" '{covariate.columns}' (the most are {most}); are genes named alike in both?"
        )
    return kept


def _read_columns(path: Path) -> dict[str, tuple[str, ...]]:
    table = read_text_table(path)
    return {str(name): tuple(dict.fromkeys(cell for cell in table[name] if cell)) for name in table.columns}


def _read_gmt(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        raise CohortError(f"{path}: no such file of gene groups")
    groups: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CohortError(
            f"{path.name}: not a text file ({error}); expected lines of name, description, genes"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (cell.strip() for cell in line.split("\t"))
        if len(rest) < 2 or name in groups:
            what = f"group '{name}' stands twice" if name in groups else "expected name, description and genes"
            raise CohortError(f"{path.name}:{number}: {what}, separated by tabs")
        groups[name] = tuple(dict.fromkeys(cell for cell in rest[1:] if cell))
    return groups
