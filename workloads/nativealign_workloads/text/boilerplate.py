"""Lines that belong to the page, not to its text. Called by clean, the rules engine and the guards.

Thin on purpose: whole lines only, by a fixed short list of Arabic and English web furniture, and, asked for separately,
advertisements (a call to action together with a contact or a price).
"""

import re
from collections.abc import Callable

from nativealign_workloads.text.fold import fold, key
from nativealign_workloads.text.personal import find_emails, find_phones, find_urls

_FURNITURE_LINES = """
شارك|مشاركة|شاركها|شارك المقال|شارك هذا المقال|شارك الخبر|شارك على فيسبوك|شارك على تويتر
مشاركة عبر واتساب|انشر
طباعة|اطبع|حفظ|تغريد|غرد|ارسل الى صديق|ارسال بالبريد
اقرا ايضا|اقرا المزيد|المزيد|قراءة المزيد|مواضيع ذات صلة|مقالات ذات صلة|اخبار ذات صلة|الاكثر قراءة
الرئيسية|الصفحة الرئيسية|اتصل بنا|من نحن|عن الموقع
خريطة الموقع|سياسة الخصوصية|شروط الاستخدام|الشروط والاحكام|اتفاقية الاستخدام
تسجيل الدخول|تسجيل|دخول|انشاء حساب|حساب جديد|نسيت كلمة المرور
تسجيل الخروج|بحث|ابحث|القائمة|التالي|السابق|العودة الى الاعلى
التعليقات|اضف تعليقا|اضف تعليق|اترك تعليقا|لا توجد تعليقات|اعلان|مساحة اعلانية|موافق|قبول الكل|رفض الكل|تابعنا|تابعونا
اشترك في النشرة البريدية|اشترك في نشرتنا البريدية|حمل التطبيق|جاري التحميل
share|share this|share this article|share on facebook|share on twitter|share on whatsapp|tweet|print|email this|save
read more|read also|more|related articles|related posts|most read|home|home page|contact us|about us|about|site map|sitemap
privacy policy|terms of use|terms of service|terms and conditions|cookie policy
log in|login|sign in|sign up|register|log out
create account|forgot password|search|menu|next|previous|back to top|comments|leave a comment|add a comment|no comments
advertisement|sponsored|accept|accept all|reject all
accept cookies|follow us|subscribe to our newsletter|download the app|loading
skip to content|skip to main content
"""
_FURNITURE = frozenset(key(line) for row in _FURNITURE_LINES.strip().splitlines() for line in row.split("|"))

_PLATFORMS = (
    "فيسبوك|فيس بوك|تويتر|انستغرام|انستقرام|انستجرام|يوتيوب|تيليجرام|تليجرام|تلغرام|واتساب|سناب|لينكد|قناتنا|صفحتنا|صفحاتنا|حسابنا|"
    "حساباتنا|مواقع التواصل|وسائل التواصل|جوجل|google|facebook|twitter|youtube|instagram|telegram|whatsapp|linkedin"
)
_WEEKDAYS = "الاحد|الاثنين|الثلاثاء|الاربعاء|الخميس|الجمعه|السبت"
# On line keys: folded words joined by one space
_FURNITURE_STARTS = re.compile(
    r"(?:\d{4} )?(?:جميع الحقوق محفوظه|كل الحقوق محفوظه|حقوق النشر (?:والطبع )?(?:محفوظه|\d{4})|"
    r"copyright (?:c )?\d{4}|all rights reserved|"
    r"يستخدم (?:هذا )?الموقع ملفات تعريف الارتباط|نستخدم ملفات تعريف الارتباط|"
    r"(?:this (?:site|website)|we) uses? cookies|by continuing to (?:use|browse)|"
    rf"(?:تابعونا|تابعنا) علي (?:{_PLATFORMS})|follow us on|(?:عدد المشاهدات|عدد القراءات)(?: \d|$)|"
    rf"اخر تحديث(?: (?:في |بتاريخ |يوم |للصفحه |الساعه )?(?:\d|{_WEEKDAYS})|$)|"
    r"(?:اعجبك الموضوع )?شارك هذا (?:المقال|الخبر)(?: (?:علي|مع|عبر)\b|$)|اقرا ايضا\b)"
)
_MENU_SEPARATOR = re.compile(r"\s[|›»·•]\s")
MENU_ITEMS = 4
"""From so many short items on, a line with separators is a menu."""
MENU_ITEM_WORDS = 4

MAX_LINE_CHARACTERS = 400
MAX_FURNITURE_WORDS = 25
MAX_ADVERTISEMENT_WORDS = 40

_CALLS = re.compile(
    r"\b(?:اتصل(?:وا)? (?:الان|بنا|علي)|اطلب(?:ها|ه)? الان|اشتر(?:ي|وا)? الان|اشترك(?:وا)? الان|تسوق(?:وا)? الان|"
    r"احجز(?:وا)? الان|سجل(?:وا)? الان|لا تفوت(?:وا)? (?:الفرصه|العرض)|عرض خاص|عروض حصريه|التوصيل مجاني|توصيل مجاني|"
    r"call now|order now|buy now|shop now|book now|subscribe now|limited offer|special offer|free delivery)\b"
)
"""With a phone number, an address or a web link."""
_CONTACTS = re.compile(
    r"\b(?:للحجز|للاعلان(?:ات)?|للطلب|للتواصل|للاستفسار|واتساب|واتس اب|خصم(?:ا)? (?:يصل|خاص|حصري)|خصومات|discount|whatsapp)\b"
)
"""With a phone number or an address: news have web links, too."""
_OFFERS = re.compile(
    r"\b(?:عرض خاص|عروض حصريه|خصم(?:ا)? (?:يصل|خاص|حصري)|خصومات (?:تصل|خاصه|حصريه|حتي|كبري)|special offer|limited offer)\b"
    r"|\d ?[%٪] off\b"
)
"""With a percentage: taxes have discounts, too."""
_STRONG_CALLS = re.compile(
    r"\b(?:(?:اطلب(?:ها|ه)?|اشتر(?:ي|وا)?|تسوق(?:وا)?|احجز(?:وا)?) الان|لا تفوت(?:وا)? (?:الفرصه|العرض)|"
    r"(?:order|buy|shop|book) now)\b"
)


def is_furniture(line: str) -> bool:
    """Whether the whole line is web furniture: sharing, cookies, copyright, navigation, login and the like."""
    return 0 < len(line) <= MAX_LINE_CHARACTERS and (_is_menu(line) or _is_furniture_key(key(line)))


def _is_menu(line: str) -> bool:
    items = _MENU_SEPARATOR.split(line)
    return len(items) >= MENU_ITEMS and all(len(item.split()) <= MENU_ITEM_WORDS for item in items)


def is_advertisement(line: str) -> bool:
    """Whether the line sells: "order now", an offer with a percentage, or a call to action with a number, an address or a link."""
    if not 0 < len(line) <= MAX_LINE_CHARACTERS:
        return False
    folded = fold(line)
    if len(folded.split()) > MAX_ADVERTISEMENT_WORDS:
        return False
    if _STRONG_CALLS.search(folded) or (("%" in folded or "٪" in folded) and _OFFERS.search(folded)):
        return True
    calls = _CALLS.search(folded)
    if calls or _CONTACTS.search(folded):
        return bool(find_phones(line) or find_emails(line) or (calls and find_urls(line)))
    return False


def strip_boilerplate(text: str) -> tuple[str, list[str]]:
    """(text without furniture lines, the removed lines)."""
    return without_lines(text, is_furniture)


def strip_advertisements(text: str) -> tuple[str, list[str]]:
    """(text without advertisement and furniture lines, the removed lines)."""
    return without_lines(text, lambda line: is_furniture(line) or is_advertisement(line))


def without_lines(text: str, unwanted: Callable[[str], bool]) -> tuple[str, list[str]]:
    """(text without the lines that are unwanted, those lines); an empty line is never asked about."""
    kept: list[str] = []
    removed: list[str] = []
    for line in text.split("\n"):
        (removed if line and unwanted(line) else kept).append(line)
    return ("\n".join(kept), removed) if removed else (text, [])


def _is_furniture_key(line_key: str) -> bool:
    if line_key in _FURNITURE:
        return True
    return line_key.count(" ") < MAX_FURNITURE_WORDS and _FURNITURE_STARTS.match(line_key) is not None
