"""When a checkpoint is written: by its own setting, whatever the other says of validation."""

from types import SimpleNamespace

import pytest

from sv_utils.training import loop


@pytest.mark.parametrize(("checkpoint_steps", "validate_steps", "due"), [(2, 0, [2, 4]), (3, 2, [3]), (0, 1, [])])
def test_checkpoints_are_due_by_their_own_setting(tmp_path, monkeypatch, checkpoint_steps, validate_steps, due):
    written = []
    monkeypatch.setattr(loop.checkpoints, "write", lambda path, model, progress: written.append(progress.step))
    training = object.__new__(loop.Training)
    training.engine = {"checkpoint_steps": checkpoint_steps, "validate_steps": validate_steps}
    training._unread = []
    training.phases, training.crops, training.directory, training._model = [{"steps_per_epoch": 9}], [None], tmp_path, 0
    monkeypatch.setattr(loop.Training, "_judge", lambda _: SimpleNamespace(eer=0.5))
    for step in range(1, 5):
        training._progress = SimpleNamespace(phase=0, phase_step=step, step=step, steps=[])
        training._after_step()
    assert written == due
