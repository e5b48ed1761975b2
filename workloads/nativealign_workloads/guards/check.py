"""The verdicts on one rewritten chunk, and what to do about them.

Called by annotate (pairs that fail are no training data) and rewrite (every chunk). Pure: original, rewriting, finish reason and
code of conduct go in; the list of broken guards comes out, in the fixed order of this file.

| guard | value | source of the idea |
|---|---|---|
| Refusal | 1 when the engine declined, or a refusal phrase is new | audit of the released pairs |
| Empty | 1 when no word is left of a text that had some | |
| Truncated | 1 when the answer was cut at its token limit | |
| ScaffoldLeak | number of new scaffold phrases and marks of the prompt | audit: "Arabic text / Analysis" in the targets |
| Repetition | share of the 8-grams of words that repeat earlier ones, beyond the original's | loops of small models |
| UnsafeAddition | number of new insults and obscenities | |
| LengthRatio | letters of the rewriting over letters of the original | |
| LanguageDrift | 1 when the language is another | translation, also into a language of Arabic script |
| ScriptDrift | absolute change of the share of Arabic letters | translation of a part |
| NumberLost | share of the original's numbers that are gone | knowledge preservation |
| NumberInvented | share of the rewriting's numbers that are new | hallucination |
| DateLost, DateInvented | share of the original's months and weekdays that are gone, of the rewriting's that are new | |
| NameLost, NameInvented | the same of names: countries, cities, persons by given name, title or بن, words in Latin letters | |
| UrlLost, UrlInvented | share of the original's web addresses that are gone, of the rewriting's that are new | |
| WordLost | share of the original's distinct words that are gone: a text that says something else | |

What the code of conduct declares as removed (advertisements and furniture, masked personal data) is taken out of the original
before anything is compared. Unchanged text is a statistic (`unchanged`), no defect.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nativealign_workloads.conduct.model import Action, Conduct
from nativealign_workloads.engines.protocol import FinishReason
from nativealign_workloads.guards import measures
from nativealign_workloads.text.language import language
from nativealign_workloads.text.names import dates
from nativealign_workloads.text.personal import find_urls
from nativealign_workloads.text.script import letters


@dataclass(frozen=True, slots=True)
class Verdict:
    """A broken guard: what was measured, the limit it passed, and the action that the code of conduct wants."""

    guard: str
    value: float
    limit: float
    action: Action


MOST_WORDS_LOST = 0.5
"""A text that keeps more of its words is in the same language; to ask the model about each takes longer than all else."""

_STRENGTH = [Action.ORIGINAL, Action.RETRY, Action.EXPERT, Action.DROP]


def check(conduct: Conduct, origin: str, rewritten: str, finish_reason: FinishReason) -> list[Verdict]:
    """Broken guards, [] for a rewriting that may stand.

    A refused, empty or unchanged answer is not measured further: every other number would say the same thing again.
    """
    if verdict := _refusal(conduct, origin, rewritten, finish_reason):
        return [verdict]
    kept = measures.without_declared(conduct, origin)
    if not measures.folded_words(rewritten):
        return [Verdict("Empty", 1, 0, conduct.guards.empty.action)] if measures.folded_words(kept) else []
    answer = _truncated(conduct, finish_reason)
    if unchanged(origin, rewritten):
        return answer
    return answer + _leaks(conduct, origin, rewritten) + _preservation(conduct, origin, kept, rewritten)


def decide(
    verdicts: Sequence[Verdict], before: Sequence[Verdict] = (), *, retry: bool = True, expert: bool = True
) -> Action | None:
    """The strongest action among the verdicts (Drop > Expert > Retry > Original); None when there are none.

    `retry` and `expert` say whether that way is still open. Where it is not, the original stands, but never that of a chunk which
    this or an earlier answer (`before`) refused: it may be the harmful one, and is dropped.
    """
    if not verdicts:
        return None
    action = max((v.action for v in verdicts), key=_STRENGTH.index)
    if (action is Action.RETRY and not retry) or (action is Action.EXPERT and not expert):
        action = Action.ORIGINAL
    refused = any(verdict.guard == "Refusal" for verdict in (*before, *verdicts))
    return Action.DROP if action is Action.ORIGINAL and refused else action


def unchanged(origin: str, rewritten: str) -> bool:
    """Whether the rewriting is the original but for white space at its ends."""
    return origin.strip() == rewritten.strip()


def _refusal(conduct: Conduct, origin: str, rewritten: str, finish_reason: FinishReason) -> Verdict | None:
    refused = finish_reason == "Refusal" or measures.new_phrases(conduct.forbidden_phrases.refusal, origin, rewritten)
    return Verdict("Refusal", 1, 0, conduct.guards.refusal.action) if refused else None


def _truncated(conduct: Conduct, finish_reason: FinishReason) -> list[Verdict]:
    return [Verdict("Truncated", 1, 0, conduct.guards.truncated.action)] if finish_reason == "Length" else []


def _leaks(conduct: Conduct, origin: str, rewritten: str) -> list[Verdict]:
    guards = conduct.guards
    leaks = measures.new_phrases((*conduct.forbidden_phrases.scaffold, conduct.worker_instructions), origin, rewritten)
    leaks += measures.new_marks(origin, rewritten)
    verdicts = [Verdict("ScaffoldLeak", leaks, 0, guards.scaffold_leak.action)] if leaks else []
    repetition = max(0.0, measures.repeated_share(rewritten) - measures.repeated_share(origin))
    unsafe = measures.new_words(conduct.forbidden_phrases.unsafe, origin, rewritten)
    verdicts += [Verdict("UnsafeAddition", unsafe, 0, guards.unsafe_addition.action)] if unsafe else []
    return verdicts + _above("Repetition", repetition, guards.repetition.limit, guards.repetition.action)


def _preservation(conduct: Conduct, origin: str, kept: str, rewritten: str) -> list[Verdict]:
    guards = conduct.guards
    kept_after = measures.without_declared(conduct, rewritten)
    words_lost = measures.new_share(measures.content_words(kept), set(measures.folded_words(rewritten)))
    shares = (
        ("ScriptDrift", guards.script_drift, measures.script_drift(kept, kept_after)),
        ("NumberLost", guards.number_lost, measures.lost_share(measures.numbers(kept), measures.numbers(rewritten))),
        ("NumberInvented", guards.number_invented, measures.new_share(measures.numbers(rewritten), measures.numbers(origin))),
        ("DateLost", guards.date_lost, measures.new_share(dates(kept), dates(rewritten))),
        ("DateInvented", guards.date_invented, measures.new_share(dates(rewritten), dates(origin))),
        ("NameLost", guards.name_lost, measures.lost_names(kept, rewritten)),
        ("NameInvented", guards.name_invented, measures.invented_names(origin, kept_after)),
        ("UrlLost", guards.url_lost, measures.missing_share(find_urls(kept), rewritten)),
        ("UrlInvented", guards.url_invented, measures.missing_share(find_urls(rewritten), origin)),
        ("WordLost", guards.word_lost, words_lost),
    )
    verdicts = _length(conduct, kept, kept_after)
    if words_lost > MOST_WORDS_LOST and _another_language(kept, kept_after):
        verdicts.append(Verdict("LanguageDrift", 1, 0, guards.language_drift.action))
    for name, guard, value in shares:
        verdicts += _above(name, value, guard.limit, guard.action)
    return verdicts


def _length(conduct: Conduct, kept: str, kept_after: str) -> list[Verdict]:
    guard = conduct.guards.length_ratio
    ratio = measures.length_ratio(kept, kept_after)
    if guard.minimum <= ratio <= guard.maximum:
        return []
    return [Verdict("LengthRatio", ratio, guard.minimum if ratio < guard.minimum else guard.maximum, guard.action)]


def _another_language(before: str, after: str) -> bool:
    return min(letters(before), letters(after)) >= measures.MIN_LETTERS and language(before) != language(after)


def _above(name: str, value: float, limit: float, action: Action) -> list[Verdict]:
    return [Verdict(name, value, limit, action)] if value > limit else []
