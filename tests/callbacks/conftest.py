from pathlib import Path

import pytest

from flowsmith.scored_flows import to_table, write_scored_flows
from tests.callbacks.painting import known_row
from tests.flows_for_tests import some_flows


@pytest.fixture
def known_rows(tmp_path: Path) -> str:
    """A file of training rows: the first two of `some_flows`."""
    path = tmp_path / "known.parquet"
    write_scored_flows(path, to_table(known_row(flow) for flow in some_flows(2)))
    return str(path)
