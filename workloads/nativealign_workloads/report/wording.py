"""Numbers and names in plain words. Used by the views and, as filters, by the templates."""

import math
from typing import Any

from nativealign_api.status import duration

GUARDS = {
    "LengthRatio": "the rewriting is much shorter or longer than the original",
    "LanguageDrift": "the text is in another language",
    "ScriptDrift": "the share of Arabic letters changed, as in a translation",
    "NumberLost": "numbers of the original are gone",
    "NumberInvented": "numbers that the original does not have",
    "DateLost": "months or weekdays of the original are gone",
    "DateInvented": "months or weekdays that the original does not have",
    "NameLost": "names of the original are gone",
    "NameInvented": "names that the original does not have",
    "UrlLost": "web addresses of the original are gone",
    "UrlInvented": "web addresses that the original does not have",
    "WordLost": "words of the original are gone",
    "Repetition": "the rewriting repeats itself",
    "UnsafeAddition": "insults or obscenities that the original does not have",
    "ScaffoldLeak": "headings of the answer itself are in the text",
    "Refusal": "the engine declined to rewrite",
    "Truncated": "the answer was cut at its length limit",
    "Empty": "nothing was left of the text",
    "NoAnswer": "the engine gave no answer",
}
STATES = {
    "Rewritten": "replaced by the rewriting",
    "Unchanged": "returned as it was",
    "Original": "rewriting rejected, original kept",
    "Dropped": "removed from the corpus",
}
OUTCOMES = {
    "out": "kept",
    "heldOut": "held out",
    "filtered": "filtered",
    "duplicate": "duplicates",
    "quarantined": "quarantined",
}
MEASURES = {
    "changed": ("Documents changed", "Share of the sampled documents of which at least one character changed."),
    "numbersKept": (
        "Numbers kept",
        "Share of a document's numbers that its rewriting still has; what the code of conduct removes does not count.",
    ),
    "namesKept": (
        "Names kept",
        "Share of a document's places, persons and names in Latin letters that its rewriting still has.",
    ),
    "lengthRatio": ("Length ratio", "Letters after rewriting over letters before."),
    "perplexity": ("Perplexity", "Of the model named in spec.assess.perplexityModel; lower means more predictable text."),
    "toxicity": ("Toxicity", "Probability of the toxic labels of the classifier in spec.assess.toxicityModel."),
    "judgeFormat": ("Judge: format", "1 to 10, higher is better."),
    "judgeAccuracy": ("Judge: accuracy", "1 to 10, higher is better."),
    "judgeContentModeration": ("Judge: content moderation", "1 to 10, higher is better."),
    "judgeAdvertisementRemoval": ("Judge: advertisement removal", "1 to 10, higher is better."),
    "judgeLevelOfDetail": ("Judge: level of detail", "1 to 10, higher is better."),
}
GATES = {
    "maxFallbackPercent": ("chunks that kept their original", "at most"),
    "maxDroppedPercent": ("chunks dropped", "at most"),
    "minNumberPreservationPercent": ("numbers kept", "at least"),
    "minNamePreservationPercent": ("names kept", "at least"),
    "maxToxicityPercent": ("mean toxicity after rewriting", "at most"),
    "minJudgeScore": ("mean score of the judge", "at least"),
}
METRICS = {
    "accuracy": "accuracy",
    "macroF1": "macro F1",
    "categoryMean": "mean of categories",
    "judgeScore": "judge, 1 to 10",
    "bitsPerByte": "bits per byte, lower is better",
}
VIEWS = {
    "subjectMean": "mean over subjects instead of questions",
    "distinct": "each question once, contradictory ones left out",
    "alwaysYes": "constant answer: always yes",
    "alwaysNo": "constant answer: always no",
    "intact": "without the questions that were overwritten in the published data",
    "micro": "plain accuracy over all questions",
    "harmlessness": "harmlessness",
    "helpfulness": "helpfulness",
}


def effect(name: str, found: dict[str, Any]) -> str:
    """What rewriting did to a measure, with its size and certainty."""
    change = found["difference"]
    mean, low, high = (math.exp(change[side]) if name == "perplexity" else change[side] for side in ("mean", "low", "high"))
    what = "Ratio of the geometric means" if name == "perplexity" else "Mean difference"
    d = found["d"]
    size = f"; Cohen's d {number(d['value'])} ({number(d['low'])} to {number(d['high'])})" if d["value"] is not None else ""
    shares = f"lower in {percent(found['lower'], 1)}, higher in {percent(found['higher'], 1)} of {count(found['pairs'])} documents"
    return f"{what} {number(mean)} ({number(low)} to {number(high)}){size}; {shares}."


def agreement(found: dict[str, Any]) -> str:
    """How well a judge agrees with itself when the two texts change places."""
    kappa = found["kappa"]
    told = (
        "no score varies"
        if kappa["value"] is None
        else f"{number(kappa['value'])} ({number(kappa['low'])} to {number(kappa['high'])})"
    )
    return (
        f"Asked in both orders: weighted kappa {told}; {percent(found['within1'], 1)} of {count(found['pairs'])} documents at most "
        f"1 apart; with the rewriting first {number(found['difference'])} higher."
    )


def count(value: float | None) -> str:
    """1234567 -> `1,234,567`; a dash for nothing."""
    return "–" if value is None else f"{value:,.0f}"


def number(value: float | None) -> str:
    """Three significant digits below 1, else four, with separators from a thousand on."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 1:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def percent(part: float, whole: float) -> str:
    """`84.3 %`; a part that is not all never reads 100 %, and one that is not nothing never 0 %."""
    if not whole:
        return "–"
    value = 100 * part / whole
    if 0 < value < 0.05:
        return "< 0.1 %"
    return "> 99.9 %" if 99.95 <= value < 100 else f"{value:.1f} %"


def points(value: float | None, sign: bool = False) -> str:
    """A fraction of 1 in hundredths: 0.318182 -> `31.8`."""
    return "–" if value is None else f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 60 else duration(value)


def size(value: float) -> str:
    """Bytes with a decimal unit, as `ls --si` has them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"


def short(digest: str | None) -> str:
    return (digest or "–")[:8]
