"""Captions made wrong: another number in the place of one, or two words that changed places."""

import re

_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")  # of one, grammar would tell that it is wrong
_FIGURES = tuple(str(number) for number in range(2, 11))
# a whole word: no part of a longer one, of 10.5 or of 4-5
_NUMBER = re.compile(rf"(?<![\w.,:/'-])(?:{'|'.join((*_NUMBERS, *_FIGURES))})(?!\w|[.,:/'-]\w)", re.IGNORECASE)
_WORD = re.compile(r"(?<![\w'-])[^\W\d_]+(?![\w'-])")
_ARTICLES = ("a", "an", "the", "its", "his", "her", "their", "this", "that", "these", "those", "some", "any")
_PREPOSITIONS = (
    "of",
    "in",
    "on",
    "at",
    "by",
    "to",
    "from",
    "with",
    "without",
    "into",
    "onto",
    "over",
    "under",
    "near",
    "for",
    "up",
    "down",
)
_OTHERS = ("and", "or", "but", "as", "is", "are", "was", "were", "be", "been", "has", "have", "had", "it", "there", "he", "she", "they")
_SMALL = frozenset((*_ARTICLES, *_PREPOSITIONS, *_OTHERS, "while", "who", "which"))  # out of place, grammar alone would tell


def another_number(text: str, drawn: int) -> str | None:
    """The text with one of its numbers, two to ten or 2 to 10, exchanged for another of its kind; None where it has none.

    >>> another_number("Three kittens often listen", 0), another_number("ten men and 4 dogs", 1), another_number("often", 0)
    ('Two kittens often listen', 'ten men and 2 dogs', None)
    """
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    drawn, place = divmod(drawn, len(numbers))
    spot = numbers[place]
    word = spot.group()
    others = [each for each in (_FIGURES if word.isdigit() else _NUMBERS) if each != word.lower()]
    return text[: spot.start()] + _cased(others[drawn % len(others)], word) + text[spot.end() :]


def exchanged(text: str, drawn: int) -> str | None:
    """The text with two different words, none of the small ones, in each other's place; None where it has no two.

    >>> exchanged("a dog chases the cat", 0), exchanged("a dog", 0), exchanged("Dog and dog", 0)
    ('a chases dog the cat', None, None)
    """
    words = [spot for spot in _WORD.finditer(text) if spot.group().lower() not in _SMALL]
    pairs = [(one, two) for at, one in enumerate(words) for two in words[at + 1 :] if one.group().lower() != two.group().lower()]
    if not pairs:
        return None
    one, two = pairs[drawn % len(pairs)]
    first, second = _cased(two.group(), one.group()), _cased(one.group(), two.group())
    return text[: one.start()] + first + text[one.end() : two.start()] + second + text[two.end() :]


def _cased(word: str, like: str) -> str:
    """A word as large as the one whose place it takes.

    >>> _cased("two", "THREE"), _cased("Dog", "cat"), _cased("cat", "Dog")
    ('TWO', 'dog', 'Cat')
    """
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word[:1].lower() + word[1:]
