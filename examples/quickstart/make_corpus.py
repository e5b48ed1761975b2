"""Make the quickstart's web corpus out of the pages in `corpus/`.

Run by hand (`python make_corpus.py OUTPUT_DIR`) or by a test. In: the hand-written pages, the sites' navigation and
footers, and some foreign pages. Out: `OUTPUT_DIR/web.jsonl.gz`, one record {"id", "url", "title", "text"} a line, with
the faults that crawled text has: copies, near-copies, boilerplate, broken encodings, lines that are no JSON. The same
arguments give the same bytes (for one version of Python and zlib). Needs the standard library only.
"""

import argparse
import gzip
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

CORPUS = Path(__file__).parent / "corpus"
RLM, ZWNJ, TATWEEL = "\u200f", "\u200c", "\u0640"
FATHA, DAMMA, KASRA, SUKUN = "\u064e", "\u064f", "\u0650", "\u0652"

# Records of each kind in a corpus of 1,000; the hand-written pages come once each, recombined pages make up the rest.
SHARES = {
    "exact-duplicate": 60, "edited": 45, "tatweel": 25, "tashkeel": 25, "presentation-forms": 20, "spelling": 25,
    "digits": 20, "invisible-marks": 20, "mixed-script": 20, "contacts": 30, "short": 30, "foreign": 20, "mojibake": 8,
    "lone-surrogate": 2.5, "nul": 2, "invalid-utf8": 1.5, "invalid-json": 1,
}  # fmt: skip
FRAGMENTS = json.loads((CORPUS / "fragments.json").read_text(encoding="utf-8"))
SPELLING = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ة": "ه"})
ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


class Page(NamedTuple):
    """A page before its site's boilerplate is put around it."""

    site: str
    url: str
    title: str
    topic: str
    paragraphs: tuple[str, ...]


class Record(NamedTuple):
    """One record of the corpus; `kind` says what was done to it and is not written."""

    kind: str
    url: str
    title: str
    text: str


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_pages() -> list[Page]:
    """The hand-written pages, in the order of file name and line."""
    rows = [row for path in sorted(CORPUS.glob("pages-*.jsonl")) for row in read_jsonl(path)]
    return [Page(row["site"], row["url"], row["title"], row["topic"], tuple(row["paragraphs"])) for row in rows]


def recombined(pages: list[Page], count: int, rng: Random) -> list[Page]:
    """`count` new pages of four paragraphs from four pages of one topic; no two share more than two paragraphs."""
    names = sorted({page.topic for page in pages})
    made: list[Page] = []
    taken: set[tuple[str, ...]] = set()
    while len(made) < count:
        topic = names[len(made) % len(names)]
        sources = rng.sample([page for page in pages if page.topic == topic], 4)
        paragraphs = tuple(rng.choice(page.paragraphs) for page in sources)
        triples = {tuple(sorted(set(paragraphs) - {left_out})) for left_out in paragraphs}
        if taken & triples:
            continue
        taken |= triples
        first = sources[0]
        url = f"https://{first.site}/{topic}/{1001 + len(made)}"
        made.append(Page(first.site, url, f"{first.title} ومواضيع أخرى", topic, paragraphs))
    return made


def with_boilerplate(page: Page, site: dict, rng: Random) -> str:
    """The page's text as a crude extractor leaves it: most keep navigation and footer, some a byline or link."""
    body = list(page.paragraphs)
    if rng.random() < 0.3:
        body.insert(rng.randint(1, len(body) - 1), f"اقرأ أيضاً في {site['name']}: الأكثر قراءة هذا الأسبوع")
    if rng.random() < 0.4:
        date = f"{rng.randint(1, 28)}/{rng.randint(1, 12)}/{rng.randint(2015, 2024)}"
        body.insert(0, f"نشر في {date} | عدد القراءات {rng.randint(12, 9800)}")
    if rng.random() < 0.85:
        body = [*site["header"], page.title, *body, *site["footer"]]
    return "\n".join(body)


def edit(text: str, rng: Random) -> str:
    """About one word in eighty doubled, replaced (by a synonym where there is one) or followed by another."""
    words = text.split(" ")
    for _ in range(max(1, len(words) // 80)):
        at = rng.randrange(len(words))
        word = words[at]
        words[at] = FRAGMENTS["synonyms"].get(word) or rng.choice((f"{word} {word}", "وقد", f"{word} أيضاً"))
    return " ".join(words)


def stretch(text: str, rng: Random) -> str:
    """Tatweel inside a third of the words of four letters and more."""

    def stretched(match: re.Match) -> str:
        word = match[0]
        return word[:2] + TATWEEL * rng.randint(1, 3) + word[2:] if rng.random() < 0.33 else word

    return re.sub(r"[بتثجحخسشصضطظعغفقكلمنهي]{2}[\u0621-\u064a]{2,}", stretched, text)


def vocalise(text: str, rng: Random) -> str:
    """Short vowels over about 40 % of the letters; before a long vowel always the fitting one."""
    fitting = {"ا": FATHA, "و": DAMMA, "ي": KASRA}

    def marked(match: re.Match) -> str:
        if rng.random() >= 0.4:
            return match[0]
        return match[0] + (fitting.get(match[1]) or rng.choice((FATHA, FATHA, KASRA, DAMMA, SUKUN)))

    return re.sub(r"[بتثجحخدذرزسشصضطظعغفقكلمنه](?=([\u0621-\u064a]))", marked, text)


def shaped_letters() -> dict[tuple[str, str], str]:
    """(letters, form) to presentation form, e.g. ("ب", "initial") to U+FE91; lam-alef is one key of two letters."""
    forms = {}
    for code in range(0xFE80, 0xFEFD):
        form, *points = unicodedata.decomposition(chr(code)).split()
        forms["".join(chr(int(point, 16)) for point in points), form.strip("<>")] = chr(code)
    return forms


FORMS = shaped_letters()


def shape(text: str, rng: Random) -> str:
    """Every letter as the presentation form that its neighbours ask for (Unicode standard 9.2, cursive joining)."""

    def joins_next(unit: str) -> bool:
        return (unit, "initial") in FORMS

    def shaped_word(match: re.Match) -> str:
        units = re.findall(r"(ل[اأإآ]|.)([\u064b-\u0652]*)", match[0])
        out = []
        for at, (unit, marks) in enumerate(units):
            before = at > 0 and joins_next(units[at - 1][0]) and (unit, "final") in FORMS
            after = joins_next(unit) and at + 1 < len(units) and (units[at + 1][0], "final") in FORMS
            form = ("medial" if after else "final") if before else ("initial" if after else "isolated")
            out.append(FORMS.get((unit, form), unit) + marks)
        return "".join(out)

    return re.sub(r"[\u0621-\u0652]+", shaped_word, text)


def respell(text: str, rng: Random) -> str:
    """Hamza left off the alef, ha for ta marbuta, alef maqsura for final ya."""
    return re.sub("ي\\b", "ى", text.translate(SPELLING))


def mark_invisibly(text: str, rng: Random) -> str:
    """Right-to-left marks before, and zero-width non-joiners inside, one word in eight each."""

    def marked(word: str) -> str:
        draw = rng.random()
        return RLM + word if draw < 0.125 else word[:2] + ZWNJ + word[2:] if draw < 0.25 and len(word) > 4 else word

    return "\n".join(" ".join(marked(word) for word in line.split(" ")) for line in text.split("\n"))


def mix_scripts(text: str, rng: Random) -> str:
    lines = text.split("\n")
    for line in rng.sample(FRAGMENTS["latin_lines"], 3):
        lines.insert(rng.randint(0, len(lines)), line)
    return "\n".join(lines)


def add_contacts(text: str, rng: Random) -> str:
    """A line with a telephone number out of a block of zeros, an e-mail address and an address from RFC 5737."""
    name, mailbox = rng.choice(FRAGMENTS["people"])
    block = rng.choice(("+966 50 000 00", "+962 79 000 00", "+20 100 000 00", "+971 50 000 00"))
    phone = f"{block}{rng.randint(10, 99)}"
    if rng.random() < 0.4:
        phone = phone.translate(ARABIC_DIGITS)
    mail = f"{mailbox}{rng.randint(1, 99)}@post.example"
    return f"{text}\nللتواصل مع {name}: جوال {phone} أو البريد {mail} (سجل الدخول من 192.0.2.{rng.randint(1, 254)})"


def misread(text: str, rng: Random) -> str:
    """UTF-8 read as latin-1 or as windows-1252 (bytes that cp1252 lacks become C1 controls, as browsers do it)."""
    raw = text.encode()
    if rng.random() < 0.5:
        return raw.decode("latin-1")
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in raw)


CHANGES: dict[str, Callable[[str, Random], str]] = {
    "edited": edit,
    "tatweel": stretch,
    "tashkeel": vocalise,
    "presentation-forms": shape,
    "spelling": respell,
    "digits": lambda text, rng: text.translate(ARABIC_DIGITS),
    "invisible-marks": mark_invisibly,
    "mojibake": misread,
    "lone-surrogate": lambda text, rng: f"{text} \ud83d",
    "nul": lambda text, rng: text.replace(" ", "\0", 3),
}


def copies(kind: str, base: list[Record], count: int, rng: Random) -> Iterator[Record]:
    """Changed copies of records in `base`, every other one as if from a mirror of the site."""
    if kind == "digits":
        base = [record for record in base if len(re.findall("[0-9]", record.text)) >= 12]
    for number, record in enumerate(rng.sample(base, count)):
        url = record.url.replace("https://", "https://mirror.example/") if number % 2 else record.url
        text = record.text if kind == "exact-duplicate" else CHANGES[kind](record.text, rng)
        yield Record(kind, url, record.title, text)


def foreign(count: int, rng: Random) -> Iterator[Record]:
    rows = read_jsonl(CORPUS / "foreign.jsonl")
    for number in range(count):
        row, other = rows[number % len(rows)], rng.choice(rows)
        url = f"https://{row['language']}-pages.example/{number + 1}"
        lines = [row["title"], *row["paragraphs"], rng.choice(other["paragraphs"])]
        yield Record("foreign", url, row["title"], "\n".join(lines))


def short(sites: list[dict], count: int, rng: Random) -> Iterator[Record]:
    for number in range(count):
        site, text = rng.choice(sites), rng.choice(FRAGMENTS["short_texts"])
        lines = [text] if rng.random() < 0.5 else [*site["header"], text, *site["footer"][2:]]
        yield Record("short", f"https://{site['site']}/p/{number + 1}", site["name"], "\n".join(lines))


def make_records(documents: int, seed: int) -> list[Record]:
    """Exactly `documents` records, shuffled; each kind draws from a generator of its own."""
    sites = {row["site"]: row for row in read_jsonl(CORPUS / "sites.jsonl")}
    pages = read_pages()
    counts = {kind: max(1, round(share * documents / 1000)) for kind, share in SHARES.items()}
    extra = counts["mixed-script"] + counts["contacts"]
    rng = Random(f"{seed} pages")
    new = recombined(pages, documents - len(pages) - sum(counts.values()) + extra, rng)
    dress = {"mixed-script": mix_scripts, "contacts": add_contacts}
    kinds = [kind for kind in dress for _ in range(counts[kind])] + ["recombined"] * (len(new) - extra)
    records = []
    for kind, page in [*(("written", page) for page in pages), *zip(kinds, new, strict=True)]:
        text = with_boilerplate(page, sites[page.site], rng)
        records.append(Record(kind, page.url, page.title, dress[kind](text, rng) if kind in dress else text))
    base = list(records)
    for kind in ["exact-duplicate", *CHANGES]:
        records += copies(kind, base, counts[kind], Random(f"{seed} {kind}"))
    records += foreign(counts["foreign"], Random(f"{seed} foreign"))
    records += short(list(sites.values()), counts["short"], Random(f"{seed} short"))
    for kind in ("invalid-utf8", "invalid-json"):
        records += [Record(kind, *record[1:]) for record in Random(f"{seed} {kind}").sample(base, counts[kind])]
    Random(f"{seed} order").shuffle(records)
    return records


def as_line(number: int, record: Record) -> bytes:
    """The record as a line of the file; what UTF-8 cannot hold stays a \\u escape; invalid kinds are broken here."""
    row = {"id": f"web-{number:05}", "url": record.url, "title": record.title, "text": record.text}
    line = json.dumps(row, ensure_ascii=record.kind == "lone-surrogate")
    if record.kind == "invalid-utf8":
        return line.encode("cp1256", "replace")
    return line[: len(line) // 2].encode() if record.kind == "invalid-json" else line.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the quickstart's web corpus to OUTPUT_DIR/web.jsonl.gz.")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--documents", type=int, default=2000, help="records to write, 500 to 5000 (default 2000)")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    if not 500 <= arguments.documents <= 5000:
        parser.error("--documents must be from 500 to 5000: the hand-written pages carry no more")
    records = make_records(arguments.documents, arguments.seed)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    path = arguments.output_dir / "web.jsonl.gz"
    lines = b"".join(as_line(number, record) + b"\n" for number, record in enumerate(records, 1))
    path.write_bytes(gzip.compress(lines, mtime=0))
    kinds = Counter(record.kind for record in records)
    print(f"{path}: {len(records)} records:", ", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds)))


if __name__ == "__main__":
    main()
