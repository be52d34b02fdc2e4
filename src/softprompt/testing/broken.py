"""The error of a method that breaks a contract."""

from __future__ import annotations


class ContractBroken(AssertionError):
    """A method breaks a contract; this is an AssertionError, so that a test that calls a check fails with it.

    `contract` is the contract's name, `where` the model and the options, `fix` what to change.
    """

    def __init__(
        self, happened: str, fix: str, contract: str = "", method: str = "", where: str = ""
    ) -> None:
        super().__init__(happened, fix)
        self.what, self.fix, self.contract, self.method, self.where = happened, fix, contract, method, where

    def __str__(self) -> str:
        head = (
            f"{self.method} breaks the contract '{self.contract}' ({self.where}): " if self.contract else ""
        )
        return f"{head}{self.what}\n  fix: {self.fix}"
