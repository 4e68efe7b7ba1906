"""Write train.jsonl and test.jsonl: dates in several forms, to be written as ISO 8601.

The same files come out every time, on every machine: `python make.py`.
"""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from pathlib import Path

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SIZES = {"train": 400, "test": 100}


def ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def forms(day: date) -> list[str]:
    month = MONTHS[day.month - 1]
    return [
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.day} {month[:3]} {day.year}",
        f"{month[:3]} {day.day} {day.year}",
        f"the {ordinal(day.day)} of {month} {day.year}",
        f"{DAYS[day.weekday()]}, {day.day} {month} {day.year}",
    ]


def main(folder: Path) -> None:
    generator = random.Random(2021)
    first, last = date(1950, 1, 1), date(2049, 12, 31)
    # Sampled without repetition, so that no date of the test is ever trained on.
    days = generator.sample(range((last - first).days + 1), sum(SIZES.values()))
    for split, size in SIZES.items():
        rows = []
        for number in range(size):
            day = first + timedelta(days=days.pop())
            text = generator.choice(forms(day))
            prompt = f'Write the date "{text}" as ISO 8601.'
            rows.append({"id": f"{split}-{number:03}", "prompt": prompt, "completion": day.isoformat()})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).parent)
