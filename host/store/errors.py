"""What can go wrong with a projection, by what the caller should do about it."""

from host.api import TandemError

__all__ = [
    "DatabaseBusyError",
    "ForeignDatabaseError",
    "JournalBehindError",
    "JournalGapError",
    "SchemaMismatchError",
    "StoreError",
]


class StoreError(TandemError):
    """The projection cannot go on as it is; its journal and the node's trading are not touched."""


class JournalGapError(StoreError):
    """Entries are missing between the projection and the records offered: rebuild, or find them."""

    def __init__(self, database: str, expected: int, found: int) -> None:
        super().__init__(
            f"projection {database}: next journal entry should be LSN {expected}, was {found}; "
            "run `tandem store rebuild` to project the journal from its first entry"
        )
        self.expected = expected
        self.found = found


class ForeignDatabaseError(StoreError):
    """The database holds the projection of another journal: give this node a database of its own."""

    def __init__(self, database: str, what: str, expected: str, found: str) -> None:
        super().__init__(
            f"projection {database}: belongs to {what} {found}, this journal's is {expected}; "
            "give each node its own database, or run `tandem store rebuild` to replace this one"
        )
        self.expected = expected
        self.found = found


class JournalBehindError(StoreError):
    """The database holds entries that the journal does not: another node's, or its tail was lost."""

    def __init__(self, database: str, journal: str, last_lsn: int) -> None:
        super().__init__(
            f"projection {database}: holds entries up to LSN {last_lsn}, the journal in {journal} ends "
            "before that; check the database's URL, and if it is right run `tandem store rebuild`"
        )
        self.last_lsn = last_lsn


class SchemaMismatchError(StoreError):
    """The tables are of another version of Tandem: upgrade Tandem where newer, rebuild where older."""

    def __init__(self, database: str, expected: int, found: int) -> None:
        step = "upgrade Tandem on this machine" if found > expected else "run `tandem store rebuild`"
        super().__init__(f"projection {database}: schema version should be {expected}, was {found}; {step}")
        self.expected = expected
        self.found = found


class DatabaseBusyError(StoreError):
    """Another process projected into the same database meanwhile: open the projection again."""

    def __init__(self, database: str, expected: int) -> None:
        super().__init__(
            f"projection {database}: was at LSN {expected} when opened, another process moved it since; "
            "stop the other writer"
        )
        self.expected = expected
