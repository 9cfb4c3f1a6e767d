from holdfast.core.search import TERMS_MAX, WORD_CHARACTERS_MAX, has_terms, terms_of, words


def test_words_are_letters_and_digits_without_letter_case() -> None:
    assert words("Fix foo_bar in src/main.py!") == ["fix", "foo", "bar", "in", "src", "main", "py"]
    assert words("Straße STRASSE, Zu\u0308rich") == ["strasse", "strasse", "zürich"]


def test_characters_of_scripts_without_spaces_and_pictures_stand_alone() -> None:
    assert words("日本語 text👍ok") == ["日", "本", "語", "text", "👍", "ok"]


def test_a_long_word_counts_as_several() -> None:
    assert words("x" * (2 * WORD_CHARACTERS_MAX + 1)) == ["x" * WORD_CHARACTERS_MAX] * 2 + ["x"]


def test_terms_are_bounded_and_each_once() -> None:
    assert terms_of("b B a") == (("b", "a"), (("b",), ("a",)))
    assert len(terms_of(" ".join(f"w{n}" for n in range(1000))).of_text) == TERMS_MAX
    assert terms_of(" \t ") == ((), ())
    assert terms_of("!? a") == (("!?", "a"), (("a",),))


def test_a_text_has_a_term_where_its_words_stand_together_and_the_last_may_go_on() -> None:
    text = words("the file src/main.py of src")
    assert has_terms(text, terms_of("src/ma"))
    assert has_terms(text, terms_of("of main.py"))
    assert not has_terms(text, terms_of("src.py"))
    assert not has_terms(text, terms_of("main/src"))
    assert not has_terms(text, terms_of("ain"))
    assert not has_terms(text, terms_of("!"))
