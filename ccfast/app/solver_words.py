"""Solvers as people write them on the command line: a name of ``ccfast.solvers`` and its arguments."""

from __future__ import annotations

import ast

from .. import solvers
from ..solvers import Solver

__all__ = ["parse_solver"]


def parse_solver(text: str | None) -> Solver | None:
    """The solver of a text such as ``DDNM``, ``DDNM()`` or ``Conjugate(w=10, jacobian="none")``; None for None.

    Names are taken whatever their case. Arguments are numbers, strings, True, False and None; nothing is run.

    Raises:
        ValueError: the text is no call of a solver, or the solver refuses its arguments.
    """
    if text is None:
        return None
    known = {name.lower(): kind for name, kind in vars(solvers).items() if _is_solver(kind)}
    try:
        node = ast.parse(text.strip(), mode="eval").body
        name = node.func if isinstance(node, ast.Call) else node
        if not isinstance(name, ast.Name):
            raise ValueError
        given = [ast.literal_eval(value) for value in node.args] if isinstance(node, ast.Call) else []
        named = {k.arg or "": ast.literal_eval(k.value) for k in node.keywords} if isinstance(node, ast.Call) else {}
        kind = known[name.id.lower()]
    except (SyntaxError, ValueError, KeyError):
        names = ", ".join(sorted(kind.__name__ for kind in set(known.values())))
        raise ValueError(f"solver: must be one of {names}, with arguments such as DDNM(eta=0), got {text!r}") from None
    try:
        return kind(*given, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"solver: {kind.__name__} refuses its arguments ({error}), got {text!r}") from None


def _is_solver(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Solver) and kind is not Solver
