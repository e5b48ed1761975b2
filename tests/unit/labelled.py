"""Rewritings whose defects are known, made from sentences in two wordings: 200 good ones, and any number of each kind of defect.

A sentence has slots for what a rewriting must keep. The original gets the first wording with the mistakes of web text, the good
rewriting the second; a defect is put into a good rewriting, and labels say which guards it breaks. Even numbers are for tuning, odd
ones are held out. Seeded: the same numbers give the same pairs.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

SENTENCES = """
اعلنت وزارة التعليم في {place} عن قبول {number} طالب جديد|أعلنت وزارة التعليم في {place} قبول {number} طالب جديد
وصل الوفد الى {place} يوم {day} لحضور المؤتمر الدولي للطاقه|وصل الوفد يوم {day} إلى {place} لحضور المؤتمر الدولي للطاقة
قال {person} ان المشروع يخدم سكان القريه كلهم|ذكر {person} أن المشروع يخدم جميع سكان القرية
بلغت ارباح الشركه {number} مليون في الربع الاول|بلغت أرباح الشركة في الربع الأول {number} مليون
انطلقت البطوله في شهر {month} بمشاركة {number} فريق من دول مختلفه|انطلقت البطولة في {month} بمشاركة {number} فريقاً من دول مختلفة
نشرت المجله البحث كاملا على {url} لمن اراد الاطلاع عليه|نشرت المجلة البحث كاملاً على {url} لمن أراد الاطلاع
تعاقدت البلديه مع شركة {latin} لتطوير شبكة المياه|تعاقدت البلدية مع شركة {latin} على تطوير شبكة المياه
ولد الكاتب في {place} ونشأ في اسره فقيره تحب القراءه|ولد الكاتب في {place}، ونشأ في أسرة فقيرة تحب القراءة
يعمل {person} طبيبا في المستشفى الجامعي منذ {number} سنوات|يعمل {person} طبيباً في المستشفى الجامعي منذ {number} سنوات
تبدأ الدوره التدريبيه يوم {day} وتستمر {number} اسابيع|تبدأ الدورة التدريبية يوم {day} وتستمر {number} أسابيع
اظهرت دراسه حديثه ان النوم الكافي يحسن الذاكره لدى الاطفال|أظهرت دراسة حديثة أن النوم الكافي يحسّن ذاكرة الأطفال
كتب {person} روايته الاولى في مدينة {place} بعد عودته من الدراسه|كتب {person} روايته الأولى في مدينة {place} بعد أن عاد من الدراسة
يستخدم المهندسون برنامج {latin} لرسم المخططات قبل البناء|يستخدم المهندسون برنامج {latin} في رسم المخططات قبل البناء
هطلت الامطار على {place} في {month} وسالت الاوديه|هطلت الأمطار على {place} في {month}، فسالت الأودية
تجدون التفاصيل في موقع الوزاره {url} مع جميع الشروط|تجدون التفاصيل والشروط كلها في موقع الوزارة {url}
زرع الفلاحون {number} شجره زيتون على سفوح الجبل|زرع الفلاحون على سفوح الجبل {number} شجرة زيتون
افتتح {person} المعرض وشكر المتطوعين على جهودهم|افتتح {person} المعرض، وشكر للمتطوعين جهودهم
سجل اللاعب هدفين في الدقائق الاخيره من المباراه|سجّل اللاعب هدفين في الدقائق الأخيرة من المباراة
تحتاج الخلطه الى كوب دقيق وملعقه صغيره من الملح|تحتاج الخلطة إلى كوب من الدقيق وملعقة صغيرة من الملح
انتقل العمال من {place} الى {place} بحثا عن الرزق|انتقل العمال من {place} إلى {place} طلباً للرزق
يقام السوق كل {day} في الساحه القديمه وسط البلده|يقام السوق كل {day} في الساحة القديمة وسط البلدة
حصل الفريق على جائزه قدرها {number} دولار من مؤسسة {latin}|نال الفريق من مؤسسة {latin} جائزة قدرها {number} دولار
توفي المؤرخ في {month} عن عمر يناهز {number} عاما|توفي المؤرخ في {month} عن {number} عاماً
يشرح {person} في محاضرته كيف تنتقل الحراره عبر المعادن|يشرح {person} في محاضرته كيفية انتقال الحرارة عبر المعادن
الجو حار قوي النهارده والناس كلها رايحه البحر|الجو حار قوي النهارده، والناس كلها رايحة البحر
تقع القلعه على تله تشرف على النهر من جهة الشرق|تقع القلعة على تلة تشرف على النهر من الشرق
اشترت الجمعيه {number} كتاب من معرض {place} الدولي|اشترت الجمعية {number} كتاباً من معرض {place} الدولي
يعود تاريخ المسجد الى القرن الثاني للهجره كما تذكر المصادر|يعود تاريخ المسجد، كما تذكر المصادر، إلى القرن الثاني للهجرة
سافرت {woman} الى {place} في {month} لاكمال دراستها|سافرت {woman} إلى {place} في {month} لإكمال دراستها
تقول {woman} ان التعليم حق لكل طفل في كل مكان|ترى {woman} أن التعليم حق لكل طفل في كل مكان
يحتوي المتحف على {number} قطعه اثريه نادره من عصور مختلفه|يضم المتحف {number} قطعة أثرية نادرة من عصور مختلفة
اطلقت شركة {latin} هاتفا جديدا بكاميرا افضل وبطاريه اكبر|أطلقت شركة {latin} هاتفاً جديداً بكاميرا أفضل وبطارية أكبر
"""
WORDINGS = [(first, second) for first, _, second in (line.partition("|") for line in SENTENCES.strip().splitlines())]
PLACES = "القاهرة بغداد دمشق الرياض الدوحة تونس مسقط الخرطوم فرنسا ألمانيا تركيا الهند اليابان لبنان الأردن الكويت البرازيل إسبانيا"
MEN = (
    "الدكتور سامي النجار|محمد العتيبي|خالد بن سعيد|أحمد الزهراني|يوسف الحداد|الشيخ عبد الرحمن الخطيب|إبراهيم المصري"
    "|المهندس وائل جابر|عمر الشامي|فيصل بن ناصر|الأستاذ حسان البيطار|طارق الجندي"
)
UNLISTED_MEN = "غيث الدوسري|نضال عواد|صخر المهيري"
"""Given names that the guards' list has not."""
WOMEN = "ليلى الحداد|فاطمة الزهراء|مريم الصالح|سلمى العامري|الدكتورة هند القاسم|زينب الموسوي|تماضر الخوري"
MONTHS = "يناير فبراير أبريل يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر رمضان شوال"
DAYS = "الأحد الاثنين الثلاثاء الأربعاء الخميس الجمعة السبت"
LATIN = "Microsoft Siemens Toyota Samsung Oracle AutoCAD Nokia Airbus Bosch Huawei"
URLS = "https://example.com/a1 https://journal.example.org/2020/7 www.ministry.example https://data.example.net/x?id=3"
SLOTS = {
    "place": PLACES.split(),
    "person": [*MEN.split("|"), *UNLISTED_MEN.split("|")],
    "woman": WOMEN.split("|"),
    "month": MONTHS.split(),
    "day": DAYS.split(),
    "latin": LATIN.split(),
    "url": URLS.split(),
}
GUARDS_OF_SLOT = {
    "number": "Number",
    "place": "Name",
    "person": "Name",
    "woman": "Name",
    "latin": "Name",
    "month": "Date",
    "day": "Date",
    "url": "Url",
}
SEED = 20261127
GOOD = 200


@dataclass(frozen=True)
class Pair:
    """An original, its rewriting, how the engine ended, and the guards that the rewriting breaks."""

    origin: str
    rewritten: str
    labels: frozenset[str] = frozenset()
    finish_reason: str = "Stop"


@dataclass
class Draft:
    """A pair before it is text: sentences in two wordings, and the values of their slots on both sides."""

    sentences: list[tuple[str, str]]
    values: list[list[tuple[str, str]]]
    """Of each sentence, (slot, value) in the order of its first wording."""
    draw: random.Random
    changed: list[list[tuple[str, str]]] = field(default_factory=list)
    """The values in the rewriting, where they differ."""

    def pair(self, *labels: str) -> Pair:
        before = [_fill(first, values) for (first, _), values in zip(self.sentences, self.values, strict=True)]
        after = [_fill(second, values) for (_, second), values in zip(self.sentences, self.changed or self.values, strict=True)]
        return Pair(_noisy(" . ".join(before), self.draw), ". ".join(after) + ".", frozenset(labels))


def good(number: int) -> Pair:
    """A good rewriting; every fifth leaves a good original as it is, every seventh takes an advertisement out."""
    draft = _draft(number)
    pair = draft.pair()
    if number % 5 == 0:
        return replace(pair, origin=pair.rewritten)
    if number % 7 == 0:
        return replace(pair, origin=f"{pair.origin}\nللحجز اتصل الآن 0501234567\nشارك المقال")
    return pair


def defective(kind: str, number: int) -> Pair:
    """A rewriting with one defect of a kind, of those in `DEFECTS`."""
    return _with_shape(DEFECTS[kind](_draft(1000 * (1 + sorted(DEFECTS).index(kind)) + number)))


def pairs(kind: str, count: int) -> Iterator[Pair]:
    return (defective(kind, number) for number in range(count))


def _with_shape(pair: Pair) -> Pair:
    """With the labels that can be counted: less than half or more than 1.6 times the letters, a tenth of them in another script."""
    if pair.labels & {"Refusal", "Empty"}:
        return pair
    before, after = (_letters(text) for text in (pair.origin, pair.rewritten))
    labels = set() if 0.5 <= sum(after) / sum(before) <= 1.6 else {"LengthRatio"}
    labels |= {"ScriptDrift"} if abs(after[0] / sum(after) - before[0] / sum(before)) > 0.1 else set()
    return replace(pair, labels=pair.labels | labels)


def _letters(text: str) -> tuple[int, int]:
    """(Arabic letters, other letters) outside of addresses."""
    plain = [char for word in text.split() if "://" not in word and "www." not in word for char in word if char.isalpha()]
    arabic = sum("\u0600" <= char <= "\u06ff" for char in plain)
    return arabic, len(plain) - arabic


def _draft(number: int) -> Draft:
    draw = random.Random(f"{SEED}/{number}")
    chosen = draw.sample(WORDINGS, draw.randint(4, 7))
    used: set[str] = set()
    values = [[(slot, _value(slot, used, draw)) for slot in _slots(first)] for first, _ in chosen]
    return Draft(chosen, values, draw)


def _slots(wording: str) -> list[str]:
    return [part.partition("}")[0] for part in wording.split("{")[1:]]


def _value(slot: str, used: set[str], draw: random.Random) -> str:
    """One that the text has not yet."""
    if slot == "number":
        value = str(draw.choice([draw.randint(3, 99), draw.randint(100, 999), draw.randint(1000, 99_999)]))
    else:
        value = draw.choice([item for item in SLOTS[slot] if item not in used] or SLOTS[slot])
    if value in used and slot == "number":
        return _value(slot, used, draw)
    used.add(value)
    return value


def _fill(wording: str, values: list[tuple[str, str]]) -> str:
    """Slots of one name take their values in order, as a wording may turn the slots of different names around."""
    left = list(values)
    for slot in _slots(wording):
        value = next(item for item in left if item[0] == slot)
        left.remove(value)
        wording = wording.replace(f"{{{slot}}}", value[1], 1)
    return wording


def _noisy(text: str, draw: random.Random) -> str:
    """With mistakes of web text, none in what must be kept: digits of the other row, marks repeated, tatweel in a common word."""
    if draw.random() < 0.4:
        text = " ".join(word if "://" in word or "www" in word else word.translate(_ARABIC_DIGITS) for word in text.split(" "))
    if draw.random() < 0.4:
        text = text.replace(" . ", " !!! ", 1)
    if draw.random() < 0.3:
        text = text.replace("الجامعات", "الجامعـــات").replace("المشروع", "المشـــروع")
    return text.replace(" ان ", "  ان ", 1) if draw.random() < 0.5 else text


_ARABIC_DIGITS = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


def _with_slot(draft: Draft, *slots: str) -> tuple[int, int]:
    """Where a slot of these names is; the draft gets a sentence with one where it has none."""
    while True:
        places = [(i, j) for i, values in enumerate(draft.values) for j, (slot, _) in enumerate(values) if slot in slots]
        if places:
            return draft.draw.choice(places)
        first, second = draft.draw.choice([both for both in WORDINGS if set(_slots(both[0])) & set(slots)])
        used = {value for values in draft.values for _, value in values}
        draft.sentences.append((first, second))
        draft.values.append([(slot, _value(slot, used, draft.draw)) for slot in _slots(first)])


def _changed(*slots: str) -> Callable[[Draft], Pair]:
    """A value gives way to another one."""

    def make(draft: Draft) -> Pair:
        i, j = _with_slot(draft, *slots)
        slot, _ = draft.values[i][j]
        used = {value for values in draft.values for _, value in values}
        draft.changed = [list(values) for values in draft.values]
        draft.changed[i][j] = (slot, _value(slot, used, draft.draw))
        kind = GUARDS_OF_SLOT[slot]
        return draft.pair(f"{kind}Lost", f"{kind}Invented")

    return make


def _lost(*slots: str) -> Callable[[Draft], Pair]:
    """A value is gone from its sentence, or is told in general words."""

    def make(draft: Draft) -> Pair:
        i, j = _with_slot(draft, *slots)
        slot, _ = draft.values[i][j]
        general = {"number": "عدة", "place": "البلاد", "person": "المسؤول", "woman": "الباحثة", "month": "الموسم", "day": "الأسبوع"}
        draft.changed = [list(values) for values in draft.values]
        draft.changed[i][j] = (slot, general.get(slot, ""))
        return draft.pair(f"{GUARDS_OF_SLOT[slot]}Lost")

    return make


def _invented(kind: str, *additions: str) -> Callable[[Draft], Pair]:
    """Something is added to a sentence that the original does not say."""

    def make(draft: Draft) -> Pair:
        pair = draft.pair()
        addition = draft.draw.choice([item for item in additions if item.split()[-1] not in pair.origin])
        head, _, tail = pair.rewritten.partition(". ")
        return replace(pair, rewritten=f"{head} {addition}. {tail}", labels=frozenset({kind}))

    return make


def _repetition(draft: Draft) -> Pair:
    pair = draft.pair()
    loop = f" {draft.draw.choice(pair.rewritten.rstrip('.').split('. '))}." * draft.draw.randint(3, 12)
    return replace(pair, rewritten=pair.rewritten + loop, labels=frozenset({"Repetition"}))


def _leak(draft: Draft) -> Pair:
    pair = draft.pair()
    heads = (
        "إليك النص بعد التنقيح:",
        "النص المنقح:",
        "Rewritten text:",
        "Here is the polished version of the text:",
        "**النص المُعاد صياغته**",
        "فيما يلي النص المصحح:",
    )
    return replace(pair, rewritten=f"{draft.draw.choice(heads)}\n{pair.rewritten}", labels=frozenset({"ScaffoldLeak"}))


def _refusal(draft: Draft) -> Pair:
    said = (
        "عذراً، لا أستطيع إعادة صياغة هذا النص لأنه يخالف سياسة الاستخدام.",
        "أعتذر، لا يمكنني المساعدة في هذا الطلب.",
        "I'm sorry, but I can't assist with that request.",
        "بصفتي نموذجاً لغوياً، لا يمكنني تقديم هذا المحتوى.",
        "لا يمكنني تلبية هذا الطلب.",
        "آسف، لا أستطيع تعديل هذا النص.",
    )
    return replace(draft.pair(), rewritten=draft.draw.choice(said), labels=frozenset({"Refusal"}))


def _unsafe(draft: Draft) -> Pair:
    pair = draft.pair()
    said = (
        "وهؤلاء حثالة البشر",
        "يا كلب لا تقرأ هذا",
        "وكلهم يستحقون الموت",
        "هذا ابن الكلب لا يفهم",
        "what the fuck is this",
        "وهم أحفاد القردة والخنازير",
    )
    return replace(
        pair, rewritten=pair.rewritten.replace(". ", f" {draft.draw.choice(said)}. ", 1), labels=frozenset({"UnsafeAddition"})
    )


def _translated(draft: Draft) -> Pair:
    """The whole text in another language; what the original had is gone with it."""
    said = (
        "The ministry announced that the project serves all people of the village and that work will soon begin with engineers.",
        "Le ministère a annoncé que le projet sert tous les habitants du village et que les travaux vont bientôt commencer.",
        "وزارت اعلام کرد که این پروژه به همه مردم روستا خدمت می‌کند و گفت که کارها به زودی با چندین مهندس آغاز می‌شود و پایان می‌یابد",
        "وزارت نے اعلان کیا ہے کہ یہ منصوبہ گاؤں کے تمام لوگوں کے لیے ہے اور کام جلد شروع ہو گا جس میں بہت سے انجینئر شامل ہیں",
    )
    before = {GUARDS_OF_SLOT[slot] for values in draft.values for slot, _ in values}
    text = draft.draw.choice(said)
    labels = {"LanguageDrift", "WordLost", *(f"{kind}Lost" for kind in before)}
    return replace(draft.pair(), rewritten=text, labels=frozenset(labels))


def _half_translated(draft: Draft) -> Pair:
    pair = draft.pair()
    added = "The rest of the report describes the situation in the region."
    return replace(pair, rewritten=f"{pair.rewritten} {added}")


def _shortened(draft: Draft) -> Pair:
    """A summary of one sentence."""
    pair = draft.pair()
    kept = min(range(len(draft.sentences)), key=lambda i: len(draft.sentences[i][1]))
    lost = {f"{GUARDS_OF_SLOT[slot]}Lost" for i, values in enumerate(draft.values) if i != kept for slot, _ in values}
    text = _fill(draft.sentences[kept][1], draft.values[kept])
    return replace(pair, rewritten=f"{text}.", labels=frozenset({"WordLost", *lost}))


def _extended(draft: Draft) -> Pair:
    """As much again, which nobody wrote."""
    pair = draft.pair()
    others = [second for first, second in WORDINGS if not _slots(first)]
    shuffled = draft.draw.sample(others, len(others))
    added = [sentence for sentence in shuffled if not any(sentence[:12] in second for _, second in draft.sentences)]
    text = f"{pair.rewritten} {'. '.join(added)}. {'. '.join(_INVENTIONS)}."
    return replace(pair, rewritten=text)


_INVENTIONS = (
    "ومن الجدير بالذكر أن هذا الأمر كان محل نقاش طويل بين المختصين والمهتمين بالشأن العام على مدى سنوات دون الوصول إلى اتفاق",
    "ويرى كثير من المراقبين أن المستقبل يحمل فرصاً كبيرة لمن يحسن الاستعداد له بالعلم والعمل والصبر والتعاون بين جميع الأطراف",
    "كما أن التجارب السابقة علمت الناس أن الطريق إلى النجاح لا يخلو من عقبات وأن تجاوزها يحتاج إلى إرادة قوية وتخطيط سليم",
    "ولا شك في أن التقنية الحديثة غيرت حياة الناس تغييراً كبيراً وجعلت التواصل بينهم أسهل من أي وقت مضى في التاريخ المعروف للبشرية",
)


def _another_text(draft: Draft) -> Pair:
    """A text about something else altogether."""
    pair = draft.pair()
    before = {f"{GUARDS_OF_SLOT[slot]}Lost" for values in draft.values for slot, _ in values}
    count = max(1, min(len(_INVENTIONS), round(len(pair.origin) / len(_INVENTIONS[0]))))
    return replace(pair, rewritten=". ".join(_INVENTIONS[:count]), labels=frozenset({"WordLost", *before}))


def _truncated(draft: Draft) -> Pair:
    """Cut at the token limit, before the last mark."""
    pair = draft.pair()
    return replace(pair, rewritten=pair.rewritten[:-1], finish_reason="Length", labels=frozenset({"Truncated"}))


def _empty(draft: Draft) -> Pair:
    return replace(draft.pair(), rewritten=draft.draw.choice(["", " ", "\n", "...", "—"]), labels=frozenset({"Empty"}))


DEFECTS: dict[str, Callable[[Draft], Pair]] = {
    "NumberLost": _lost("number"),
    "NumberInvented": _invented("NumberInvented", "بكلفة 7450 ريال", "منذ 1987", "بنسبة 63.5", "وعددهم 318"),
    "NumberChanged": _changed("number"),
    "DateLost": _lost("month", "day"),
    "DateInvented": _invented("DateInvented", "في مارس", "في حزيران", "صباح الأحد", "مساء الخميس", "في ذي الحجة"),
    "DateChanged": _changed("month", "day"),
    "NameLost": _lost("place", "person", "woman", "latin"),
    "NameInvented": _invented("NameInvented", "في المغرب", "في طوكيو", "بحضور محمود الشريف", "بدعم من Google", "في كندا",
                              "بإشراف نوال السعداوي", "حسب Reuters"),
    "NameChanged": _changed("place", "person", "woman", "latin"),
    "UrlLost": _lost("url"),
    "UrlInvented": _invented("UrlInvented", "كما في https://invented.example/page", "كما في www.invented.example"),
    "UrlChanged": _changed("url"),
    "Repetition": _repetition,
    "ScaffoldLeak": _leak,
    "Refusal": _refusal,
    "UnsafeAddition": _unsafe,
    "LanguageDrift": _translated,
    "ScriptDrift": _half_translated,
    "TooShort": _shortened,
    "TooLong": _extended,
    "WordLost": _another_text,
    "Truncated": _truncated,
    "Empty": _empty,
}  # fmt: skip
"""By kind of defect; a kind may break several guards, which its labels say."""
