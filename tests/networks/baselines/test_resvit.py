import torch

from bundle.networks.baselines.resvit import AggregatedResidualTransformer, ResViT

SMALL = {"channels": 4, "hidden_size": 16, "mlp_dim": 16, "num_layers": 1, "num_blocks": 2}


def test_the_default_is_of_the_size_of_the_unet():
    assert 1.5e6 < sum(weight.numel() for weight in ResViT(8, 4).parameters()) < 2.5e6


def test_no_weight_is_held_under_two_names():
    """Else the exchange of the weights with their average would exchange a shared one twice, which is not at all."""
    state = ResViT(8, 4, **SMALL, transformed=(0, 1)).state_dict()
    places = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(places)) == len(places)
    assert sum("attn.qkv.weight" in name for name in state) == 1


def test_the_transformer_looks_farther_than_the_convolutions():
    # without transformers and norms (whose mean over the slice is global) the middle does not depend on the corner
    def influence(network):
        for module in network.modules():
            if isinstance(module, torch.nn.InstanceNorm2d):
                module.forward = lambda x: x
        image = torch.rand(1, 1, 128, 128, requires_grad=True)
        network(image)[0, 0, 64, 64].backward()
        return float(image.grad[0, 0, :8, :8].abs().max())

    assert influence(ResViT(1, 1, **SMALL, transformed=())) == 0
    assert influence(ResViT(1, 1, **SMALL, transformed=(0,))) > 0


@torch.no_grad()
def test_tokens_know_where_they_are():
    block = AggregatedResidualTransformer(4, 16)
    taken = []
    block(torch.ones(1, 4, 8, 12), lambda tokens: taken.append(tokens) or tokens)
    (tokens,) = taken
    assert tokens.shape == (1, 24, 16)  # half the size: 4 x 6
    inner = tokens[0].unflatten(0, (4, 6))[1:3, 1:5].flatten(0, 1)  # away from the padding all features are the same
    assert torch.cdist(inner, inner).fill_diagonal_(1).min() > 0.1


def test_it_learns():
    torch.manual_seed(1)
    network = ResViT(2, 1, **SMALL)
    image = torch.rand(2, 2, 32, 32)
    truth = 1 - image[:, :1] * image[:, 1:]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (network(image) - truth).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
