import numpy as np
import pytest
from sklearn.decomposition import PCA

from index.embedders.teacher_space import TeacherSpace
from index.errors import UsageError


def test_it_is_scikit_learns_pca_scaled_to_unit_length(unit_rows):
    vectors = unit_rows(60, 20)
    ours = TeacherSpace.fit(vectors, 7).project(vectors)
    theirs = PCA(7, svd_solver="full").fit_transform(vectors)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-4)


def test_whole_whitening_is_scikit_learns(unit_rows):
    vectors = unit_rows(60, 20) * np.geomspace(1, 0.2, 20, dtype=np.float32)
    ours = TeacherSpace.fit(vectors, 7, whiten=1).project(vectors)
    theirs = PCA(7, svd_solver="full", whiten=True).fit_transform(vectors)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=0.02)  # ours has a floor


def test_whitening_makes_variances_more_alike_by_its_power(unit_rows):
    vectors = unit_rows(200, 12) * np.geomspace(1, 0.1, 12, dtype=np.float32)

    def spread(whiten: float) -> float:
        space = TeacherSpace.fit(vectors, 6, whiten)
        deviations = ((vectors - space.mean) @ space.components.T).std(axis=0)
        return np.log(deviations[0] / deviations[-1])

    plain = spread(0)
    assert spread(0.25) == pytest.approx(0.75 * plain, rel=0.05)
    assert spread(0.5) == pytest.approx(0.5 * plain, rel=0.05)
    assert spread(1) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    ("answers", "teacher_dim", "dim"), [(5, 40, 16), (100, 6, 16), (100, 40, 16), (2, 3, 1)]
)
def test_any_teacher_fits_any_student(unit_rows, answers, teacher_dim, dim):
    vectors = unit_rows(answers, teacher_dim)
    projected = TeacherSpace.fit(vectors, dim).project(vectors)
    assert projected.shape == (answers, dim)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)


def test_all_dimensions_kept_means_all_centred_similarities_kept(unit_rows):
    vectors = unit_rows(50, 6)
    centred = vectors - vectors.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    projected = TeacherSpace.fit(vectors, 16).project(vectors)
    np.testing.assert_allclose(projected @ projected.T, centred @ centred.T, atol=1e-5)


def test_equal_answers_give_finite_vectors():
    vectors = np.tile(np.array([[0.6, 0.8]], np.float32), (5, 1))
    assert np.isfinite(TeacherSpace.fit(vectors, 4).project(vectors)).all()


def test_a_file_round_trip(tmp_path, unit_rows):
    space = TeacherSpace.fit(unit_rows(30, 10), 4)
    space.save(tmp_path / "s.npz")
    again = TeacherSpace.load(tmp_path / "s.npz")
    assert again.key == space.key
    assert again.dim == 4
    whole = (tmp_path / "s.npz").read_bytes()
    for data in (b"no", b"", whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "bad.npz").write_bytes(data)
        with pytest.raises(UsageError, match="is not a teacher space"):
            TeacherSpace.load(tmp_path / "bad.npz")
