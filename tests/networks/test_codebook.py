import pytest
import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer

from bundle.networks import codebook
from bundle.networks.codebook import Codebook, nearest_in_parts, perplexity


def test_it_finds_what_monai_finds(monkeypatch):
    ours, theirs = Codebook(50, 3).eval(), EMAQuantizer(3, 50, 3).eval()
    theirs.embedding.weight.data = ours.embedding.weight.clone()
    x = torch.randn(2, 3, 4, 5, 6)
    quantised, loss, indices = ours(x)
    expected, expected_loss, expected_indices = theirs(x)
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(quantised, expected)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(ours.snap(x), expected)
    assert torch.equal(ours.snap(ours.snap(x)), ours.snap(x))
    monkeypatch.setattr(codebook, "DISTANCES_AT_ONCE", 50 * 7)  # as on a GPU, 7 of the 240 voxels at a time
    in_parts = nearest_in_parts(ours.embedding.weight, x.movedim(1, -1).flatten(0, -2))
    assert torch.equal(in_parts, expected_indices.flatten())


def test_the_gradient_passes_straight_through_and_the_codes_get_none():
    book, x = Codebook(8, 2).eval(), torch.randn(1, 2, 2, 2, 2, requires_grad=True)
    quantised, loss, _ = book(x)
    (gradient,) = torch.autograd.grad((3 * quantised).sum(), x, retain_graph=True)
    assert torch.equal(gradient, torch.full_like(x, 3))
    (pull,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(pull, 0.25 * 2 * (x - quantised).detach() / x.numel())
    assert not list(book.parameters())


def latents(codes=40):
    """Far from the codebook's beginning, and in as many heaps as it has codes."""
    centres = 0.05 * torch.randn(codes, 3) + 5
    return (centres[torch.randint(codes, (4096,))] + 1e-3 * torch.randn(4096, 3)).T.reshape(1, 3, 16, 16, 16)


@pytest.mark.parametrize("revive_below", [0.1, 0.0])
def test_the_codes_stay_in_use(revive_below):
    """Without revival a codebook that begins elsewhere collapses to the few codes on the near side."""
    torch.manual_seed(0)
    book, x = Codebook(40, 3, revive_below=revive_below).train(), latents()
    if not revive_below:
        book.ema_cluster_size.fill_(1)  # at 0, where it begins, a code has no place of its own
    for _ in range(30):
        book(x)
    _, loss, indices = book.eval()(x)
    used = perplexity(indices, 40)
    print(f"revive below {revive_below}: perplexity {used:.1f} of 40, commitment {loss.item():.2e}")
    if revive_below:
        assert used > 20 and len(indices.unique()) > 24
    else:
        assert used < 8


def test_codes_become_the_means_of_what_chooses_them():
    book = Codebook(2, 1, decay=0.5, revive_below=0.0).train()
    book.embedding.weight.copy_(torch.tensor([[0.0], [10.0]]))
    book.ema_w.copy_(book.embedding.weight)
    book.ema_cluster_size.fill_(1)
    x = torch.tensor([1.0, 3.0, 8.0, 10.0]).reshape(1, 1, 4, 1, 1)
    for _ in range(40):
        book(x)
    torch.testing.assert_close(book.embedding.weight, torch.tensor([[2.0], [9.0]]), atol=1e-4, rtol=0)
    held = book.embedding.weight.clone()
    book.eval()(x + 1)
    assert torch.equal(held, book.embedding.weight)


def test_in_the_beginning_nothing_is_quantised():
    book, x = Codebook(8, 2, warm_up=2).train(), torch.randn(1, 2, 4, 4, 4)
    for step in range(3):
        passed, loss, _ = book(x)
        assert torch.equal(passed, x) == (loss == 0) == (step < 2)
    again = Codebook(8, 2, warm_up=2).train()
    again.load_state_dict(book.state_dict())  # a training that is resumed does not begin anew
    assert not torch.equal(again(x)[0], x)
    fresh = Codebook(8, 2, warm_up=2).eval()
    assert not torch.equal(fresh(x)[0], x)


def test_perplexity():
    assert perplexity(torch.arange(16).reshape(2, 2, 2, 2), 16) == pytest.approx(16)
    assert perplexity(torch.zeros(5, dtype=torch.long), 16) == pytest.approx(1)
    assert perplexity(torch.tensor([0, 0, 1, 1]), 16) == pytest.approx(2)
