import torch

from bundle.networks.baselines.discriminator import ExamDiscriminator


def test_one_judgement_of_the_exam_beside_what_was_given():
    network = ExamDiscriminator(4, channels=4)
    exam, truth = torch.rand(2, 4, 64, 64), {"given": torch.rand(2, 8, 64, 64), "image": torch.rand(2, 4, 64, 64)}
    judged = network(exam, truth)
    assert judged.shape == (2, 1, 6, 6)
    assert torch.equal(network(exam, {**truth, "image": torch.zeros(2, 4, 64, 64)}), judged)
    assert not torch.equal(network(exam, {**truth, "given": torch.zeros(2, 8, 64, 64)}), judged)
    assert not torch.equal(network(1 - exam, truth), judged)


def test_a_judgement_of_each_contrast_beside_the_true_exam():
    network = ExamDiscriminator(4, per_contrast=True, channels=4)
    exam, truth = torch.rand(2, 4, 64, 64), {"given": torch.rand(2, 8, 64, 64), "image": torch.rand(2, 4, 64, 64)}
    judged = network(exam, truth)
    assert judged.shape == (2, 4, 6, 6)
    assert torch.equal(network(exam, {**truth, "given": torch.zeros(2, 8, 64, 64)}), judged)
    assert not torch.equal(network(exam, {**truth, "image": torch.zeros(2, 4, 64, 64)}), judged)


def test_a_patch_sees_70_pixels():
    """The receptive field of pix2pix's discriminator; without the norms, whose mean over the image is global."""
    network = ExamDiscriminator(1, channels=4)
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = lambda x: x
    exam = torch.rand(1, 1, 192, 192, requires_grad=True)
    judged = network(exam, {"given": torch.rand(1, 2, 192, 192)})
    judged[0, 0, 11, 11].backward()
    rows, columns = exam.grad[0, 0].nonzero(as_tuple=True)
    assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == 70
