"""What a pod's libraries must find."""

import os

import pytest

from nativealign_api.vocabulary import ENV_ACCELERATORS
from nativealign_workloads.errors import UnavailableError
from nativealign_workloads.libraries import import_libraries


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia"), reason="this machine has accelerators")
def test_a_pod_that_was_given_accelerators_does_not_go_on_with_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    import_libraries()
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # as a driver counts that is too old for CUDA
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "0")  # as before DeepSpeed is imported, which has torch believe that count
    monkeypatch.setenv(ENV_ACCELERATORS, "8")
    with pytest.raises(UnavailableError, match="AcceleratorMissing: 0 of 8"):
        import_libraries()
