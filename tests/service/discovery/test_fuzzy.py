"""Fuzzy name matching: tolerates one typo in a long name, ranks better matches first, ignores case and separators."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from registry.service.discovery.fuzzy import (
    DESCRIPTION_WEIGHT,
    MIN_NAME_LENGTH,
    MIN_RATIO,
    NAME_WEIGHT,
    TAG_WEIGHT,
    name_score,
    normalize,
    text_score,
)

# Query, name, lowest and highest score of the match.
MATCHED = {
    "the name": ("weather", "weather", 100, 100),
    "in another case": ("WEATHER", "Weather", 100, 100),
    "with another separator": ("get weather.now", "get_weather-now", 100, 100),
    "folded by Unicode's rules": ("STRASSE", "stra\u00dfe", 100, 100),
    "its beginning": ("weather", "weather-forecast", 96.25, 99.99),
    "one letter of it": ("w", "weather", 96.25, 99.99),
    "nothing of it": ("", "weather", 96.25, 99.99),
    "the beginning of a word": ("report", "weather_reports", 92.5, 96.24),
    "inside a word": ("port", "weather_report", 88.75, 92.49),
    "a wrong letter": ("farecast", "forecast", 85, 88.74),
    "two swapped letters": ("forecsat", "forecast", 85, 88.74),
    "a missing letter": ("forecst", "forecast", 85, 88.74),
    "an extra letter": ("foreccast", "forecast", 85, 88.74),
    "two missing letters": ("forcst", "forecast", 85, 88.74),
    "two slips in a longer name": ("waether_forcast", "weather_forecast", 85, 88.74),
}

# Query and name.
LEFT_OUT = {
    "another name": ("weather", "translation"),
    "two slips in a short name": ("farecsat", "forecast"),
    "a slip in a name of 7": ("waether", "weather"),
    "the name with more behind it": ("weather_forecast", "weather"),
    "the words the other way round": ("forecast_weather", "weather_forecast"),
    "no name": ("weather", ""),
}


@pytest.mark.parametrize(("query", "name", "least", "most"), MATCHED.values(), ids=MATCHED)
def test_a_name_matches(query: str, name: str, least: float, most: float) -> None:
    """Its score lies in the band of its kind of match."""
    assert least <= (name_score(query, name) or 0) <= most


@pytest.mark.parametrize(("query", "name"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_name_does_not_match(query: str, name: str) -> None:
    """In a short name, a different letter makes a different word."""
    assert name_score(query, name) is None


letters = st.text(st.characters(codec="ascii", categories=["L", "N"]) | st.sampled_from("_-. "), max_size=30)
names = letters.filter(lambda name: len(name) >= MIN_NAME_LENGTH)


@given(names, st.integers(0, 29), st.sampled_from("qz7_"), st.sampled_from(["wrong", "swapped", "missing", "extra"]))
def test_one_typo_in_a_long_name_is_tolerated(name: str, place: int, letter: str, slip: str) -> None:
    """The typo is a wrong, swapped, missing or extra letter, at any place."""
    place %= len(name) - 1
    head, here, tail = name[:place], name[place], name[place + 1 :]
    query = {
        "wrong": head + letter + tail,
        "swapped": head + tail[0] + here + tail[1:],
        "missing": head + tail,
        "extra": head + letter + here + tail,
    }[slip]

    found = name_score(query, name)

    assert found is not None
    assert MIN_RATIO <= found <= 100
    assert found == name_score(query.swapcase(), name.replace("-", "."))


@given(letters, letters)
def test_a_score_identifies_the_kind_of_match(query: str, name: str) -> None:
    """Equal, prefix, substring, similar, none: each band lies above the next."""
    folded, other = normalize(query), normalize(name)
    found = name_score(query, name) or 0

    assert found == 0 or MIN_RATIO <= found <= 100
    assert (found == 100) == (folded == other)
    assert (found >= 96.25) == other.startswith(folded)
    assert (found >= 88.75) == (folded in other)
    assert found == 0 or folded in other or len(other) >= MIN_NAME_LENGTH


def test_a_better_kind_of_match_ranks_higher() -> None:
    """The order is: the name, its beginning, the beginning of a word, a substring, a similar name."""
    names = [
        "weathre_report",
        "bad_weather_report",
        "badweather_report",
        "weather_report_for_a_whole_week",
        "weather_report_2",
        "report",
        "weather_report",
    ]

    scores = {name: name_score("Weather Report", name) for name in names}

    assert sorted((name for name in names if scores[name]), key=lambda name: -(scores[name] or 0)) == [
        "weather_report",
        "weather_report_2",
        "weather_report_for_a_whole_week",
        "bad_weather_report",
        "badweather_report",
        "weathre_report",
    ]


def texts(name: str, tags: tuple[str, ...] = (), description: str = "") -> list[tuple[float, str]]:
    """Return the weighted texts that a search compares."""
    return [(NAME_WEIGHT, name), *((TAG_WEIGHT, tag) for tag in tags), (DESCRIPTION_WEIGHT, description)]


PROSE = "Answers questions about the weather,\nanywhere: forecasts for ten days - and a translation."


def test_a_name_counts_more_than_a_tag_and_a_tag_more_than_a_description() -> None:
    """The order holds for every kind of match."""
    in_name = text_score("forecast", texts("weather_forecsat"))
    in_tag = text_score("forecast", texts("weather", ("forecast",), PROSE))
    in_loose_tag = text_score("forecast", texts("weather", ("farecast",), PROSE))
    in_prose = text_score("forecast", texts("weather", ("rain",), "forecast"))

    assert in_name is not None
    assert in_tag is not None
    assert in_loose_tag is not None
    assert in_prose is not None
    assert in_name > in_tag > in_loose_tag > in_prose > 0


FOUND = [
    "weather",
    "WEATHER",
    "weather anywhere",
    "forecsats",
    "translaton",
    "ten days",
    "days, ten",
    "get translation",
]
NOT_FOUND = ["mail", "wether", "translate", "weather mail", "mail weather", "forecast mailbox"]


@pytest.mark.parametrize("query", FOUND)
def test_a_search_finds_words(query: str) -> None:
    """The words may stand in any order and in any of the texts, with a typo in a long one."""
    assert text_score(query, texts("get_it", ("days,",), PROSE)) is not None


@pytest.mark.parametrize("query", NOT_FOUND)
def test_a_search_requires_every_word(query: str) -> None:
    """One missing word is enough to fail."""
    assert text_score(query, texts("get_it", ("days,",), PROSE)) is None


def test_words_in_a_name_score_higher_than_the_phrase_in_a_description() -> None:
    """The better of the two ways to match counts."""
    apart = text_score("weather forecast", texts("forecast-weather", (), "the weather forecast"))
    alone = text_score("weather forecast", texts("report", (), "the weather forecast"))

    assert apart is not None
    assert alone is not None
    assert apart > 85 > alone


@given(letters, st.lists(st.tuples(st.sampled_from([1.0, 0.5]), letters)))
def test_a_search_scores_at_least_as_high_as_its_best_text(query: str, weighted: list[tuple[float, str]]) -> None:
    """Matches of single words can only raise the score of the whole query."""
    whole = [weight * found for weight, text in weighted if (found := name_score(query, text)) is not None]

    found = text_score(query, weighted)

    assert found == text_score(query.swapcase(), weighted)
    assert (found or 0.0) >= max(whole, default=0.0)


@pytest.mark.parametrize("query", ["", "_", " - "])
def test_a_query_without_words_matches_as_text(query: str) -> None:
    """It matches every text that contains it."""
    assert text_score(query, texts("a - b")) is not None
    assert text_score(query, []) is None


def test_long_prose_is_searched() -> None:
    """Unlike a name, its normalized text is not cached."""
    prose = "filler " * 1_400 + "translation"

    assert text_score("translatoin", texts("x", (), prose)) is not None
    assert name_score("filler translation", prose) is not None


@given(st.text(), st.text())
def test_any_text_can_be_compared(query: str, name: str) -> None:
    """The texts include lone surrogates."""
    assume(query)

    assert MIN_RATIO <= (name_score(query, name) or 100) <= 100
