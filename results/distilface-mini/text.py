"""The text of distilface-mini: Wikipedia sentences, WordNet's glosses and examples, and a small grammar.

    python results/distilface-mini/text.py ../shared/data /usr/share/wordnet text.txt

WordNet 3.0 (Princeton's licence, permissive) is Debian's package ``wordnet-base``. Wikipedia has no captions,
headlines or forum talk; a grammar of word lists says such things in families of near paraphrases, and edits of
Wikipedia sentences (a clause left out, words dropped, a word exchanged for a WordNet neighbour) make pairs that are
nearly alike. What each of them means is for the teachers to say. Any sentence that also stands in an STS set is left
out.
"""

from __future__ import annotations

import csv
import gzip
import random
import re
import sys
from collections import Counter
from pathlib import Path

from distilface_st.utils.files import atomic_file

WIKI, NEIGHBOURS, EDITED, GRAMMAR = 110_000, 45_000, 30_000, 20_000
"""Single Wikipedia sentences; pairs of neighbours; sentences edited thrice each; families of about four."""

PEOPLE = """a man|a woman|a boy|a girl|a child|a little kid|two men|two women|three boys|a young couple|a person
a group of people|several children|an old man|an elderly woman|a toddler|a baby|a chef|a musician|a worker|a soldier
a police officer|a teenager|some students|a family|a guy|a lady|a cyclist|a farmer|a tourist""".replace("\n", "|")
ANIMALS = """a dog|a cat|two dogs|a brown dog|a white horse|a horse|a bird|a kitten|a puppy|a cow|a monkey|an elephant
a lion|a group of birds|a black and white dog|a sheep|a panda|a squirrel|a fish|a duck""".replace("\n", "|")
DEEDS = """playing the guitar|playing a violin|playing the piano|playing a flute|playing soccer|playing football
playing chess|playing cards|riding a bike|riding a bicycle|riding a horse|riding a motorcycle|driving a car
cutting an onion|chopping vegetables|slicing a tomato|peeling a potato|peeling an apple|frying an egg|cooking rice
mixing dough|eating lunch|eating a sandwich|drinking coffee|pouring milk into a glass|washing dishes|cleaning a window
sweeping the floor|reading a book|writing a letter|typing on a keyboard|talking on the phone|singing a song|dancing
running|jogging|walking|walking a dog|climbing a rock|climbing a ladder|swimming|diving into the water|surfing a wave
skiing down a hill|skating|throwing a ball|kicking a ball|catching a fish|shooting a gun|lifting weights
doing push-ups|brushing her hair|putting on makeup|shaving|sleeping|sitting on a bench|standing in line
waiting for a train|pushing a cart|carrying a box|opening a door|painting a wall|drawing a picture|taking a photo
fixing a bicycle|cutting wood with a saw|mowing the lawn|planting a tree|feeding a baby|holding an umbrella|laughing
crying|smiling|waving|clapping|praying|arguing|hugging|folding paper|sewing a dress|flying a kite
building a sandcastle|loading a truck|shopping""".replace("\n", "|")
BEASTS = """running across the grass|jumping over a fence|sleeping on a couch|playing with a ball|catching a frisbee
eating from a bowl|drinking water|lying in the sun|swimming in a pool|chasing a cat|barking at a stranger
licking its paw|climbing a tree|standing in a field|walking along the shore|shaking off water|sitting by a window
rolling in the mud|pulling a sled|looking at the camera""".replace("\n", "|")
PLACES = """in the park|on the beach|in the kitchen|on a stage|in a street|at home|in the rain|near a lake|in the snow
on a roof|outside|indoors|in front of a crowd|at night|in a garden|next to a car|in a field|at the market|by the river
on a bridge|in an office|under a tree|in the city|at a table""".replace("\n", "|")
COUNTRIES = """Iran|Syria|Israel|China|Russia|India|Pakistan|Egypt|Iraq|Turkey|Germany|France|Japan|Brazil|Nigeria
Mexico|Libya|Ukraine|Kenya|Greece|Spain|Italy|Canada|Australia|Indonesia|Yemen|Somalia|Afghanistan|Cuba|Poland""".replace(
    "\n", "|"
)
WHO = """president|prime minister|foreign minister|army|police|court|opposition leader|parliament|central bank
government|health officials|rebels|protesters|finance minister|supreme court|the UN|the EU|the White House""".replace(
    "\n", "|"
)
DISASTERS = """earthquake|bomb attack|suicide bombing|train crash|bus accident|flood|landslide|factory fire
plane crash|building collapse|storm|typhoon|mine explosion|ferry sinking|shooting|wildfire|air strike""".replace(
    "\n", "|"
)
SAYS = "says|warns|denies|confirms|claims|reports|announces|admits|rejects talk that|insists".split("|")
NEWS = """talks will resume next week|the election will be held in May|sanctions hurt the economy|troops will withdraw
the ceasefire is holding|the deal is close|prices will rise|the virus has spread|hostages were freed
the budget will be cut|a new law is needed|the attack was planned|borders will stay closed|the strike is over
oil exports fell|the peace plan failed|growth will slow|the suspect was arrested""".replace("\n", "|")
TASKS = """learn to play the piano|fix a leaking tap|cook rice|lose weight|train a puppy|write a cover letter
paint a room|get rid of ants|remove a stain from a carpet|choose a laptop|save money for a trip|grow tomatoes indoors
sharpen a knife|clean a cast iron pan|stop a cat from scratching the sofa|sleep better at night|store fresh bread
boil an egg|prepare for a job interview|replace a bike chain|keep bananas fresh|learn a new language|publish a paper
ask my boss for a raise|tune a guitar|start a small business|install a new hard drive|take photos at night
patch a hole in the wall|make good coffee""".replace("\n", "|")
ASKS = """What is the best way to {}?|How do I {}?|How can I {}?|Is there an easy way to {}?
Does anyone know how to {}?|Any tips on how to {}?|You can {} without much effort.|It is not hard to {}.
I would not try to {} on your own.|It depends on why you want to {}.|What do I need to {}?|Should I {}?
Why is it so hard to {}?""".replace("\n", "|")
MARKETS = """{c} shares {m} {n} percent to {a}.{b} in early trading.|{c} stock {m} {n} percent on {d}.
Shares of {c} {m} {a} cents to ${a}.{b} on {d}.|The {i} index {m} {a} points, or {n} percent, to {a}{b}.
The {i} {m} {n} percent, while the broader market was little changed.""".replace("\n", "|")


def pick(rng: random.Random, words: str) -> str:
    return rng.choice(words.split("|"))


def captions(rng: random.Random) -> list[str]:
    """A scene, and what is said of nearly the same scene."""
    animals = rng.random() < 0.25
    whos, deeds = (ANIMALS, BEASTS) if animals else (PEOPLE, DEEDS)
    who, deed, place = pick(rng, whos), pick(rng, deeds), pick(rng, PLACES)

    def say(who: str, deed: str, place: str) -> str:
        plural = re.match(r"(two|three|several|some) ", who)
        verb = "are" if plural else "is"
        form = rng.random()
        if form < 0.5:
            text = f"{who} {verb} {deed}" + (f" {place}" if rng.random() < 0.5 else "")
        elif form < 0.7:
            text = f"{who} {deed} {place}"
        elif form < 0.8:
            text = f"there {verb} {who} {deed} {place}"
        elif form < 0.9:
            text = f"{place}, {who} {verb} {deed}"
        else:
            text = f"{who} {verb} not {deed}"
        return text[0].upper() + text[1:] + rng.choice([".", ".", ".", ""])

    variants = [
        say(who, deed, place),
        say(who, deed, pick(rng, PLACES)),
        say(pick(rng, whos), deed, place),
        say(who, pick(rng, deeds), place),
    ]
    return [say(who, deed, place), *rng.sample(variants, 3)]


def headlines(rng: random.Random) -> list[str]:
    """A piece of news, and nearly the same piece."""
    country, other = pick(rng, COUNTRIES), pick(rng, COUNTRIES)
    if rng.random() < 0.5:
        disaster, dead = pick(rng, DISASTERS), rng.randint(2, 90)
        forms = [
            f"At least {dead} killed in {country} {disaster}",
            f"{disaster.capitalize()} in {country} kills {dead}",
            f"{dead} dead, {dead * 2} injured after {disaster} in {country}",
            f"{country} {disaster} death toll rises to {dead + rng.randint(1, 30)}",
            f"{disaster.capitalize()} kills {rng.randint(2, 90)} in {other}",
            f"Dozens missing after {pick(rng, DISASTERS)} in {country}",
        ]
    else:
        who, says, news = pick(rng, WHO), rng.choice(SAYS), pick(rng, NEWS)
        forms = [
            f"{country} {who} {says} {news}",
            f"{news.capitalize()}, {country} {who} {says}",
            f"{other} {who} {rng.choice(SAYS)} {news}",
            f"{country} {pick(rng, WHO)} {says} {news}",
            f"{country} {who} {says} {pick(rng, NEWS)}",
        ]
    return rng.sample(forms, 4)


def questions(rng: random.Random) -> list[str]:
    """A question or an answer as in forums, and others about the same thing or of the same form."""
    task, form = pick(rng, TASKS), pick(rng, ASKS)
    return [
        form.format(task),
        pick(rng, ASKS).format(task),
        pick(rng, ASKS).format(task),
        form.format(pick(rng, TASKS)),
    ]


def markets(rng: random.Random) -> list[str]:
    """Market news: numbers that differ, movements that agree or not."""
    values = {
        "c": pick(rng, "Acme|Northern Steel|Globex|Delta Foods|Pioneer|Hudson Oil|Vertex|Orion|Summit Bank|Atlas Air")
    }
    values |= {"i": pick(rng, "technology-laced|blue-chip|broad|small-cap|benchmark|industrial")}

    def say(move: str, form: str) -> str:
        numbers = {"n": f"{rng.uniform(0.1, 9):.1f}", "a": str(rng.randint(11, 99)), "b": str(rng.randint(10, 99))}
        day = pick(rng, "Monday|Tuesday|Wednesday|Thursday|Friday")
        return form.format(**values, **numbers, m=move, d=day)

    up, down = rng.choice(["rose", "climbed", "gained", "jumped"]), rng.choice(["fell", "slid", "dropped", "lost"])
    form = pick(rng, MARKETS)
    return [say(up, form), say(down, form), say(up, form), say(up, pick(rng, MARKETS))]


def wordnet(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Glosses and examples, and for each word the words of its synset and of its nearest kind."""
    texts: list[str] = []
    members: dict[tuple[str, str], list[str]] = {}
    parents: list[tuple[list[str], tuple[str, str]]] = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            data, _, gloss = line.partition(" | ")
            fields = data.split()
            count = int(fields[3], 16)
            words = [fields[4 + 2 * i].replace("_", " ").split("(")[0] for i in range(count)]
            members[part[0], fields[0]] = words
            pointers = fields[5 + 2 * count :]
            parents += [(words, (part[0], pointers[i + 1])) for i in range(len(pointers)) if pointers[i] == "@"][:1]
            examples = re.findall(r'"([^"]+)"', gloss)
            definition = gloss.split('"')[0].strip(" ;")
            if len(definition) > 15:
                texts.append(definition[0].upper() + definition[1:])
            texts += [example[0].upper() + example[1:] for example in examples if len(example) > 12]
    near: dict[str, list[str]] = {}
    for words, key in parents:
        for word in words:
            near.setdefault(word, []).extend(
                [*(w for w in words if w != word), *(w for w in members.get(key, []) if w != word)]
            )
    return texts, {word: sorted(set(others)) for word, others in near.items() if others and " " not in word}


def edits(sentence: str, near: dict[str, list[str]], rng: random.Random) -> list[str]:
    """A sentence shortened, thinned and with words exchanged."""
    words = sentence.split()
    clauses = re.split(r"(?<=[,;]) | (?=and |but |which |who |where )", sentence)
    half = (
        clauses[0].rstrip(",;") if len(clauses) > 1 and len(clauses[0]) > 25 else " ".join(words[: len(words) * 2 // 3])
    )
    thinned = " ".join(word for word in words if rng.random() > 0.25)
    places = [i for i, word in enumerate(words) if word.strip(".,;").lower() in near]
    exchanged = list(words)
    for place in rng.sample(places, min(len(places), rng.randint(1, 3))):
        bare = words[place].strip(".,;")
        exchanged[place] = words[place].replace(bare, rng.choice(near[bare.lower()]))
    return [half.rstrip(".") + ".", thinned, " ".join(exchanged)]


def sts_sentences(folder: Path) -> set[str]:
    """Every sentence of the STS sets, as :func:`bare` has it."""
    found: set[str] = set()
    for path in folder.glob("STS*-en-test/STS.input.*.txt"):
        found |= {bare(cell) for line in path.read_text(encoding="utf-8").splitlines() for cell in line.split("\t")[:2]}
    for path in (folder / "STSBenchmark").glob("sts-*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            found |= {bare(cell) for row in rows for cell in row[5:7]}
    return found


def bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def main() -> None:
    data, dictionary, output = map(Path, sys.argv[1:4])
    rng = random.Random(1)
    with gzip.open(data / "wiki" / "sentences.txt.gz", "rt", encoding="utf-8") as file:
        wiki = file.read().splitlines()
    with gzip.open(data / "wiki" / "neighbours.tsv.gz", "rt", encoding="utf-8") as file:
        neighbours = [line.rstrip("\n").split("\t")[:2] for line in file]
    texts, near = wordnet(dictionary)
    groups: list[tuple[str, list[str]]] = [("wikipedia", [sentence]) for sentence in wiki[:WIKI]]
    groups += [("neighbours", pair) for pair in neighbours[:NEIGHBOURS]]
    groups += [("edits", [s, *edits(s, near, rng)]) for s in wiki[WIKI : WIKI + EDITED]]
    groups += [("wordnet", [text]) for text in texts]
    makers = (captions, captions, captions, headlines, headlines, questions, markets)
    groups += [("grammar", rng.choice(makers)(rng)) for _ in range(GRAMMAR)]
    rng.shuffle(groups)
    left_out, seen, counts = sts_sentences(data / "sts"), set(), Counter()
    with atomic_file(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for kind, group in groups:
            for sentence in group:
                key = bare(sentence)
                if key in left_out:
                    counts["left out: in an STS set"] += 1
                elif key and key not in seen:
                    seen.add(key)
                    counts[kind] += 1
                    file.write(" ".join(sentence.split()) + "\n")
    for kind, count in counts.items():
        print(f"{count:8,}  {kind}")


if __name__ == "__main__":
    main()
