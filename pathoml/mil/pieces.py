"""Large bags piece by piece: what lies between is computed again on the way back, so that memory does not grow with the bag."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pathoml.mil.as_given import with_weights_given
from pathoml.mil.embedding import Embedding
from pathoml.mil.randomness import RandomState, random_state, set_random_state
from pathoml.mil.room import current_room

PIECE_TILES = 2048
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
    at_once = WHOLE_UP_TO if with_graph or in_two_passes else PIECE_TILES  # dropout has to fall alike in both passes
    if with_graph and (len(values) > at_once or (in_two_passes and len(values) > PIECE_TILES)):
        outputs: tuple[Tensor, ...] = _Recomputed.apply(work, values, *given, *parameters)
        return outputs
    if len(values) <= max(at_once, PIECE_TILES):
        return function(work.enter(values), *along, *given)
    return _joined([work.of_rows(values, rows, given) for rows in _cut(len(values))])


@dataclass(frozen=True)
class _Work:
    """What is done to each piece."""

    function: TileFunction
    embed: Embedding | None
    along: tuple[Tensor, ...]
    given: int
    dtype: torch.dtype

    def enter(self, piece: Tensor) -> Tensor:
        converted = piece.to(self.dtype)
        embedded: Tensor = converted if self.embed is None else self.embed(converted)
        return embedded

    def of_entered(self, entered: Tensor, rows: slice, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.function(entered, *(one[rows] for one in self.along), *given)

    def of_rows(self, values: Tensor, rows: slice, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.of_entered(self.enter(values[rows]), rows, given)


def _cut(count: int) -> list[slice]:
    size = PIECE_TILES if count > WHOLE_UP_TO or current_room() is None else count
    return [slice(start, start + size) for start in range(0, count, size)]


def _joined(results: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*results, strict=True))


class _Recomputed(torch.autograd.Function):
    """A function of tiles of which nothing is kept but its results, and of embedded tiles what there is room for."""

    @staticmethod
    def forward(ctx: Any, work: _Work, values: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        given, room = tensors[: work.given], current_room()
        ctx.work, ctx.parameters = work, tensors[work.given :]
        ctx.mixed = torch.is_autocast_enabled(values.device.type)
        ctx.states, ctx.rows = [], _cut(len(values))
        kept: list[Tensor] = []
        results = []
        for rows in ctx.rows:
            before = random_state(values.device)
            entered = work.enter(values[rows])
            ctx.states.append((before, random_state(values.device)))
            results.append(work.of_entered(entered, rows, given))
            size = entered.untyped_storage().nbytes() / len(entered) * len(values)
            if work.embed is not None and room is not None and (kept or (rows.start == 0 and room.holds(size))):
                kept.append(room.keep(entered))
        ctx.save_for_backward(values, *given, *kept)
        return _joined(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        work: _Work = ctx.work
        values, *rest = ctx.saved_tensors
        kept = rest[work.given :]
        needs_values, needs_given = ctx.needs_input_grad[1], ctx.needs_input_grad[2 : 2 + work.given]
        given = [one.detach().requires_grad_(need) for one, need in zip(rest, needs_given, strict=False)]
        back = _Backward(work, [one for one in ctx.parameters if one.requires_grad], given, ctx.mixed)
        of_values = torch.zeros_like(values) if needs_values else None
        after = random_state(values.device)
        for number, rows in enumerate(ctx.rows):
            entered = kept[number] if kept else None
            found = back.piece((values, rows), entered, ctx.states[number], gradients, wanted=needs_values)
            if of_values is not None and found is not None:
                of_values[rows] = found
        set_random_state(values.device, after)
        return None, of_values, *(back.sum_of(one) for one in (*given, *ctx.parameters))


class _Backward:
    """Gradients of pieces, summed."""

    def __init__(self, work: _Work, used: list[Tensor], given: list[Tensor], mixed: bool) -> None:  # noqa: FBT001
        self._work, self._given, self._mixed = work, given, mixed
        self._used = [*(one for one in given if one.requires_grad), *used]
        self._sums: dict[int, Tensor] = {}

    def sum_of(self, one: Tensor) -> Tensor | None:
        """Return the gradient of a parameter, or of what was given; None if nothing depends on it."""
        found = self._sums.get(id(one))
        return None if found is None else found.to(one.dtype)

    def piece(
        self, cut: tuple[Tensor, slice], kept: Tensor | None, states: tuple[RandomState, RandomState],
        gradients: Sequence[Tensor], *, wanted: bool,
    ) -> Tensor | None:  # fmt: skip
        """Compute a piece again and add its gradients; return that of its tiles if wanted."""
        values, rows = cut
        work, embeds = self._work, self._work.embed is not None
        before, entered_state = states
        set_random_state(values.device, before if kept is None else entered_state)
        piece = values[rows].detach().to(work.dtype)
        with self._casting(values.device):
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
        with self._casting(values.device):
            through = work.embed.gradients(piece, leaf, of_leaf, of_values=wanted)
        for one, own in zip(work.embed.parameters(), (through.weight, through.bias), strict=True):
            if one.requires_grad:
                self._add(one, own)
        return through.values

    def _casting(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._mixed)

    def _add(self, one: Tensor, gradient: Tensor) -> None:
        found = self._sums.get(id(one))
        # In float64, since there may be many pieces; of a single piece it is what it is.
        self._sums[id(one)] = gradient if found is None else found.double().add_(gradient)
