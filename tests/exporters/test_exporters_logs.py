import logging

from exporters.logs import FieldFormatter
from router import Stage


def test_a_line_ends_with_the_events_fields_as_people_read_them() -> None:
    record = logging.makeLogRecord({"msg": "promoter.moved", "levelname": "INFO", "before": Stage.CANDIDATE, "n": 3})
    vars(record)["_of_a_library"] = 1
    assert FieldFormatter("%(levelname)s %(message)s").format(record) == "INFO promoter.moved before='candidate' n=3"
