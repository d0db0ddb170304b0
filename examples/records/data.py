"""The clinic's patient records: their types, and a few in memory."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Sensitivity(StrEnum):
    """How far a record may travel."""

    NORMAL = "normal"
    RESTRICTED = "restricted"


class ExportFormat(StrEnum):
    """The file types that an export can have."""

    CSV = "csv"
    JSON = "json"


class Column(StrEnum):
    """What an export can hold about each patient."""

    RECORD_ID = "record_id"
    NAME = "name"
    BORN = "born"
    EMAIL = "email"
    LAST_VISIT = "last_visit"
    BALANCE = "balance"


IDENTIFYING = frozenset({Column.NAME, Column.BORN, Column.EMAIL})
"""Columns that say who a patient is, the more of them the surer."""


class Model(BaseModel):
    """Immutable, and closed to fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Contact(Model):
    """How to reach a patient."""

    email: str
    phone: str | None = None


class Record(Model):
    """What the clinic knows about one patient."""

    record_id: str
    patient_id: str
    name: str
    born: date
    contact: Contact
    sensitivity: Sensitivity = Sensitivity.NORMAL
    balance: Decimal = Field(description="What the patient owes, in euros.")
    last_visit: date
    next_visit: date | None = None
    notes: tuple[str, ...] = ()


class Summary(Model):
    """One line of a search result."""

    record_id: str
    name: str
    last_visit: date
    balance: Decimal


class Filters(Model):
    """What a search can be narrowed by."""

    sensitivity: Sensitivity = Sensitivity.NORMAL
    seen_since: date | None = None
    owes_at_least: Decimal | None = None


class Export(Model):
    """An export, as the text of one file."""

    format: ExportFormat
    max_rows: int
    rows: int
    content: str


def changed(
    record: Record,
    *,
    write_off: Decimal | None = None,
    contact: Contact | None = None,
    next_visit: date | None = None,
    note: str | None = None,
) -> Record:
    """Return *record* with what is given changed."""
    return record.model_copy(
        update={
            "balance": record.balance - (write_off or Decimal(0)),
            "contact": contact or record.contact,
            "next_visit": next_visit or record.next_visit,
            "notes": (*record.notes, note) if note else record.notes,
        }
    )


def as_rows(records: Iterable[Record], columns: Sequence[Column]) -> list[dict[str, str | None]]:
    """Return the columns of each record, as the text that JSON has for them."""
    known = (record.model_dump(mode="json") | {"email": record.contact.email} for record in records)
    return [{column.value: row[column.value] for column in columns} for row in known]


def as_csv(rows: Iterable[dict[str, str | None]], columns: Sequence[Column]) -> str:
    """Return rows as the text of a CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.value for column in columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class UnknownRecordError(LookupError):
    """There is no record of that id."""


class Records:
    """The records, by id."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._by_id = {record.record_id: record for record in records}

    def find(self, record_id: str) -> Record | None:
        """Return the record of that id, if there is one."""
        return self._by_id.get(record_id)

    def get(self, record_id: str) -> Record:
        """Return the record of that id.

        Raises:
            UnknownRecordError: If there is none.
        """
        if (record := self.find(record_id)) is None:
            raise UnknownRecordError(record_id)
        return record

    def search(self, text: str, filters: Filters) -> list[Record]:
        """Return the records whose name holds *text* and that pass every filter."""
        return [
            record
            for record in self._by_id.values()
            if text.casefold() in record.name.casefold()
            and record.sensitivity == filters.sensitivity
            and (filters.seen_since is None or record.last_visit >= filters.seen_since)
            and (filters.owes_at_least is None or record.balance >= filters.owes_at_least)
        ]

    def put(self, record: Record) -> None:
        """Keep *record* in the place of the one with its id."""
        self._by_id[record.record_id] = record

    def remove(self, record_id: str) -> None:
        """Forget the record of that id."""
        del self._by_id[self.get(record_id).record_id]


def sample_records() -> Records:
    """Return four invented patients, one of whose records is restricted."""
    return Records(
        (
            Record(
                record_id="r1",
                patient_id="p1",
                name="Ada Moreau",
                born=date(1961, 4, 2),
                contact=Contact(email="ada@patients.example", phone="+33 1 55 55 01 01"),
                balance=Decimal("240.00"),
                last_visit=date(2026, 11, 3),
            ),
            Record(
                record_id="r2",
                patient_id="p2",
                name="Bilal Aydin",
                born=date(1988, 9, 17),
                contact=Contact(email="bilal@patients.example"),
                balance=Decimal("0.00"),
                last_visit=date(2026, 10, 21),
                next_visit=date(2027, 1, 12),
            ),
            Record(
                record_id="r3",
                patient_id="p3",
                name="Chiara Rossi",
                born=date(1975, 12, 30),
                contact=Contact(email="chiara@patients.example"),
                balance=Decimal("1310.40"),
                last_visit=date(2026, 6, 9),
                notes=("pays by instalments",),
            ),
            Record(
                record_id="r9",
                patient_id="p9",
                name="Dana Novak",
                born=date(1994, 2, 11),
                contact=Contact(email="dana@patients.example"),
                sensitivity=Sensitivity.RESTRICTED,
                balance=Decimal("75.50"),
                last_visit=date(2026, 11, 19),
            ),
        )
    )
