import pytest
import torch

import landscape as ls


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ls.create_model("resnet8", 4, 8, 1)
