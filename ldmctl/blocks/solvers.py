"""Coefficients that samplers share. Levels are sigma / alpha, plain numbers in float64; `high` is where a step begins, `low` where it ends."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.polynomial import Polynomial


def fresh_noise(high: float, low: float, eta: float) -> tuple[float, float]:
    """(kept, fresh): deviations of the noise that stays and of the noise that is drawn anew in a step, kept^2 + fresh^2 = low^2.

    With eta 1 it is the draw from q(x_next | x, clean) of DDPM, with eta 0 nothing is fresh (arXiv:2010.02502, eq. 16).
    """
    fresh = min(low, eta * low * math.sqrt(1 - (low / high) ** 2))
    return math.sqrt(low**2 - fresh**2), fresh


def phi_2(h: float) -> float:
    """1 - (1 - e^-h) / h: how far the clean latent moves, on average over a step of h in ln(level), where it moves evenly (arXiv:2211.01095)."""
    return 1 + math.expm1(-h) / h


def level_integrals(nodes: Sequence[float], low: float) -> list[float]:
    """The integral from nodes[0] to `low` of each Lagrange polynomial over the levels `nodes`: the weights of slopes known there.

    A variable step of Adams and Bashforth; the weights add up to low - nodes[0].
    """
    length = low - nodes[0]
    places = [(node - nodes[0]) / length for node in nodes]
    integrals = [lagrange(places, index).integ() for index in range(len(nodes))]
    return [length * float(each(1.0) - each(0.0)) for each in integrals]


def log_level_integrals(nodes: Sequence[float], low: float) -> list[float]:
    """The same for polynomials in ln(level), still integrated over the level (arXiv:2204.13902, eq. 15); `low` above 0.

    As d level = level d ln(level), each is an integral of P(u) e^u, which is e^u (P - P' + P'' - ...).
    """
    places = [math.log(node / nodes[0]) for node in nodes]
    end = math.log(low / nodes[0])
    weights = []
    for index in range(len(nodes)):
        whole = term = lagrange(places, index)
        for _ in range(len(nodes) - 1):
            term = -term.deriv()
            whole = whole + term
        weights.append(nodes[0] * float(math.exp(end) * whole(end) - whole(0.0)))
    return weights


def lagrange(places: Sequence[float], index: int) -> Polynomial:
    """The polynomial that is 1 at places[index] and 0 at the others."""
    others = [place for other, place in enumerate(places) if other != index]
    scale = np.prod([places[index] - place for place in others])
    return Polynomial.fromroots(others) / scale if others else Polynomial([1.0])
