"""Edits by words: what closed forms say of them, and CLIP's text tower beside torch's own layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from colorcli.model.text_manipulation import (
    TextEdit,
    WordEdit,
    edit_tokens,
    heat_map,
    position_weight,
    read_edits,
    relevance,
    similarity_picture,
    similarity_pictures,
    text_vectors,
)
from tests.model.conversion_v2 import text_tower_state
from tests.model.tiny import normal

RED, BLUE = (F.normalize(normal(8, seed=seed), dim=0) for seed in (1, 2))
TOKENS = normal(1, 5, 8)


def test_weights_of_places_are_those_of_the_published_table():
    places = torch.tensor([0.50, 0.55, 0.60, 0.65, 0.70, 0.95, 1.0])[None, :, None]
    weights = position_weight(places, torch.ones(1, 1, 1)).flatten()
    torch.testing.assert_close(weights, torch.tensor([-2, 0, 0.25, 0.5, 0.58333333, 1, 1]))


def test_without_a_control_all_places_move_alike_and_the_class_token_stays():
    changed = edit_tokens(TOKENS, [TextEdit(RED, 6.0)])
    assert torch.equal(changed[:, 0], TOKENS[:, 0])
    moves = changed[:, 1:] - TOKENS[:, 1:]
    expected = (6.0 - TOKENS[0, 0] @ RED) * RED
    torch.testing.assert_close(moves, expected.expand_as(moves))


def test_relevant_places_move_to_the_target_and_others_away():
    tokens = TOKENS.clone()
    tokens[0, 3] = 9 * BLUE
    moves = (edit_tokens(tokens, [TextEdit(RED, 6.0, control=BLUE)]) - tokens) @ RED
    assert moves[0, 3] > 0
    assert bool((moves[0, [1, 2, 4]] < 0).all())


def test_from_a_word_to_the_same_word_is_no_way():
    torch.testing.assert_close(edit_tokens(TOKENS, [TextEdit(RED, 6.0, anchor=RED, control=BLUE)]), TOKENS)


def test_places_that_are_all_alike_stay_numbers():
    alike = TOKENS[:, :1].repeat(1, 5, 1)
    assert bool(edit_tokens(alike, [TextEdit(RED, 6.0, control=BLUE)]).isfinite().all())


def test_without_a_scale_nothing_is_changed():
    edits = [TextEdit(RED, 0.0), TextEdit(BLUE, 0.0)]
    assert torch.equal(edit_tokens(TOKENS, edits), TOKENS)


def test_the_heat_of_the_most_relevant_place_is_full():
    found = heat_map(relevance(TOKENS[:, 1:], RED)).flatten()
    assert float(found.max()) == 1.0
    assert int(found.argmax()) == int((TOKENS[0, 1:] @ RED).argmax())


def test_the_similarity_picture_is_hot_where_the_control_is():
    places = 0.1 * normal(1, 16, 8)
    places[0, 4 * 1 + 2] = 9 * BLUE  # second row, third column
    shown = similarity_picture(places, BLUE, (40, 80))
    assert shown.shape == (40, 80)
    assert float(shown[15, 50]) == 1.0
    assert float(shown[:, :20].max()) == 0.0
    assert set(shown.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}


def test_similarity_is_shown_as_an_edit_finds_it_after_those_before_it():
    tokens = 0.1 * normal(1, 17, 8)
    tokens[0, 1 + 5] = 9 * RED   # the place in the second row and second column
    to_blue = TextEdit(BLUE, 20.0, anchor=RED, control=RED)
    before, free, after = similarity_pictures(tokens, [to_blue, TextEdit(RED, 1.0), TextEdit(RED, 1.0, control=BLUE)],
                                              (64, 64))
    assert free is None
    assert before is not None and after is not None
    assert float(before[24, 24]) == 1.0
    assert float(after[24, 24]) == 1.0
    untouched = similarity_pictures(tokens, [TextEdit(RED, 1.0, control=BLUE)], (64, 64))[0]
    assert untouched is not None and not torch.equal(untouched, after)


def test_words_are_read_once_and_come_back_in_their_places():
    asked: list[list[str]] = []

    def read(texts: list[str]) -> Tensor:
        asked.append(texts)
        return torch.stack([torch.full((8,), float(len(text))) for text in texts])

    first, second = read_edits(
        [WordEdit("red", 6.0, anchor="blue", control="hair", enhance=True), WordEdit("red", 2.0)], read
    )
    assert asked == [["blue", "hair", "red"]]
    assert first.anchor is not None and first.control is not None
    assert [float(x[0]) for x in (first.target, first.anchor, first.control)] == [3, 4, 4]
    assert first.enhance and second.anchor is None and second.control is None and second.scale == 2.0
    assert read_edits([], read) == ()


class PlainTextTower(nn.Module):
    """CLIP's text tower in torch's own layers, under the names of its first publication."""

    def __init__(self, layers: int, width: int = 16, words: int = 50, length: int = 9) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, 12))

    def forward(self, ids: Tensor, layers: int) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        ahead = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        for block in self.blocks[:layers]:
            x = block(x, ahead)
        return self.ln_final(x)[torch.arange(len(ids)), ids.argmax(1)] @ self.text_projection

    def published(self) -> dict[str, Tensor]:
        """Give the state by its first names."""
        layers = (
            ("self_attn.in_proj_", "attn.in_proj_"), ("self_attn.", "attn."), ("linear1.", "mlp.c_fc."),
            ("linear2.", "mlp.c_proj."), ("norm1.", "ln_1."), ("norm2.", "ln_2."),
        )
        found = {"logit_scale": torch.tensor(4.6)}
        for name, value in self.state_dict().items():
            for ours, theirs in layers:
                if name.startswith("blocks.") and ours in name:
                    name = name.replace("blocks.", "transformer.resblocks.").replace(ours, theirs)
                    break
            found[name] = value
        return found


@pytest.fixture(scope="module")
def plain() -> PlainTextTower:
    tower = PlainTextTower(layers=3)
    for i, weight in enumerate(tower.parameters()):
        weight.data = 0.3 * normal(*weight.shape, seed=i)
    return tower.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tower(plain) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=64, projection_dim=12, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=9, hidden_act="gelu", bos_token_id=48, eos_token_id=49,
    )
    model = CLIPTextModelWithProjection(config)
    model.load_state_dict(text_tower_state(plain.published()))
    return model.eval().requires_grad_(False)


def test_a_text_is_read_by_all_layers_but_the_last(plain, tower):
    ids = torch.tensor([[48, 3, 7, 49, 0, 0, 0], [48, 9, 1, 2, 4, 5, 49]])
    expected = F.normalize(plain(ids, layers=2), dim=1)
    torch.testing.assert_close(text_vectors(tower, ids), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, F.normalize(plain(ids, layers=3), dim=1), atol=1e-2)


def test_what_comes_behind_the_end_of_a_text_makes_no_difference(tower):
    short, padded = torch.tensor([[48, 3, 49]]), torch.tensor([[48, 3, 49, 49, 49]])
    torch.testing.assert_close(text_vectors(tower, short), text_vectors(tower, padded))
