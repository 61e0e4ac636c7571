"""Job bundles of shots with hostile names: a farm that fills in the template asks for the files that are meant."""

import contextlib
import io

from hypothesis import assume, given
from hypothesis import strategies as st

from colorcli.cli.main import main
from tests.farm.farmer import commands, job_of, make_job
from tests.fuzz.mutations import costly, file_names, scratch
from tests.shot.studio import draw, draw_key

FOLDER_NAMES = file_names(suffixes=("", "_x", ".png"), longest=120)


@costly
@given(FOLDER_NAMES, FOLDER_NAMES, st.sampled_from(("cel", "soft")))
def test_a_bundle_asks_for_the_files_that_were_meant(shot_name, key_name, preset):
    assume(shot_name not in (key_name, f"{key_name}.png") and f"{shot_name}_color" != key_name)
    out, err = io.StringIO(), io.StringIO()
    with scratch() as folder, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        shot, key = folder / shot_name, folder / f"{key_name}.png"
        try:
            for number in (1, 2, 5):
                draw(shot / f"walk.{number:04d}.png", number, (24, 20))
            draw_key(key)
        except OSError:
            assume(False)  # not even this disk takes it
        words = ["--ref", str(key), "--preset", preset, str(shot)]
        bundle = folder / "bundle"
        code = main(["farm", "openjd", "-o", str(bundle), "--engine", "stand-in", *words])
        if code:
            # What a template of the specification cannot say is refused, and nothing is left behind.
            assert code in (2, 3), err.getvalue()
            assert not bundle.exists() or not list(bundle.iterdir())
            return
        job = job_of(bundle)
        assert len(job.name) <= 128
        values = [parameter.value for parameter in job.parameters.values()]
        assert str(shot) in values and str(key) in values
        for _, told in commands(make_job(folder / "again", *words)):
            assert not [word for word in told if "{{" in word and "{{" not in shot_name + key_name]
        assert sorted(path.name for path in folder.iterdir()) == sorted(["again", "bundle", shot.name, key.name])
