"""MSSE against scaled dot-product attention written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bundle.networks.msse import MSSE


def test_is_the_coarse_scale_plus_attention_over_the_finer_ones() -> None:
    block = MSSE((4, 8), num_heads=2, alpha=0.3).eval()
    fine, coarse = torch.rand(2, 4, 16, 16), torch.rand(2, 8, 8, 8)
    pooled = F.avg_pool2d(fine, 2)
    weight, bias = block.proj[0].weight[:, :, 0, 0], block.proj[0].bias
    guidance = torch.einsum("oc,bchw->bohw", weight, pooled) + bias[:, None, None]
    query = block.norm_query(coarse.flatten(2).transpose(1, 2))
    context = block.norm_context(guidance.flatten(2).transpose(1, 2))
    attention = block.attention
    q, k, v = attention.to_q(query), attention.to_k(context), attention.to_v(context)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        weight = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 4**0.5, dim=-1)
        heads.append(weight @ v[..., part])
    expected = coarse + 0.3 * attention.out_proj(torch.cat(heads, -1)).transpose(1, 2).reshape(2, 8, 8, 8)
    torch.testing.assert_close(block([fine, coarse]), expected, atol=1e-5, rtol=1e-4)


def test_without_weight_it_is_the_coarse_scale() -> None:
    block = MSSE((4, 8), alpha=0.0)
    coarse = torch.rand(1, 8, 4, 4)
    assert torch.equal(block([torch.rand(1, 4, 8, 8), coarse]), coarse)
