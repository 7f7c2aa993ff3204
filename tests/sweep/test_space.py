from __future__ import annotations

from distilface_st.sweep import Choice, Problems, Range, Space, paper_space, read_space
from distilface_st.sweep.space import grid, listed, one_at_a_time, random_configurations, with_base
from distilface_st.training.config import TrainingConfig


def test_every_mistake_of_a_file_is_found_at_once(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text('warmth = [1]\ntemperature = []\nbatch_size = ["many"]\nlearning_rate = {low = 1, high = 0}\n')
    problems = Problems()
    read_space(file, problems)
    text = " ".join(problems.found)
    for part in ("Unknown: warmth", "temperature is an empty list", "'many'", "low must be below high"):
        assert part in text


def test_an_unreadable_file_is_a_problem(tmp_path):
    problems = Problems()
    read_space(tmp_path / "none.toml", problems)
    (tmp_path / "bad.toml").write_text("temperature = [")
    read_space(tmp_path / "bad.toml", problems)
    assert len(problems.found) == 2


def test_lists_ranges_base_and_seeds_are_read(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text(
        "temperature = [0.05, 1]\nlayers = ['last', [0, -1]]\nseed = [1, 2]\n"
        "learning_rate = {low = 1e-5, high = 1e-3, log = true, points = 3}\n[base]\nmax_length = 16\n"
    )
    problems = Problems()
    space, base, seeds = read_space(file, problems)
    assert problems.found == []
    assert (base, seeds) == ({"max_length": 16}, (1, 2))
    assert space.dimensions[0] == Choice("temperature", (0.05, 1.0))
    assert listed(space).dimensions[2] == Choice("learning_rate", (1e-5, 1e-4, 1e-3))
    assert len(grid(space)) == 2 * 2 * 3
    assert space.changes({"temperature": 1.0, "layers": "0,-1", "learning_rate": 1e-4})["layers"] == (0, -1)


def test_the_papers_design_is_the_base_and_single_changes():
    points = one_at_a_time(with_base(paper_space(6), TrainingConfig.preset("paper-default")))
    assert len(points) == 1 + 4 + 2 + 2 + 13
    first = points[0]
    assert first == {
        "temperature": 0.05,
        "learning_rate": 5e-5,
        "batch_size": 64,
        "pooling": "first_last mean",
    }
    assert all(sum(point[name] != first[name] for name in first) == 1 for point in points[1:])


def test_random_points_are_different_and_more_begin_with_the_same():
    space = Space((Choice("batch_size", (64, 128)), Range("temperature", 0.01, 1.0, log=True)))
    assert random_configurations(space, 5, seed=0)[:3] == random_configurations(space, 3, seed=0)
    assert len(random_configurations(Space(space.dimensions[:1]), 5, seed=0)) == 2
