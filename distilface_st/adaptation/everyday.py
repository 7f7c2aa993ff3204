"""Everyday sentences, made from parts: some to judge by what a model knew before, and others to rehearse it with."""

from __future__ import annotations

from itertools import product

_JUDGED_SUBJECTS = (
    *("a man", "a young woman", "two children", "a small dog", "the old teacher", "a group of tourists"),
    *("the president", "a large company", "scientists", "the football team", "my neighbour", "an angry crowd"),
)
_JUDGED_PREDICATES = (
    *("is playing a guitar", "are running across a field", "bought a new house", "announced the results on Monday"),
    *("cooked dinner in the kitchen", "fell asleep on the sofa", "signed an agreement with the union"),
    *("discovered something in the water", "was arrested by the police", "won the match", "closed the door"),
    *("did not want to leave", "travelled to Paris by train"),
)

_SUBJECTS = (
    *("the boy", "a little girl", "a tall person", "an old woman", "the cat", "a brown horse", "my brother"),
    *("her father", "the manager", "the minister", "a student", "a doctor", "the airline", "a farmer", "the driver"),
    *("a police officer", "the singer", "a player", "another man", "the committee", "a bird", "the court"),
)
_PREDICATES = (
    *("is riding a bicycle", "is cutting a tomato", "is dancing on a stage", "is sitting at a table", "fell ill"),
    *("is holding a baby", "raised the prices", "lost the election", "has agreed to a deal", "said it would appeal"),
    *("is jumping into a lake", "is reading a newspaper", "is walking along the beach", "was killed in an accident"),
    *("opened a new school", "found a treatment for the disease", "is talking on the phone", "is eating an apple"),
    *("was injured in the blast", "rejected the proposal", "is waiting for the bus", "does not like the weather"),
    *("painted the wall red", "is driving too fast", "has no money", "asked a difficult question", "forgot the keys"),
    *("is climbing a mountain", "is protesting against the war", "reported higher profits", "should see a dentist"),
    *("is playing chess", "is washing the dishes", "is standing in the snow", "broke a window", "never answered"),
)
_QUESTIONS = (
    *("How do I {}?", "What is the best way to {}?", "Can I {} at home?", "Should I {}?", "I want to {}."),
    *("It is hard to {}.", "Why would anyone {}?", "You must not {}."),
)
_AIMS = (
    *("learn a language", "cook rice", "fix a broken phone", "lose weight", "travel with a dog", "write a letter"),
    *("grow tomatoes", "save money", "find a job", "remove a stain from a shirt", "sleep better", "choose a camera"),
    *("train a puppy", "boil an egg", "paint a door", "repair a bike", "make friends", "plan a wedding", "read faster"),
    *("move to another country", "clean a stove", "buy insurance", "build a fence", "start a company"),
)
_HEADLINES = (
    *("{} kills dozens in {}", "{} hits {}", "fears of {} in {} grow", "leaders warn of {} in {}"),
    *("thousands flee {} in {}", "{}: no end to {}"),
)
_EVENTS = ("earthquake", "car bomb", "flood", "heavy storm", "plane crash", "strike", "fire", "virus outbreak")
_PLACES = ("China", "Syria", "Egypt", "the Philippines", "Pakistan", "Texas", "London", "South Africa", "Israel")
_MEANINGS = (
    "the act of {}",
    "a person who is good at {}",
    "a place for {}",
    "the state of no longer {}",
    "a tool for {}",
)
_ACTS = (
    *("moving from one place to another", "making something smaller", "giving money to others", "speaking in public"),
    *("joining two things", "keeping animals", "cutting wood", "measuring time", "losing control", "hiding the truth"),
    *("growing plants", "teaching children", "winning a fight", "looking after the sick", "selling goods"),
)


def _joined(*parts: tuple[str, ...]) -> list[str]:
    return [f"{' '.join(chosen)}." for chosen in product(*parts)]


def _filled(patterns: tuple[str, ...], *parts: tuple[str, ...]) -> list[str]:
    return [pattern.format(*chosen) for pattern, *chosen in product(patterns, *parts)]


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


JUDGED = tuple(map(_capital, _joined(_JUDGED_SUBJECTS, _JUDGED_PREDICATES)))
"""Sentences about which a model is asked whether it judges them as before; none of them is rehearsed."""

REHEARSED = tuple(
    map(
        _capital,
        (
            *_joined(_SUBJECTS, _PREDICATES),
            *_filled(_QUESTIONS, _AIMS),
            *_filled(_HEADLINES, _EVENTS, _PLACES),
            *_filled(_MEANINGS, _ACTS),
        ),
    )
)
"""Sentences with which what a model knew is rehearsed while it learns."""
