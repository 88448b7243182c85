"""Parts of a model joined: what slides, blocks and gene groups add to a patient's logits beyond the covariates' linear effect."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pathoml.covariates import CLINICAL_PART, SLIDES_PART, ColumnGroup
from pathoml.mil.aggregator import start_at_zero
from pathoml.mil.as_given import as_given
from pathoml.mil.attention import TileAttention
from pathoml.mil.embedding import Embedding
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.pieces import in_pieces
from pathoml.mil.settings import CoAttentionSettings, GatedSettings


class PartLayout(NamedTuple):
    """Which columns and groups of the covariates belong to which part.

    Parameters
    ----------
    groups : tuple of ColumnGroup
        Columns that are taken together.
    names : tuple of str
        Parts in order; slides, if there are any, come last.
    """

    groups: tuple[ColumnGroup, ...]
    names: tuple[str, ...]

    def columns_of(self, part: int) -> list[int]:
        """Return the positions of a part's columns.

        Parameters
        ----------
        part : int
            Its number.

        Returns
        -------
        list of int
            Empty for slides.
        """
        return [column for group in self.groups if group.part == self.names[part] for column in group.columns]


class Seen(NamedTuple):
    """What there is of slides.

    Parameters
    ----------
    tiles : Packed
        Projected tiles.
    joined : BagOutput or None
        What the aggregator makes of them; None without slides, and for fusions that look at tiles themselves.
    """

    tiles: Packed
    joined: BagOutput | None


class Fused(NamedTuple):
    """What parts add.

    Parameters
    ----------
    shares : Tensor, shape (bags, parts, out)
        They sum to the logits, less the linear effect of covariates; whatever stands where a part is absent is not used.
    slides : BagOutput or None
        Attention, contributions that sum to the slides' share, further views of that share, terms of the loss.
    """

    shares: Float[Tensor, "bags parts out"]
    slides: BagOutput | None


class Fusion(nn.Module, ABC):
    """Joins the parts of a model. All start at zero: before training there is only the linear effect of covariates."""

    def __init__(self) -> None:
        super().__init__()

    @property
    def slides_stand_alone(self) -> bool:
        """Whether the slides' share depends on the slides only."""
        return False

    @abstractmethod
    def forward(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> Fused:
        """Say what each part adds.

        Parameters
        ----------
        seen : Seen
            Tiles, and what the aggregator makes of them.
        covariates : Tensor, shape (bags, columns)
            Transformed covariates.
        present : Tensor of bool, shape (bags, parts)
            What each patient has. Nothing of an absent part may change any share.

        Returns
        -------
        Fused
            Shares of all parts.
        """

    def by_way_of(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> dict[str, Packed]:
        """Say what tiles add by way of other parts.

        Parameters
        ----------
        seen, covariates, present
            As of `forward`.

        Returns
        -------
        dict of str to Packed
            By the part's name, one column an output; empty where slides and other parts do not meet, or where tiles are not
            told apart.
        """
        return {}


class LateFusion(Fusion):
    """The sum of what each part says by itself: the slides' logits beside the covariates' linear effect.

    Parameters
    ----------
    layout : PartLayout
        Parts.
    out : int
        Columns of the logits, and of what the aggregator gives.
    """

    def __init__(self, layout: PartLayout, out: int) -> None:
        super().__init__()
        self._parts, self._out = len(layout.names), out

    @property
    def slides_stand_alone(self) -> bool:
        """Yes."""
        return True

    def forward(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> Fused:
        """See `Fusion.forward`."""
        output = seen.joined
        if output is None:
            return Fused(covariates.new_zeros(len(covariates), self._parts, self._out), None)
        others = output.logits.new_zeros(len(output.logits), self._parts - 1, self._out)
        return Fused(torch.cat([others, output.logits[:, None]], dim=1), output)


class _PartEmbedding(nn.Module):
    """Columns of a part -> an embedding that is zero until it is trained."""

    def __init__(self, columns: list[int], settings: GatedSettings) -> None:
        super().__init__()
        self._columns = columns
        self.body = Embedding(len(columns), settings.hidden_dim, settings.dropout)
        self.head = start_at_zero(nn.Linear(settings.hidden_dim, settings.hidden_dim, bias=False))

    def forward(self, covariates: Tensor) -> Tensor:
        embedded: Tensor = self.head(self.body(covariates[:, self._columns]))
        return embedded


class GatedFusion(Fusion):
    """Embeddings of all parts, each weighed, element by element, by a gate that sees which parts there are and all of them.

    The layer behind the gates is linear, so that each part's share is exact; and so is each tile's, given the gate, where
    the aggregator is a sum over tiles.

    Parameters
    ----------
    settings : GatedSettings
        Width and dropout.
    layout : PartLayout
        Parts; of slides the aggregator gives an embedding of that width.
    out : int
        Columns of the logits.

    References
    ----------
    Arevalo J, Solorio T, Montes-y-Gomez M, Gonzalez FA. Gated multimodal units for information fusion. arXiv:1702.01992 (2017),
    section 3, with embeddings that are not squashed. For pathology and genes: Chen RJ et al. Pathomic fusion. IEEE Trans Med
    Imaging 41 (2022) 757-770.
    """

    def __init__(self, settings: GatedSettings, layout: PartLayout, out: int) -> None:
        super().__init__()
        of_covariates = len(layout.names) - (SLIDES_PART in layout.names)
        self._others = layout.names[:of_covariates]
        self.embed = nn.ModuleList(_PartEmbedding(layout.columns_of(part), settings) for part in range(of_covariates))
        parts, width = len(layout.names), settings.hidden_dim
        self.gate = nn.Linear(parts * (width + 1), parts * width)
        self.join = nn.Linear(width, out, bias=False)

    def forward(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> Fused:
        """See `Fusion.forward`."""
        output = seen.joined
        embedded = [embed(covariates) for embed in self.embed] + ([] if output is None else [output.logits])
        parts = torch.where(present[:, :, None], torch.stack([one.float() for one in embedded], dim=1), 0.0)
        everything = torch.cat([parts.flatten(1), present.to(parts.dtype)], dim=1)
        gates = as_given(torch.sigmoid(self.gate(everything))).reshape(parts.shape)
        shares: Tensor = self.join(gates * parts)
        if output is None:
            return Fused(shares, None)
        of_slides = gates[:, -1]
        contributions = None
        if output.contributions is not None:
            gated = output.contributions.values * of_slides[output.contributions.bag_of_row]
            contributions = output.contributions.filled(self.join(gated))
        further = {
            name: self.join(value * of_slides) if value.ndim == 3 else value for name, value in output.auxiliary.items()
        }
        return Fused(shares, BagOutput(shares[:, -1], output.attention, contributions, further))

    def by_way_of(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> dict[str, Packed]:
        """Say what tiles add through the gate that all parts together open; see `Fusion.by_way_of`."""
        slides = self(seen, covariates, present).slides
        if slides is None or slides.contributions is None or not self._others:
            return {}
        return {" + ".join(self._others): slides.contributions}


class _Looked(NamedTuple):
    """Tokens (bags, groups, width), embedded tiles, attention of each group, and that times the group's own weight."""

    tokens: Tensor
    embedded: Tensor
    attention: Packed
    weights: Tensor


class CoAttention(Fusion):
    """Each block and each group of genes asks the tiles a question of its own.

    A group's columns become a token; the token attends over the patient's tiles; what the groups find is joined by gated
    attention over groups, and so are the tokens themselves. A group that a patient lacks asks a question that was learnt for
    that. Both joins end in a linear layer, so that shares of parts and of tiles are exact, given the weights. The
    transformers that follow the co-attention in the paper are left out, since shares would not survive them.

    Parameters
    ----------
    settings : CoAttentionSettings
        Widths and dropout.
    tile_dim : int
        Columns of a tile.
    layout : PartLayout
        Parts; one block or family of gene groups at least, and slides.
    out : int
        Columns of the logits.

    References
    ----------
    Chen RJ, Lu MY, Weng WH, Chen TY, Williamson DFK, Manz T, Shady M, Mahmood F. Multimodal co-attention transformer for survival
    prediction in gigapixel whole slide images. ICCV 2021 (MCAT).
    """

    def __init__(self, settings: CoAttentionSettings, tile_dim: int, layout: PartLayout, out: int) -> None:
        super().__init__()
        asking = [group for group in layout.groups if group.part != CLINICAL_PART]
        if not asking or not tile_dim:
            raise ValueError("co-attention needs slides, and a block or gene groups that ask them")
        width = settings.hidden_dim
        self._columns = [list(group.columns) for group in asking]
        self._part_of_group = [layout.names.index(group.part) for group in asking]
        self._parts, self._names = len(layout.names), layout.names
        self.token = nn.ModuleList(Embedding(len(group.columns), width, settings.dropout) for group in asking)
        self.unknown = nn.Parameter(torch.randn(len(asking), width) * width**-0.5)
        self.query = nn.Linear(width, width)
        self.embed = Embedding(tile_dim, width, settings.dropout)
        self.key = nn.Linear(width, width, bias=False)
        self.of_findings = TileAttention(width, settings.attention_dim)
        self.of_tokens = TileAttention(width, settings.attention_dim)
        self.slides_head = start_at_zero(nn.Linear(width, out, bias=False))
        self.groups_head = start_at_zero(nn.Linear(width, out, bias=False))

    def forward(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> Fused:
        """See `Fusion.forward`."""
        looked = self._looked(seen.tiles, covariates, present)
        per_tile = looked.weights.sum(dim=1, keepdim=True)
        contributions = seen.tiles.filled(per_tile * self.slides_head(looked.embedded))
        of_slides = contributions.sums()
        shares = of_slides.new_zeros(len(present), self._parts, of_slides.shape[1])
        own = self._shares_of_groups(looked.tokens, present[:, self._part_of_group]).to(shares.dtype)
        index = torch.tensor(self._part_of_group, device=shares.device)
        shares = shares.index_add(1, index, own)
        shares = torch.cat([shares[:, :-1], of_slides[:, None]], dim=1)
        return Fused(shares, BagOutput(of_slides, looked.attention, contributions, {}))

    def by_way_of(
        self, seen: Seen, covariates: Float[Tensor, "bags columns"], present: Bool[Tensor, "bags parts"]
    ) -> dict[str, Packed]:
        """Say what tiles add as an answer to each block and family of gene groups; see `Fusion.by_way_of`."""
        looked = self._looked(seen.tiles, covariates, present)
        said = self.slides_head(looked.embedded)
        found = {}
        for part in dict.fromkeys(self._part_of_group):
            own = [group for group, other in enumerate(self._part_of_group) if other == part]
            found[self._names[part]] = seen.tiles.filled(looked.weights[:, own].sum(dim=1, keepdim=True) * said)
        return found

    def _looked(self, tiles: Packed, covariates: Tensor, present: Tensor) -> _Looked:
        has_group = present[:, self._part_of_group]
        tokens = torch.stack(
            [token(covariates[:, own]) for token, own in zip(self.token, self._columns, strict=True)], dim=1
        )
        tokens = torch.where(has_group[:, :, None], tokens, self.unknown.to(tokens.dtype))
        embedded, keys = in_pieces(self._keyed, tiles.values, self, embed=self.embed)
        asked = self.query(tokens)[tiles.bag_of_row] / keys.shape[1] ** 0.5
        attention = tiles.filled(torch.einsum("tgd,td->tg", asked, keys)).softmax()
        findings = torch.stack([attention.values[rows].T.to(embedded.dtype) @ embedded[rows] for rows in tiles.spans])
        weights = torch.softmax(self.of_findings(findings).float(), dim=1)  # (bags, groups, 1)
        return _Looked(tokens, embedded, attention, attention.values * weights[:, :, 0][tiles.bag_of_row])

    def _keyed(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        return embedded, self.key(embedded)

    def _shares_of_groups(self, tokens: Tensor, has_group: Tensor) -> Tensor:
        """Return what each group says by itself; attention over the groups that there are."""
        score = torch.where(has_group[:, :, None], self.of_tokens(tokens).float(), -torch.inf)
        some = has_group.any(dim=1)[:, None, None]
        weights = torch.softmax(torch.where(some, score, 0.0), dim=1)
        said: Tensor = weights * self.groups_head(tokens)
        return said
