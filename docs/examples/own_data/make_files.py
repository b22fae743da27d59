"""Makes the CSV files beside it, always the same: `python make_files.py`. Standard library only.

Visitors have a favourite kind of product and open its cards more often; cheap products are ordered more.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

FIRST_DAY, NUM_DAYS = date(2024, 3, 1), 10
NUM_VISITORS, CARDS_A_DAY = 40, 130
KINDS = ("kitchen", "light", "textile", "garden")
NOUNS = {
    "kitchen": ("Kettle", "Teapot", "Pan", "Knife", "Bowl", "Jug"),
    "light": ("Lamp", "Lantern", "Candle", "Spotlight", "Bulb", "Torch"),
    "textile": ("Rug", "Curtain", "Cushion", "Blanket", "Towel", "Apron"),
    "garden": ("Spade", "Planter", "Hose", "Bench", "Rake", "Trellis"),
}
MATERIALS = ("steel", "wood", "glass")
COUNTRIES = ("AT", "DE", "CH", "")
HERE = Path(__file__).parent

Row = Sequence[object]


def write(name: str, header: Row, rows: Sequence[Row]) -> None:
    """Write one CSV file."""
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def chance(logit: float) -> float:
    """Probability of a logit."""
    return 1.0 / (1.0 + math.exp(-logit))


def products(rng: random.Random) -> list[Row]:
    """Key, title, price, tags and the day of listing of every product."""
    nouns = [(kind, noun) for kind in KINDS for noun in NOUNS[kind]]
    return [
        (
            501 + place,
            noun,
            round(rng.lognormvariate(3.3, 0.6), 2),
            "|".join([kind, *rng.sample(MATERIALS, rng.randrange(3))]),
            date(2024, 1, 10) + timedelta(days=rng.randrange(40)),
        )
        for place, (kind, noun) in enumerate(nouns)
    ]


def main() -> None:
    """Write every file."""
    rng = random.Random(7)
    catalogue = products(rng)
    visitors = [f"v{number:03}" for number in range(NUM_VISITORS)]
    favourite = {visitor: rng.choice(KINDS) for visitor in visitors}
    activity = [rng.paretovariate(1.3) for _ in visitors]
    orders: list[Row] = []
    impression = 0
    for day in (FIRST_DAY + timedelta(days=number) for number in range(NUM_DAYS)):
        midnight = datetime.combine(day, time(), UTC)
        cards: list[Row] = []
        for second in sorted(rng.sample(range(86_400), CARDS_A_DAY)):
            impression += 1
            shown = midnight + timedelta(seconds=second)
            visitor, page = rng.choices(visitors, activity)[0], rng.choice(("home", "search"))
            key, _, price, tags, _ = rng.choice(catalogue)
            likes = str(tags).startswith(favourite[visitor])
            opened = rng.random() < chance(1.0 * likes + 0.6 * (page == "search") - 1.0)
            action = "save" if rng.random() < (0.4 if opened else 0.02) else "none"
            cards.append((impression, visitor, key, page, round(shown.timestamp() * 1000), int(opened), action))
            if opened and rng.random() < chance(0.5 + likes - float(str(price)) / 30):
                ordered = (shown + timedelta(hours=rng.expovariate(1 / 12))).strftime("%Y-%m-%d %H:%M:%S")
                orders.append((impression, ordered, price))
        header = ("id", "visitor", "product", "page", "shown_at", "opened", "action")
        write(f"impressions-{day}.csv", header, cards)
    write("orders.csv", ("impression", "ordered_at", "amount"), orders)
    write("products.csv", ("product", "title", "price", "tags", "listed_on"), catalogue)
    write("visitors.csv", ("visitor", "country"), [(visitor, rng.choice(COUNTRIES)) for visitor in visitors])


if __name__ == "__main__":
    main()
