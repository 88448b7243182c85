"""Large bags piece by piece: what lies between is computed again on the way back, so that memory does not grow with the bag."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pathoml.mil.as_given import with_weights_given
from pathoml.mil.embedding import Embedding
from pathoml.mil.randomness import RandomStates, random_state, set_random_state
from pathoml.mil.room import current_room

PIECE_TILES = 1024
"""Few enough that what a piece needs stays small beside the bags, and on a CPU in its cache."""
WHOLE_UP_TO = 32_768
"""Tiles up to which everything is kept, since that is faster, unless a step is taken in two passes."""

TileFunction = Callable[..., tuple[Tensor, ...]]


def in_pieces(
    function: TileFunction, values: Tensor, module: nn.Module, *,
    embed: Embedding | None = None, along: Sequence[Tensor] = (), given: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:  # fmt: skip
    """Apply a function of single tiles to all tiles.

    Dropout falls on the same units when a piece is computed again.

    Parameters
    ----------
    function : callable
        Tiles of shape (n, columns), what goes ``along`` with them, and what is ``given`` -> tensors with one row a tile, each of
        which depends on that tile alone.
    values : Tensor, shape (tiles, columns)
        Of any floating type, for example float16 as on disk; converted to the parameters' type piece by piece.
    module : nn.Module
        Whose parameters the function uses, those of ``embed`` among them.
    embed : Embedding, optional
        Tiles go through it first. Its result is what a step in two passes
        keeps while there is room, since it is most of the work.
    along : sequence of Tensor, each of shape (tiles, ...), optional
        Cut as the tiles are; without gradients.
    given : sequence of Tensor, optional
        The same for all tiles; with gradients.

    Returns
    -------
    tuple of Tensor
        As the function gives them, for all tiles.

    References
    ----------
    Chen T et al. Training deep nets with sublinear memory cost. arXiv:1604.06174 (2016).
    """
    parameters = tuple(module.parameters())
    work = _Work(with_weights_given(function), embed, tuple(along), len(given), parameters[0].dtype)
    with_graph, in_two_passes = torch.is_grad_enabled(), current_room() is not None
    kept_whole = with_graph and not in_two_passes and len(values) <= WHOLE_UP_TO
    if kept_whole or len(values) <= PIECE_TILES:
        return function(work.enter(values.to(work.dtype)), *along, *given)
    if with_graph:
        outputs: tuple[Tensor, ...] = _Recomputed.apply(work, values, *given, *parameters)
        return outputs
    # In the pieces in which they are computed again, so that dropout falls alike in both passes of a step.
    whole, converted = _Whole(len(values)), _Converted(work, values)
    for rows in _cut(len(values)):
        whole[rows] = work.of_entered(work.enter(converted[rows]), rows, given)
    return whole.tensors


@dataclass(frozen=True)
class _Work:
    """What is done to each piece."""

    function: TileFunction
    embed: Embedding | None
    along: tuple[Tensor, ...]
    given: int
    dtype: torch.dtype

    def enter(self, converted: Tensor) -> Tensor:
        embedded: Tensor = converted if self.embed is None else self.embed(converted)
        return embedded

    def of_entered(self, entered: Tensor, rows: slice, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.function(entered, *(one[rows] for one in self.along), *given)


class _Converted:
    """Pieces in the parameters' type, one at a time: where they go on to be embedded, each takes the memory of the one before."""

    def __init__(self, work: _Work, values: Tensor) -> None:
        self._values, self._dtype = values.detach(), work.dtype
        again = work.embed is not None and values.dtype != work.dtype
        self._memory = values.new_empty(PIECE_TILES, *values.shape[1:], dtype=work.dtype) if again else None

    def __getitem__(self, rows: slice) -> Tensor:
        piece = self._values[rows]
        return piece.to(self._dtype) if self._memory is None else self._memory[: len(piece)].copy_(piece)


def _cut(count: int) -> list[slice]:
    return [slice(start, start + PIECE_TILES) for start in range(0, count, PIECE_TILES)]


class _Whole:
    """Results of all pieces in memory taken once: what is small and stays keeps what is large from being used again."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.tensors: tuple[Tensor, ...] = ()

    def __setitem__(self, rows: slice, results: tuple[Tensor, ...]) -> None:
        if not self.tensors:
            self.tensors = tuple(one.new_empty(self._count, *one.shape[1:]) for one in results)
        for whole, own in zip(self.tensors, results, strict=True):
            part = whole[rows]
            if part.shape != own.shape:
                raise ValueError(
                    f"a function of tiles gave {tuple(own.shape)} for a piece where {tuple(part.shape)} is due"
                )
            part.copy_(own)


class _Recomputed(torch.autograd.Function):
    """A function of tiles of which nothing is kept but its results, and of embedded tiles what there is room for."""

    @staticmethod
    def forward(ctx: Any, work: _Work, values: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        given, room = tensors[: work.given], current_room()
        ctx.work, ctx.parameters = work, tensors[work.given :]
        ctx.mixed = torch.is_autocast_enabled(values.device.type)
        ctx.rows = _cut(len(values))
        ctx.before, ctx.entered = (RandomStates(len(ctx.rows), values.device) for _ in range(2))
        kept: list[Tensor] = []
        whole, converted = _Whole(len(values)), _Converted(work, values)
        for number, rows in enumerate(ctx.rows):
            ctx.before.note(number)
            entered = work.enter(converted[rows])
            ctx.entered.note(number)
            whole[rows] = work.of_entered(entered, rows, given)
            size = entered.untyped_storage().nbytes() / len(entered) * len(values)
            if work.embed is not None and room is not None and (kept or (rows.start == 0 and room.holds(size))):
                kept.append(room.keep(entered))
        ctx.save_for_backward(values, *given, *kept)
        return whole.tensors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        work: _Work = ctx.work
        values, *rest = ctx.saved_tensors
        kept = rest[work.given :]
        needs_values, needs_given = ctx.needs_input_grad[1], ctx.needs_input_grad[2 : 2 + work.given]
        given = [one.detach().requires_grad_(need) for one, need in zip(rest, needs_given, strict=False)]
        back = _Backward(work, values, given, [one for one in ctx.parameters if one.requires_grad], mixed=ctx.mixed)
        of_values = torch.zeros_like(values) if needs_values else None
        after = random_state(values.device)
        for number, rows in enumerate(ctx.rows):
            (ctx.entered if kept else ctx.before).restore(number)
            entered = kept[number] if kept else None
            found = back.piece(rows, entered, gradients, wanted=needs_values)
            if of_values is not None and found is not None:
                of_values[rows] = found
        set_random_state(values.device, after)
        return None, of_values, *(back.sum_of(one) for one in (*given, *ctx.parameters))


class _Backward:
    """Gradients of pieces, summed."""

    def __init__(
        self,
        work: _Work,
        values: Tensor,
        given: list[Tensor],
        used: list[Tensor],
        *,
        mixed: bool,
    ) -> None:
        self._work, self._given, self._mixed, self._device = work, given, mixed, values.device
        self._converted = _Converted(work, values)
        self._used = [*(one for one in given if one.requires_grad), *used]
        self._sums: dict[int, Tensor] = {}

    def sum_of(self, one: Tensor) -> Tensor | None:
        """Return the gradient of a parameter, or of what was given; None if nothing depends on it."""
        found = self._sums.get(id(one))
        return None if found is None else found.to(one.dtype)

    def piece(
        self, rows: slice, kept: Tensor | None, gradients: Sequence[Tensor], *, wanted: bool
    ) -> Tensor | None:  # fmt: skip
        """Compute a piece again and add its gradients; return that of its tiles if wanted."""
        work, embeds = self._work, self._work.embed is not None
        piece = self._converted[rows]
        with self._casting():
            if kept is None and embeds:
                with torch.no_grad():
                    kept = work.enter(piece)
            leaf = (piece if kept is None else kept).detach().requires_grad_(wanted or embeds)
            with torch.enable_grad():
                outputs = work.of_entered(leaf, rows, self._given)
        pairs = [(one, own[rows]) for one, own in zip(outputs, gradients, strict=True) if one.requires_grad]
        inputs = [leaf, *self._used] if leaf.requires_grad else self._used
        found = torch.autograd.grad([one for one, _ in pairs], inputs, [own for _, own in pairs], allow_unused=True)
        for one, gradient in zip(inputs, found, strict=True):
            if gradient is not None and one is not leaf:
                self._add(one, gradient)
        of_leaf = found[0] if leaf.requires_grad else None
        if work.embed is None or of_leaf is None:
            return of_leaf
        with self._casting():
            through = work.embed.gradients(piece, leaf, of_leaf, of_values=wanted)
        for one, own in zip(work.embed.parameters(), (through.weight, through.bias), strict=True):
            if one.requires_grad:
                self._add(one, own)
        return through.values

    def _casting(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed)

    def _add(self, one: Tensor, gradient: Tensor) -> None:
        found = self._sums.get(id(one))
        # In float64, since there may be many pieces; of a single piece it is what it is.
        self._sums[id(one)] = gradient if found is None else found.double().add_(gradient)
