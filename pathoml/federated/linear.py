"""A penalised linear survival model by Newton steps over sums of sites: the same as that of all patients in one place."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pathoml.mil.objective import Objective, Outcome
from pathoml.units import FloatArray

LEVEL_RIDGE = 1e-6
_LONGEST_STEP = 4.0
"""Of one coefficient of a standardised column, or of one level: where the loss is hardly curved, its own step would be endless."""
"""Ridge of the levels, so that a time bin in which nobody had the event has an answer."""


@dataclass(frozen=True)
class LinearTerms:
    """Loss, gradient and Hessian at one point, summed over patients or events.

    Parameters
    ----------
    loss : float
        Negative log likelihood.
    gradient : ndarray of float64, shape (parameters,)
        Of coefficients, then levels.
    hessian : ndarray of float64, shape (parameters, parameters)
        Symmetric.
    """

    loss: float
    gradient: FloatArray
    hessian: FloatArray


def linear_terms(
    objective: Objective, parameters: FloatArray, design: FloatArray, outcome: Outcome
) -> LinearTerms:  # fmt: skip
    """Compute one site's terms; those of several sites add up to those of all their patients.

    For Cox this holds for the model in which each site has its own baseline hazard.

    Parameters
    ----------
    objective : Objective
        What is minimised.
    parameters : ndarray of float64, shape (columns + levels,)
        Coefficients of the columns, then the levels of the logits, where the objective has any.
    design : ndarray of float64, shape (patients, columns)
        Transformed covariates.
    outcome : Outcome
        Follow-up of the same patients.

    Returns
    -------
    LinearTerms
        In float64.
    """
    point = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
    columns = torch.from_numpy(np.ascontiguousarray(design, dtype=np.float64))
    weight = objective.denominator(outcome)

    def loss_at(values: Tensor) -> Tensor:
        shift = (columns @ values[: columns.shape[1]])[:, None]
        levels = values[columns.shape[1] :] if objective.has_level else values.new_zeros(objective.out)
        return objective.loss(shift + levels, outcome) * weight

    loss = loss_at(point)
    (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
    directions = torch.eye(len(point), dtype=torch.float64)
    (rows,) = torch.autograd.grad(gradient, point, grad_outputs=directions, is_grads_batched=True)
    hessian = rows.numpy()
    return LinearTerms(float(loss.detach()), gradient.detach().numpy(), (hessian + hessian.T) / 2)


def add_terms(parts: Sequence[LinearTerms]) -> LinearTerms:
    """Add the terms of several sites.

    Parameters
    ----------
    parts : sequence of LinearTerms
        At the same point.

    Returns
    -------
    LinearTerms
        Of all their patients.
    """
    return LinearTerms(
        float(np.sum([part.loss for part in parts])),
        np.stack([part.gradient for part in parts]).sum(axis=0),
        np.stack([part.hessian for part in parts]).sum(axis=0),
    )


def penalised(terms: LinearTerms, parameters: FloatArray, columns: int, ridge: float) -> LinearTerms:
    """Add the penalty.

    Parameters
    ----------
    terms : LinearTerms
        Of all patients.
    parameters : ndarray of float64, shape (parameters,)
        Where they were computed.
    columns : int
        How many of them are coefficients.
    ridge : float
        Half of this times the sum of squared coefficients is added to the loss.

    Returns
    -------
    LinearTerms
        Of the penalised loss.
    """
    weight = np.full(len(parameters), LEVEL_RIDGE)
    weight[:columns] = ridge
    return LinearTerms(
        terms.loss + 0.5 * float(weight @ parameters**2),
        terms.gradient + weight * parameters,
        terms.hessian + np.diag(weight),
    )


def newton_step(terms: LinearTerms) -> FloatArray:
    """Return the step that a quadratic model of the loss asks for, along which the loss falls.

    Where the loss is curved downwards, as that of ``pmf`` with censored patients can be, the size of the curvature counts and
    not its sign: the plain step would lead to a saddle or a maximum.

    Parameters
    ----------
    terms : LinearTerms
        Penalised.

    Returns
    -------
    ndarray of float64, shape (parameters,)
        To be added to the parameters, whole or shortened.

    References
    ----------
    Nocedal J, Wright SJ. Numerical optimization. 2nd ed, Springer 2006, section 3.4 (modified Hessians).
    """
    curvature, axes = np.linalg.eigh(terms.hessian)
    size = np.maximum(np.abs(curvature), LEVEL_RIDGE)
    step: FloatArray = -(axes @ ((axes.T @ terms.gradient) / size)).astype(np.float64)
    return step * min(1.0, _LONGEST_STEP / max(float(np.abs(step).max(initial=0.0)), _LONGEST_STEP))
