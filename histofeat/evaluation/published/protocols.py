"""Published splits by name: whose patches are scored, and how a file's name says whose patch it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from histofeat.datasets import load_idc, official_roles, parse_name
from histofeat.exceptions import known_names

__all__ = ["PROTOCOLS", "Protocol", "as_protocol"]


@dataclass(frozen=True)
class Protocol:
    """A published split of patients, and how its patches are named.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    title : str
        What it is, in words.
    roles : callable
        ``roles()`` gives the mapping of patient to "train", "validation" or "test"; other patients have no role.
    parse : callable
        ``parse(file_name)`` gives an object with ``patient`` (str), ``x``, ``y`` (int) and ``label`` (0 or 1), or
        None for a name that is none.
    example : str
        A name that `parse` reads.
    positive : str
        What the score is the probability of.
    load : callable
        ``load(folder)`` gives the `PatchDataset` of a copy of the data.
    published : str
        A sentence that says where the published numbers are.
    """

    name: str
    title: str
    roles: Callable[[], Mapping[str, str]]
    parse: Callable[[str], Any]
    example: str
    positive: str
    load: Callable[[Any], Any]
    published: str

    def patients(self, role: str) -> tuple[str, ...]:
        """Give the patients of a role, in the order of the published list.

        Examples
        --------
        >>> len(PROTOCOLS["idc-official"].patients("test"))
        49
        """
        return tuple(patient for patient, its_role in self.roles().items() if its_role == role)


PROTOCOLS = {
    "idc-official": Protocol(
        name="idc-official",
        title="IDC, published split: 84 train, 29 validation and 49 test patients",
        roles=official_roles,
        parse=parse_name,
        example="8863_idx5_x451_y1451_class0.png",
        positive="IDC",
        load=load_idc,
        published="Published balanced accuracy and F1 on this split, each with its source, are listed in "
        "benchmarks/protocols/idc_official_published.csv of histofeat's repository.",
    )
}
"""The protocols by name; a project may add its own."""


def as_protocol(protocol: str | Protocol) -> Protocol:
    """Look up a protocol.

    Parameters
    ----------
    protocol : str or Protocol
        A name in `PROTOCOLS`, or a protocol, which comes back as it is.

    Raises
    ------
    ValueError
        If the name is unknown; the message gives the nearest.

    Examples
    --------
    >>> as_protocol("idc-official").positive
    'IDC'
    """
    if isinstance(protocol, Protocol):
        return protocol
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise ValueError(
            f"protocol: expected the name of a published split, got {protocol!r}. {known_names(protocol, PROTOCOLS)}"
        )
    return PROTOCOLS[protocol]
