"""Write the four files that docs/DATA.md trains on: ``python examples/own_files.py own/``.

They are made up, but look as files do that people bring: a sheet that Excel saved in Germany, an array of JSON from an
API, shards of Parquet from the Hugging Face hub, and mails with several tags; with rows that are blank or broken.
Without the name of a folder they go to a temporary one.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

PROBLEMS = {
    "Rechnung": [
        "die Rechnung ist falsch",
        "ich wurde doppelt belastet",
        "mir fehlt eine Gutschrift",
        "zu hoher Betrag",
    ],
    "Technik": [
        "die App stürzt ab",
        "das Gerät startet nicht",
        "der Bildschirm bleibt schwarz",
        "keine Verbindung möglich",
    ],
    "Lieferung": [
        "das Paket ist nicht da",
        "die Lieferung kam zu spät",
        "der Karton ist beschädigt",
        "Teile fehlen im Paket",
    ],
}
GOODS = ["screws", "lamps", "red chairs", "cables", "tables", "blue paint"]
CITIES = ["Berlin", "Lyon", "Oslo", "Porto", "Gdańsk"]
WEEKDAYS = {"Montag": "Monday", "Dienstag": "Tuesday", "Mittwoch": "Wednesday", "Freitag": "Friday"}
TIMES = {"um neun Uhr": "at nine o'clock", "am Mittag": "at noon", "am Abend": "in the evening"}
EVENTS = {"das Konzert": "the concert", "die Sitzung": "the meeting", "der Kurs": "the course", "das Spiel": "the game"}


def write_tickets(path: Path, rng: random.Random) -> None:
    """Semicolons, cp1252, quotes around a text with a line break, and empty cells at the end."""
    rows = ["sep=;", "Nr;Text;Kategorie"]
    for number in range(400):
        label = rng.choice(list(PROBLEMS))
        greeting = rng.choice(["Hallo", "Guten Tag", "Sehr geehrte Damen und Herren", "Grüße"])
        text = f"{greeting}, {rng.choice(PROBLEMS[label])}; Kunde {rng.randrange(10_000)}"
        rows.append(f'{number};"{text}\nDanke";{label if number % 50 else ""}')
    path.write_bytes("\r\n".join([*rows, "400;;", "401;;", ""]).encode("cp1252"))


def write_orders(path: Path, rng: random.Random) -> None:
    """One array, indented; the targets are objects."""
    orders = []
    for _ in range(1_500):
        count, goods, city = rng.randrange(1, 30), rng.choice(GOODS), rng.choice(CITIES)
        form = rng.choice(["Please send {n} {g} to {c}.", "We need {n} {g} in {c}!", "{c} is waiting for {n} {g}."])
        text = form.format(n=count, g=goods, c=city)
        orders.append({"mail": {"body": text}, "order": {"to": city, "items": [{"goods": goods, "count": count}]}})
    path.write_text(json.dumps(orders, ensure_ascii=False, indent=2), encoding="utf-8")


def write_sentences(folder: Path, rng: random.Random) -> None:
    """Two shards to train on and one to test on, with a column of objects, as data sets of translations have it."""
    import pyarrow
    import pyarrow.parquet

    pairs = []
    for event, english in EVENTS.items():
        for day, day_english in WEEKDAYS.items():
            for time, time_english in TIMES.items():
                german = f"{event} beginnt {day} {time}"
                pairs.append({"translation": {"de": german, "en": f"{english} starts on {day_english} {time_english}"}})
    rng.shuffle(pairs)
    train, test = pairs[:40] * 10, pairs[40:]
    for name, rows in (("train-00000-of-00002", train[::2]), ("train-00001-of-00002", train[1::2]), ("test", test)):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")


def write_mails(path: Path, rng: random.Random) -> None:
    """None, one or several labels in a cell, in the order of their complaints; one of them is rare."""
    rows = ["Mail;Themen"]
    for number in range(800):
        labels = rng.sample([*PROBLEMS, "Kündigung"], k=rng.choice([0, 1, 1, 2, 2, 3]))
        labels = [label for label in labels if label in PROBLEMS or rng.random() < 0.15]
        parts = [rng.choice([*PROBLEMS.get(label, ["ich kündige den Vertrag"])]) for label in labels]
        text = f"{rng.choice(['Hallo', 'Guten Tag'])}, {' und '.join(parts) or 'vielen Dank für die Hilfe'} ({number})"
        rows.append(f'{text};"{"; ".join(labels)}"')
    path.write_text("\n".join([*rows, ""]), encoding="utf-8")


def main(folder: Path) -> None:
    """Write all of them."""
    rng = random.Random(0)
    (folder / "sentences").mkdir(parents=True, exist_ok=True)
    write_tickets(folder / "tickets.csv", rng)
    write_orders(folder / "orders.json", rng)
    write_sentences(folder / "sentences", rng)
    write_mails(folder / "mails.csv", rng)
    print(f"wrote tickets.csv, orders.json, sentences/ and mails.csv to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="own-")))
