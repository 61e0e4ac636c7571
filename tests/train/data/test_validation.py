from colorcli.images import read_picture
from colorcli.train.data.validation import write_validation_shots
from colorcli.train.drawings import FAMILIES
from colorcli.train.evaluation.evaluate import find_known_shots


def test_validation_shots_are_known_shots_of_styles_never_trained_on(tmp_path):
    write_validation_shots(tmp_path, 2, frames=1)
    shots = find_known_shots(tmp_path)
    assert len(shots) == 2
    assert not any(shot.name.startswith(tuple(FAMILIES)) for shot in shots)
    line, color = (read_picture(paths[0]) for paths in (shots[0].lines, shots[0].colors))
    assert line.size == color.size
    assert line.alpha is not None and (line.alpha == color.alpha).all()


def test_every_call_draws_the_same_shots(tmp_path):
    for name in ("one", "two"):
        write_validation_shots(tmp_path / name, 1, frames=1)
    one, two = (find_known_shots(tmp_path / name)[0] for name in ("one", "two"))
    assert one.key.read_bytes() == two.key.read_bytes()
    assert one.lines[0].read_bytes() == two.lines[0].read_bytes()


def test_in_a_moving_shot_the_character_stays_where_the_key_shows_it(tmp_path):
    overlap = {}
    for name in ("moving", "any"):
        write_validation_shots(tmp_path / name, 4, frames=1, moving=name == "moving")
        shares = []
        for shot in find_known_shots(tmp_path / name):
            key, frame = (read_picture(path).alpha > 0.5 for path in (shot.key, shot.lines[0]))
            shares.append((key & frame).sum() / (key | frame).sum())
        overlap[name] = sum(shares) / len(shares)
    assert 0.97 > overlap["moving"] > overlap["any"] + 0.1
